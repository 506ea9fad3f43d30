"""The inter-pixel relation network: class boundaries and displacements to centroids from a frozen backbone.

Ahn, Cho & Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019;
branches, group normalisation and mean shift as in the authors' code. The paper's backbone is a ResNet-50 whose
five taps have the strides 4, 4, 8, 16, 16; other strides are resized to the same grids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.models.backbones import Backbone, BackboneNetwork

STRIDE = 4
"""Stride of both outputs, in pixels."""


class IrnNetwork(BackboneNetwork):
    """Boundary and displacement branches on five taps of a frozen backbone.

    Parameters
    ----------
    backbone
        It is frozen: it runs without gradients and always in evaluation mode.
    """

    kind = "irn"
    mean_shift: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        channels = backbone.channels
        self.edge_taps = nn.ModuleList(_project(c, 32, 4) for c in channels)
        self.edge_head = nn.Conv2d(5 * 32, 1, 1)
        widths, groups = (64, 128, 256, 256, 256), (8, 16, 16, 16, 16)
        self.displacement_taps = nn.ModuleList(
            _project(c, width, g) for c, width, g in zip(channels, widths, groups, strict=True)
        )
        self.displacement_coarse = _project(sum(widths[2:]), 256, 16)
        self.displacement_head = nn.Sequential(
            _project(widths[0] + widths[1] + 256, 256, 16), nn.ReLU(), nn.Conv2d(256, 2, 1, bias=False)
        )
        self.register_buffer("mean_shift", torch.zeros(2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boundary logits and displacements.

        Parameters
        ----------
        images
            Normalised, [B, 3, H, W].

        Returns
        -------
        Boundary logits [B, 1, (H-1)//4+1, (W-1)//4+1], and displacements [B, 2, ...] in cells, (dy, dx); in
        evaluation mode the mean shift is subtracted from them.
        """
        with torch.no_grad():
            taps = self.backbone(images)
        strides = self.backbone.strides
        fine = tuple(-(-side // STRIDE) for side in images.shape[2:])
        coarse = tuple(-(-side // (2 * STRIDE)) for side in images.shape[2:])
        edges = [
            resize(project(tap), stride, STRIDE, fine).relu()
            for project, tap, stride in zip(self.edge_taps, taps, strides, strict=True)
        ]
        boundary = self.edge_head(torch.cat(edges, 1))
        targets = ((STRIDE, fine),) * 2 + ((2 * STRIDE, coarse),) * 3
        parts = [
            resize(project(tap), stride, *target).relu()
            for project, tap, stride, target in zip(self.displacement_taps, taps, strides, targets, strict=True)
        ]
        deep = resize(self.displacement_coarse(torch.cat(parts[2:], 1)), 2 * STRIDE, STRIDE, fine).relu()
        displacement = self.displacement_head(torch.cat([*parts[:2], deep], 1))
        if not self.training:
            displacement = displacement - self.mean_shift[:, None, None]
        return boundary, displacement

    def train(self, mode: bool = True) -> IrnNetwork:
        """Set the mode of the branches; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def edge_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the boundary branch."""
        return self._parameters_of("edge_")

    def displacement_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the displacement branch."""
        return self._parameters_of("displacement_")

    def _parameters_of(self, prefix: str) -> Iterator[nn.Parameter]:
        return (parameter for name, parameter in self.named_parameters() if name.startswith(prefix))


def resize(features: Tensor, stride: int, target: int, size: Sequence[int]) -> Tensor:
    """Bring features from one stride to another, cropped to `size`.

    Coarser features are enlarged by the ratio of the strides (bilinear), finer ones averaged over it. Where neither is
    a multiple of the other, as for patches of 14 pixels, the ratio is no integer (bilinear).

    Parameters
    ----------
    features
        [B, D, ceil(H / stride), ceil(W / stride)].
    size
        Rows and columns of the result, ``ceil(side / target)``.
    """
    if stride % target and target % stride:  # a cell more, as the last ones may end within the image
        features = F.pad(features, (0, 1, 0, 1), mode="replicate")
        features = F.interpolate(features, scale_factor=stride / target, mode="bilinear", align_corners=False)
    elif stride > target:
        ratio = stride // target
        features = F.interpolate(features, scale_factor=ratio, mode="bilinear", align_corners=False)
    elif stride < target:
        features = F.avg_pool2d(features, target // stride, ceil_mode=True)
    return features[..., : size[0], : size[1]]


def _project(channels: int, width: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width))
