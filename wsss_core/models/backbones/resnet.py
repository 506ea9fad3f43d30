"""ResNet-50 and ResNet-101 with bottlenecks (He et al., CVPR 2016), under torchvision's names."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.models.backbones.base import Backbone
from wsss_core.models.backbones.norm import FixedBatchNorm
from wsss_core.models.backbones.stages import dilate, draw_convolutions, remove_stride

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
"""Bottlenecks of the four layers."""

EXPANSION = 4
"""Channels that a bottleneck gives, by those in its middle."""


def build(name: str, output_stride: int) -> Backbone:
    """The network; see `wsss_core.models.backbones.backbone`."""
    stem = OrderedDict(
        conv1=nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        bn1=FixedBatchNorm(64),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    stages: list[nn.Sequential] = [nn.Sequential(stem)]
    channels = 64
    for number, blocks in enumerate(BLOCKS[name]):
        width, stride = 64 * 2**number, 1 if number == 0 else 2
        stages.append(_layer(channels, width, blocks, stride))
        channels = EXPANSION * width
    nn.Linear(channels, 1000)  # torchvision draws its classifier here; so a seed gives the weights that it has there
    draw_convolutions(stages)
    if output_stride < 32:
        remove_stride(stages[4])
    if output_stride == 8:
        remove_stride(stages[3])
        dilate(stages[3], 2)
        dilate(stages[4], 4)
    names = {"conv1.": "stages.0.conv1.", "bn1.": "stages.0.bn1."} | {f"layer{i}.": f"stages.{i}." for i in range(1, 5)}
    strides = (4, 4, 8, min(output_stride, 16), output_stride)
    return Backbone(name, stages, (64, 256, 512, 1024, 2048), strides, 3, 0.01, names)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3, which has the stride, and 1x1, beside a shortcut.

    Parameters
    ----------
    channels
        Of the input.
    width
        Channels in the middle.
    downsample
        The shortcut where the shape changes.
    """

    def __init__(self, channels: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = FixedBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = FixedBatchNorm(width)
        self.conv3 = nn.Conv2d(width, EXPANSION * width, 1, bias=False)
        self.bn3 = FixedBatchNorm(EXPANSION * width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, 4 * width, ceil(h / stride), ceil(w / stride)]."""
        branch = F.relu_(self.bn1(self.conv1(x)))
        branch = F.relu_(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        branch += x if self.downsample is None else self.downsample(x)
        return F.relu_(branch)


def _layer(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    wide = EXPANSION * width
    projection = nn.Sequential(nn.Conv2d(channels, wide, 1, stride=stride, bias=False), FixedBatchNorm(wide))
    first = Bottleneck(channels, width, stride, projection)
    return nn.Sequential(first, *(Bottleneck(wide, width, 1, None) for _ in range(blocks - 1)))
