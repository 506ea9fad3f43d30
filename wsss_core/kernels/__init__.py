"""The hot arithmetic: path affinities, random walk, dense CRF; arrays or tensors in, the same kind out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(values: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """A tensor of `values` (without a copy where possible) and the function that gives back what came in.

    Parameters
    ----------
    values
        NumPy array, or tensor on any device.

    Returns
    -------
    The tensor, and a function that turns a result tensor into an array, or moves it to the device of `values`.
    """
    if isinstance(values, Tensor):
        return values, lambda result: result.to(values.device)
    return torch.from_numpy(np.require(values, requirements=("C", "W"))), lambda result: result.cpu().numpy()
