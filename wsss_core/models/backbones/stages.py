"""Cutting published networks into stages, and changing their strides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


def cut(features: Sequence[nn.Module], ends: Sequence[int]) -> tuple[list[nn.Sequential], dict[str, str]]:
    """Cut a sequence before the given indices; also the names of the parts' parameters."""
    starts = (0, *ends[:-1])
    stages = [nn.Sequential(*features[start:end]) for start, end in zip(starts, ends, strict=True)]
    names = {
        f"features.{index}.": f"stages.{stage}.{index - start}."
        for stage, (start, end) in enumerate(zip(starts, ends, strict=True))
        for index in range(start, end)
    }
    return stages, names


def remove_stride(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def dilate(stage: nn.Module, dilation: int) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (dilation, dilation)


def dilate_behind_stride(stage: nn.Module, dilation: int) -> None:
    """Dilate a stage whose first 3x3 convolution lost its stride of 2: that one half as much as those behind it."""
    first, *rest = (m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    dilate(first, dilation // 2)
    for module in rest:
        dilate(module, dilation)


def draw_convolutions(stages: Iterable[nn.Module]) -> None:
    """Draw the weights of all convolutions as He et al. (ICCV 2015) do, and set their biases to 0."""
    for stage in stages:
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
