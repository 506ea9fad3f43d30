"""The hot arithmetic: path affinities, random walk, dense CRF; arrays or tensors in, the same kind out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Item = TypeVar("Item")


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


def parts(items: Iterable[Item], size: Callable[[Item], int], most: int) -> list[list[Item]]:
    """Consecutive items in lists whose sizes add up to `most` at most, or of one item.

    Examples
    --------
    >>> parts([3, 1, 4, 9, 2], int, 5)
    [[3, 1], [4], [9], [2]]
    """
    found: list[list[Item]] = []
    room = 0
    for item in items:
        if not found or size(item) > room:
            found.append([])
            room = most
        found[-1].append(item)
        room -= size(item)
    return found
