"""The network of CCT: an encoder with a pyramid of pooled features, a decoder that predicts, and auxiliary decoders.

Ouali, Hudelot & Tami, "Semi-Supervised Semantic Segmentation with Cross-Consistency Training", CVPR 2020; the pyramid
is that of PSPNet (Zhao et al., CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.errors import UserError
from wsss_core.models.backbones import Backbone, backbone
from wsss_core.models.segmentation import SegmentationNetwork

BINS = (1, 2, 3, 6)
"""Sides of the grids that features are pooled to."""


class PyramidPooling(nn.Module):
    """Features beside their means over ever smaller parts of the image, joined by a 3x3 convolution.

    Batch normalisation is that of PyTorch: batch statistics in training, running ones in evaluation.

    Parameters
    ----------
    given, made
        Channels of the features, and of the result.
    """

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        part = given // len(BINS)
        self.pooled = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(side), *_block(given, part, 1)) for side in BINS)
        self.joined = _block(given + part * len(BINS), made, 3)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D, h, w] to [B, made, h, w]."""
        size = features.shape[2:]
        pooled = [F.interpolate(p(features), size, mode="bilinear", align_corners=False) for p in self.pooled]
        return self.joined(torch.cat([features, *pooled], 1))


def _block(given: int, made: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(given, made, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(made), nn.ReLU())


class Decoder(nn.Sequential):
    """From features to logits on a grid that is 2 ** doublings times as fine.

    A 1x1 convolution leads to the L labels; for every doubling there follow a 1x1 convolution to 4 L channels, a
    rectifier and a pixel shuffle. Logits are therefore not negative.

    The doublings start as the identity: an untrained decoder enlarges the rectified labels of its first convolution by
    nearest neighbour. The published one starts them at random with equal sub-pixels (ICNR), where more labels end at 0
    everywhere, which leaves them no gradient (docs/methods/cct.md).
    """

    def __init__(self, channels: int, n_labels: int, doublings: int) -> None:
        first = nn.Conv2d(channels, n_labels, 1, bias=False)
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        finer = [_doubling(n_labels) for _ in range(doublings)]
        super().__init__(first, *(layer for layers in finer for layer in layers))


def _doubling(channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, 4 * channels, 1)
    nn.init.zeros_(convolution.get_parameter("bias"))
    with torch.no_grad():  # a pixel shuffle takes four channels that follow each other
        convolution.weight.copy_(torch.eye(channels)[..., None, None].repeat_interleave(4, 0))
    return convolution, nn.ReLU(), nn.PixelShuffle(2)


class CctNetwork(SegmentationNetwork):
    """Encoder, main decoder and, while it is trained, auxiliary decoders.

    Takes images [B, 3, H, W], RGB, normalised with the ImageNet mean and deviation, and returns the logits [B, L, H, W]
    of the main decoder, in every mode.

    Parameters
    ----------
    network
        Backbone whose last tap is used.
    n_labels
        Number of labels L with background.
    channels
        Of the encoder's features.
    auxiliary
        Kind of perturbation to the number of its decoders.

    Attributes
    ----------
    auxiliary
        Decoders like `decoder`, for perturbed features.
    kinds
        The kind of perturbation of each, which is the matter of the training.
    """

    architecture = "cct"

    def __init__(self, network: Backbone, n_labels: int, channels: int, auxiliary: Mapping[str, int]) -> None:
        super().__init__()
        self.backbone = network
        self.pyramid = PyramidPooling(network.out_channels, channels)
        doublings = round(log2(network.strides[-1]))
        if 2**doublings != network.strides[-1]:
            raise UserError(
                f"cct: its decoder doubles the grid until it has the image's size, but cells of {network.name} are "
                f"{network.strides[-1]} pixels apart: set output_stride to 8"
            )
        self.decoder = Decoder(channels, n_labels, doublings)
        self.kinds = tuple(kind for kind, count in auxiliary.items() for _ in range(count))
        self.auxiliary = nn.ModuleList(Decoder(channels, n_labels, doublings) for _ in self.kinds)

    def encode(self, images: Tensor) -> Tensor:
        """Features [B, channels, ceil(H / stride), ceil(W / stride)] that all decoders share."""
        return self.pyramid(self.backbone(images)[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, L, H, W] of the main decoder."""
        height, width = images.shape[2:]
        return self.decoder(self.encode(images))[..., :height, :width]  # cells reach beyond the image at its ends

    def drop_auxiliary(self) -> None:
        """Leave what predicts: the encoder and the main decoder."""
        self.kinds, self.auxiliary = (), nn.ModuleList()


def restored(backbone_name: str, n_labels: int, settings: Mapping[str, Any]) -> CctNetwork:
    """The network that was trained with these settings of `wsss_core.segment.cct.CctSettings`."""
    network = backbone(backbone_name, output_stride=settings["output_stride"])
    return CctNetwork(network, n_labels, settings["channels"], {})
