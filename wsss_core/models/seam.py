"""The network of SEAM: a classifier whose activation maps spread to cells that look alike.

Wang, Zhang, Kan, Shan & Chen, "Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation", CVPR 2020; sizes and constants as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.constants import EPSILON
from wsss_core.models.backbones import Backbone
from wsss_core.models.cam import CamNetwork

TAPS = (2, 3)
"""Taps of the backbone that say which cells look alike: conv4 and conv5 of ResNet-38d."""

BLOCK_ENTRIES = {"cpu": 2**22, "cuda": 2**26}
"""Entries of the affinity matrix that are held together, unless one cell needs more; bounds memory."""


class SeamNetwork(CamNetwork):
    """`CamNetwork` with the pixel correlation module.

    The published head has another output for the background. Nothing depends on it: wherever a background map is used
    it has been replaced by 1 - the largest foreground map, and no loss reads its logit. So there is none here.

    Parameters
    ----------
    backbone
        Its taps 2 and 3, the image, and its last tap are used.
    n_classes
        Number of foreground classes C.

    Attributes
    ----------
    correlation
        The `PixelCorrelation` module.
    """

    architecture = "seam"

    def __init__(self, backbone: Backbone, n_classes: int) -> None:
        super().__init__(backbone, n_classes)
        nn.init.xavier_uniform_(self.classifier.weight)
        self.dropout = nn.Dropout2d(0.5)
        self.correlation = PixelCorrelation([backbone.channels[tap] for tap in TAPS])

    def activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Activation maps before and after the correlation.

        Parameters
        ----------
        images
            Normalised, [B, 3, H, W].

        Returns
        -------
        Logit maps [B, C, h, w] (of features that drop channels in training mode), and refined maps [B, C + 1, h, w] in
        0..1, background first, float32 under autocast too. Refined maps pass gradients to the correlation module alone.
        """
        taps = self.backbone(images)
        maps = self.classify(self.dropout(taps[-1]))
        return maps, self.correlation(images, [taps[tap] for tap in TAPS], candidates(maps.float()))


class PixelCorrelation(nn.Module):
    """Refines maps with the affinity of cells in colour and in features of two taps, all at the grid of the maps.

    Parameters
    ----------
    channels
        Of the two taps.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        reduce = [nn.Conv2d(c, width, 1, bias=False) for c, width in zip(channels, (64, 128), strict=True)]
        self.reduce = nn.ModuleList(reduce)
        self.embed = nn.Conv2d(3 + 64 + 128, 192, 1, bias=False)
        for convolution in reduce:
            nn.init.kaiming_normal_(convolution.weight)
        nn.init.xavier_uniform_(self.embed.weight, gain=4)

    def forward(self, images: Tensor, taps: Sequence[Tensor], maps: Tensor) -> Tensor:
        """Refined maps [B, L, h, w].

        Parameters
        ----------
        images
            Normalised, [B, 3, H, W].
        taps
            Two, [B, D, h', w'] with grids of their own; they get no gradient.
        maps
            [B, L, h, w].
        """
        size = maps.shape[2:]
        reduced = [convolution(tap.detach()).relu() for convolution, tap in zip(self.reduce, taps, strict=True)]
        return spread(maps, self.embed(torch.cat([resize(part, size) for part in (images, *reduced)], 1)))


def candidates(maps: Tensor) -> Tensor:
    """What the correlation spreads: the `strongest` of maps divided by their maxima.

    Parameters
    ----------
    maps
        Logit maps [B, C, h, w].

    Returns
    -------
    [B, C + 1, h, w] in 0..1, background first, without gradient.
    """
    positive = maps.detach().relu()
    return strongest((positive - EPSILON).relu() / (positive.amax((2, 3), keepdim=True) + EPSILON))


def strongest(maps: Tensor) -> Tensor:
    """The background, 1 - the strongest class, and at every cell only the strongest class (or those that share it).

    Parameters
    ----------
    maps
        [B, C, h, w] in 0..1.

    Returns
    -------
    [B, C + 1, h, w], background first.
    """
    largest = maps.amax(1, keepdim=True)
    return torch.cat([1 - largest, maps * (maps == largest)], 1)


def spread(maps: Tensor, embedding: Tensor, cells: int | None = None) -> Tensor:
    """At every cell the mean of the maps over all cells, weighted with their affinity ReLU(cos) to it.

    Parameters
    ----------
    maps
        [B, L, h, w].
    embedding
        [B, D, h, w]; of any length, only directions matter.
    cells
        Cells computed together, which the result does not depend on; default: as `BLOCK_ENTRIES` allows. Without
        gradients memory is bounded by it; with gradients all [h w, h w] affinities of an image are kept.

    Returns
    -------
    [B, L, h, w] of the maps' type, under autocast too: means over all cells differ little from cell to cell, by less
    than bfloat16 can tell, and the losses stretch these differences to 0..1. It is 0 at a cell without embedding.
    """
    batch, _, height, width = maps.shape
    cells = cells or max(1, BLOCK_ENTRIES[maps.device.type] // (batch * height * width))
    columns = []
    with torch.autocast(maps.device.type, enabled=False):
        directions, values = embedding.flatten(2).to(maps.dtype), maps.flatten(2)
        directions = directions / (directions.norm(dim=1, keepdim=True) + EPSILON)
        for part in directions.split(cells, 2):
            affinity = (directions.transpose(1, 2) @ part).relu()
            columns.append(values @ affinity / (affinity.sum(1, keepdim=True) + EPSILON))
    return torch.cat(columns, 2).unflatten(2, (height, width))


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[B, L, h, w] to (rows, columns) `size`, bilinear, so that the centres of the corner cells stay in the corners."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=True)
