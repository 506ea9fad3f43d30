"""MobileNetV2 (Sandler et al., CVPR 2018), under torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

from wsss_core.models.backbones.base import Backbone
from wsss_core.models.backbones.norm import FixedBatchNorm
from wsss_core.models.backbones.stages import cut, dilate_behind_stride, draw_convolutions, remove_stride

BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, number and first stride of the inverted residuals (Table 2)."""


def build(name: str, output_stride: int) -> Backbone:
    """The network; see `wsss_core.models.backbones.backbone`."""
    features: list[nn.Module] = [_activated(3, 32, 3, stride=2)]
    channels = 32
    for expansion, width, number, first_stride in BLOCKS:
        for block in range(number):
            features.append(InvertedResidual(channels, width, 1 if block else first_stride, expansion))
            channels = width
    features.append(_activated(channels, 1280, 1))
    head = nn.Linear(1280, 1000)  # torchvision draws its classifier here; so a seed gives the weights that it has there
    draw_convolutions(features)
    nn.init.normal_(head.weight, 0, 0.01)
    stages, names = cut(features, (3, 4, 7, 14, 19))
    if output_stride < 32:
        remove_stride(stages[4])
        dilate_behind_stride(stages[4], 32 // output_stride)
    if output_stride == 8:
        remove_stride(stages[3])
        dilate_behind_stride(stages[3], 2)
    strides = (4, 4, 8, min(output_stride, 16), output_stride)
    return Backbone(name, stages, (24, 24, 32, 96, 1280), strides, 3, 0.01, names)


class InvertedResidual(nn.Module):
    """A depthwise 3x3 convolution between two of 1x1, beside the input where the shape stays.

    Parameters
    ----------
    expansion
        Channels in the middle, by those of the input; at 1 there is no first convolution.
    """

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = expansion * channels
        widening = [] if expansion == 1 else [_activated(channels, middle, 1)]
        self.conv = nn.Sequential(
            *widening,
            _activated(middle, middle, 3, stride=stride, groups=middle),
            nn.Conv2d(middle, width, 1, bias=False),
            FixedBatchNorm(width),
        )
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, ceil(h / stride), ceil(w / stride)]."""
        return x + self.conv(x) if self.adds else self.conv(x)


def _activated(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, FixedBatchNorm(width), nn.ReLU6(inplace=True))
