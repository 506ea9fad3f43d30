"""Benchmarks: the obvious implementation of the reference arithmetic against ours, on the same inputs in one run.

A module of this package named in `NAMES` has ``works(size, device) -> list[Work]``, for a size of `SIZES` and a device
of `DEVICES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAMES = (
    "random_walk",
    "dense_crf",
    "rib",
    "advcam",
    "bbam",
    "cam_inference",
    "sweep",
    "pair_labels",
    "jobs",
    "training",
)
"""The benchmarks, in the order of the table."""

SIZES = ("tiny", "quick", "full")
"""tiny tests the benchmark itself."""

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Work:
    """The same work, done in two ways.

    Attributes
    ----------
    name
        What is done, with its sizes.
    prepare
        From a torch device to the inputs; not measured.
    baseline, ours
        From the inputs to the answer: an array, a tensor, or a tuple of these.
    limit
        Largest difference of the answers at which they agree.
    difference
        From the baseline's answer and ours to how far they are apart.
    truth
        From the inputs to the exact answer, where more than rounding is to be shown.
    threads
        CPU threads of both sides; None for all cores.
    floor
        Least floating-point operations and least bytes of memory traffic that the work takes, whoever does it; from a
        function, because counting may take a moment. None where the baseline is the floor.
    """

    name: str
    prepare: Callable[[Any], Any]
    baseline: Callable[[Any], Any]
    ours: Callable[[Any], Any]
    limit: float
    difference: Callable[[Any, Any], float]
    truth: Callable[[Any], Any] | None = None
    threads: int | None = None
    floor: Callable[[], tuple[float, float]] | None = None


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_difference(one: Any, other: Any) -> float:
    """Largest absolute difference of two answers."""
    import torch

    if isinstance(one, tuple):
        return max(largest_difference(a, b) for a, b in zip(one, other, strict=True))
    one, other = (torch.as_tensor(values).detach().cpu().double() for values in (one, other))
    return (one - other).abs().max().item()


def largest_relative_difference(one: Any, other: Any) -> float:
    """Largest absolute difference of two answers, over the largest value of the first; the worst part of a tuple."""
    import torch

    if isinstance(one, tuple):
        return max(largest_relative_difference(a, b) for a, b in zip(one, other, strict=True))
    one, other = (torch.as_tensor(values).detach().cpu().double() for values in (one, other))
    return ((one - other).abs().max() / one.abs().max()).item()
