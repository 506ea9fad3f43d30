"""A small residual network with group normalisation, made to be trained from nothing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.models.backbones.base import Backbone
from wsss_core.models.backbones.stages import dilate


def build(name: str, output_stride: int) -> Backbone:
    fourth = 1 if output_stride == 8 else 2
    stages = [
        nn.Sequential(_conv(3, 24, 2), nn.ReLU(), _conv(24, 32, 2), nn.ReLU()),
        _Residual(32, 48, 1),
        nn.Sequential(_Residual(48, 64, 2), _Residual(64, 64, 1)),
        nn.Sequential(_Residual(64, 128, fourth), _Residual(128, 128, 1)),
        _Residual(128, 160, 2 if output_stride == 32 else 1),
    ]
    if output_stride == 8:
        dilate(stages[3], 2)
        dilate(stages[4], 4)
    return Backbone(name, stages, (32, 48, 64, 128, 160), (4, 4, 8, min(output_stride, 16), output_stride), 0, 0.05, {})


class _Residual(nn.Module):
    """Two 3x3 convolutions with group normalisation, beside a shortcut (projected where the shape changes)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(channels, width, stride)
        self.second = _conv(width, width, 1)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else _conv(channels, width, stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, ceil(h / stride), ceil(w / stride)]."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def _conv(channels: int, width: int, stride: int, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.GroupNorm(8, width))
