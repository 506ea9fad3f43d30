"""VGG-16 (Simonyan & Zisserman, ICLR 2015; its configuration D), under torchvision's names."""

from __future__ import annotations

from torch import nn

from wsss_core.models.backbones.base import Backbone
from wsss_core.models.backbones.stages import cut, dilate, draw_convolutions

CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Of the 3x3 convolutions of five groups, with a pooling behind each but the last."""


def build(name: str, output_stride: int) -> Backbone:
    """The network; see `wsss_core.models.backbones.backbone`."""
    features: list[nn.Module] = []
    channels = 3
    for number, group in enumerate(CHANNELS):
        if number:
            features.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
        for width in group:
            features += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    draw_convolutions(features)
    stages, names = cut(features, (10, 16, 23, 26, 30))
    if output_stride == 8:
        stages[3][0] = nn.MaxPool2d(3, stride=1, padding=1)
        dilate(stages[3], 2)
        dilate(stages[4], 2)
    strides = (4, 4, 8, output_stride, output_stride)
    return Backbone(name, stages, (128, 256, 512, 512, 512), strides, 1, 0.001, names)
