"""ResNet-38d (Wu, Shen & van den Hengel, arXiv 1611.10080), dilated as in PSA and SEAM."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.models.backbones.base import Backbone
from wsss_core.models.backbones.norm import FixedBatchNorm


def build(name: str, output_stride: int) -> Backbone:
    stride = output_stride // 8
    near, far = 2 // stride, 4 // stride
    stages = [
        {
            "conv1a": _plain_conv(3, 64, 3),
            "b2.bn_branch2a": _activation(64),
            "b2": _WideBlock(64, 128, 128, stride=2),
            "b2_1": _WideBlock(128, 128, 128),
            "b2_2": _WideBlock(128, 128, 128),
            "b3.bn_branch2a": _activation(128),
        },
        {
            "b3": _WideBlock(128, 256, 256, stride=2),
            "b3_1": _WideBlock(256, 256, 256),
            "b3_2": _WideBlock(256, 256, 256),
            "b4.bn_branch2a": _activation(256),
        },
        {
            "b4": _WideBlock(256, 512, 512, stride=2),
            **{f"b4_{number}": _WideBlock(512, 512, 512) for number in range(1, 6)},
            "b5.bn_branch2a": _activation(512),
        },
        {
            "b5": _WideBlock(512, 512, 1024, stride=stride, dilations=(1, near)),
            "b5_1": _WideBlock(1024, 512, 1024, dilations=(near, near)),
            "b5_2": _WideBlock(1024, 512, 1024, dilations=(near, near)),
            "b6.bn_branch2a": _activation(1024),
        },
        {
            "b6": _WideBottleneck(1024, 2048, dilation=far, dropout=0.3),
            "b7.bn_branch2a": _activation(2048),
            "b7": _WideBottleneck(2048, 4096, dilation=far, dropout=0.5),
            "bn7": _activation(4096),
        },
    ]
    names = {
        f"{published}.": f"stages.{stage}.{place}." + ("0." if "bn" in published else "")
        for stage, modules in enumerate(stages)
        for place, published in enumerate(modules)
    }
    names = dict(sorted(names.items(), key=lambda pair: -len(pair[0])))  # b3.bn_branch2a before b3
    strides = (2, 4, 8, output_stride, output_stride)
    sequences = [nn.Sequential(*modules.values()) for modules in stages]
    return Backbone(name, sequences, (128, 256, 512, 1024, 4096), strides, 1, 0.001, names)


class _WideBlock(nn.Module):
    """Pre-activation block of ResNet-38d: two 3x3 convolutions beside a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution, and the input has been normalised and rectified
    before; otherwise it is the raw input, and the block does that itself.
    """

    def __init__(
        self, channels: int, middle: int, width: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.projects = channels != width
        if self.projects:
            self.conv_branch1 = _plain_conv(channels, width, 1, stride)
        else:
            self.bn_branch2a = FixedBatchNorm(channels, trained=False)
        self.conv_branch2a = _plain_conv(channels, middle, 3, stride, dilations[0])
        self.bn_branch2b1 = FixedBatchNorm(middle, trained=False)
        self.conv_branch2b1 = _plain_conv(middle, width, 3, 1, dilations[1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, ceil(h / stride), ceil(w / stride)]."""
        if self.projects:
            shortcut, branch = self.conv_branch1(x), x
        else:
            shortcut, branch = x, F.relu(self.bn_branch2a(x))
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(branch)))
        return shortcut + self.conv_branch2b1(branch)


class _WideBottleneck(nn.Module):
    """Bottleneck of ResNet-38d, of an input normalised and rectified before; whole channels are dropped in training."""

    def __init__(self, channels: int, width: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv_branch1 = _plain_conv(channels, width, 1)
        self.conv_branch2a = _plain_conv(channels, width // 4, 1)
        self.bn_branch2b1 = FixedBatchNorm(width // 4, trained=False)
        self.conv_branch2b1 = _plain_conv(width // 4, width // 2, 3, 1, dilation)
        self.bn_branch2b2 = FixedBatchNorm(width // 2, trained=False)
        self.conv_branch2b2 = _plain_conv(width // 2, width, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, h, w]."""
        branch = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(x))))
        branch = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(branch))))
        return self.conv_branch1(x) + self.conv_branch2b2(branch)


def _activation(channels: int) -> nn.Sequential:
    return nn.Sequential(FixedBatchNorm(channels, trained=False), nn.ReLU())


def _plain_conv(channels: int, width: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(channels, width, kernel, stride, padding, dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
