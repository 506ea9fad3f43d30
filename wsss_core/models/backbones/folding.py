"""Fixed normalisation made part of the convolutions before it, for networks that are asked often and never trained."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from wsss_core.models.backbones.norm import FixedBatchNorm

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy that computes the same to rounding, without the passes over its features that fixed normalisation takes.

    Parameters
    ----------
    network
        Its normalisations that are named right after a convolution take the output of that alone, as in ResNet and
        MobileNetV2; others stay. Weights of the copy have no gradient.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), FixedBatchNorm(4), nn.ReLU())
    >>> [type(module).__name__ for module in folded(network)]
    ['Conv2d', 'Identity', 'ReLU']
    """
    made = copy.deepcopy(network).requires_grad_(False)
    for module in list(made.modules()):
        children = list(module.named_children())
        for (_, before), (name, after) in zip(children, children[1:], strict=False):
            if isinstance(before, nn.Conv2d) and isinstance(after, FixedBatchNorm):
                _fold(before, after)
                setattr(module, name, nn.Identity())
    return made


def _fold(convolution: nn.Conv2d, norm: FixedBatchNorm) -> None:
    """Scale and shift the convolution as the normalisation does."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    bias = shift if convolution.bias is None else shift + convolution.bias * scale
    weight = (convolution.weight * scale[:, None, None, None]).contiguous(memory_format=_layout(convolution.weight))
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)


def _layout(weight: torch.Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
