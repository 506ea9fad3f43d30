"""Batch normalisation whose statistics stay as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FixedBatchNorm(nn.Module):
    """Batch normalisation with running statistics in every mode.

    Holds no ``num_batches_tracked``, which nothing reads.

    Parameters
    ----------
    trained
        Whether scale and shift are parameters; otherwise they too are fixed.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, trained: bool = True) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
            if trained:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, channels, h, w]."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
