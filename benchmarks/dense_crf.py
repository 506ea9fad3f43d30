"""Dense CRF: one object a pass, against lattices shared by two passes, and against our lattice in torch.

On a GPU, several images are also refined in a joint lattice, against pydensecrf taking one after another.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import Work
from benchmarks.baselines.dense_crf import posterior
from benchmarks.inputs import photo
from wsss_core.kernels.dense_crf import dense_crf, dense_crf_batch, unary_from_labels

GRIDS = {"tiny": (40, 52), "quick": (188, 250), "full": (375, 500)}

COUNTS = {"tiny": 3, "quick": 8, "full": 24}
"""Images of the joint lattice, every other one upright."""

LABELS, ITERATIONS = 3, 10

SETTINGS = {"gaussian": (3.0, 3.0), "bilateral": (50.0, 5.0, 10.0), "iterations": ITERATIONS}
"""As for IRN's confident labels."""


def works(size: str, device: str) -> list[Work]:
    """Both backends on a CPU, with one thread as in a job of the workflow; on a GPU that in torch."""
    height, width = GRIDS[size]
    what = f"{height}×{width}, {LABELS} labels, {ITERATIONS} iterations"
    common = {"limit": 0.02, "difference": _percentile, "threads": 1}
    in_torch = Work(
        f"dense CRF in torch against pydensecrf on one CPU core, {what}",
        prepare=partial(_inputs, 1, height, width),
        baseline=_baseline,
        ours=partial(_ours, "torch"),
        floor=lambda: floor(1, height * width),
        **common,
    )
    if device == "cuda":
        count = COUNTS[size]
        joint = Work(
            f"dense CRF of {count} images together in torch against pydensecrf on one CPU core, {what}",
            prepare=partial(_several, count, height, width),
            baseline=_one_after_another,
            ours=_joint,
            floor=lambda: floor(1, count * height * width),
            **common | {"difference": _worst},
        )
        return [in_torch, joint]
    shared = Work(
        f"dense CRF, foreground and background pass, {what}",
        prepare=partial(_inputs, 2, height, width),
        baseline=_baseline,
        ours=partial(_ours, "pydensecrf"),
        floor=lambda: floor(2, height * width),
        **common,
    )
    return [shared, in_torch]


def _inputs(
    passes: int, height: int, width: int, device: torch.device, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, torch.device]:
    """A picture, and unaries [U, L, H, W] of labels that follow its colours loosely, with two thresholds."""
    image = photo(height, width, seed)
    red, green = image[..., 0].astype(int), image[..., 1].astype(int)
    unaries = []
    for threshold in (110, 150)[:passes]:
        labels = np.where(red > threshold, 1, np.where(green > threshold, 2, 0))
        unaries.append(unary_from_labels(labels, LABELS, 0.7))
    return image, np.stack(unaries), device


def _baseline(inputs: tuple[np.ndarray, np.ndarray, torch.device]) -> Tensor:
    image, unaries, _ = inputs
    return torch.from_numpy(np.stack([posterior(image, unary, **SETTINGS) for unary in unaries]))


def _ours(backend: str, inputs: tuple[np.ndarray, np.ndarray, torch.device]) -> Tensor:
    image, unaries, device = inputs
    return dense_crf(image, torch.from_numpy(unaries).to(device), backend=backend, **SETTINGS).cpu()


def _several(
    count: int, height: int, width: int, device: torch.device
) -> list[tuple[np.ndarray, np.ndarray, torch.device]]:
    sizes = [(height, width), (width, height)]
    return [_inputs(1, *sizes[number % 2], device, number) for number in range(count)]


def _one_after_another(inputs: list[tuple[np.ndarray, np.ndarray, torch.device]]) -> tuple[Tensor, ...]:
    return tuple(_baseline(one) for one in inputs)


def _joint(inputs: list[tuple[np.ndarray, np.ndarray, torch.device]]) -> tuple[Tensor, ...]:
    images, unaries, devices = zip(*inputs, strict=True)
    energies = [torch.from_numpy(unary).to(device) for unary, device in zip(unaries, devices, strict=True)]
    return tuple(posterior.cpu() for posterior in dense_crf_batch(images, energies, backend="torch", **SETTINGS))


def _worst(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    return max(_percentile(a, b) for a, b in zip(one, other, strict=True))


def _percentile(one: Tensor, other: Tensor) -> float:
    """99th percentile of the differences; infinite if more than 0.1 % of the labels differ."""
    if (one.argmax(1) == other.argmax(1)).double().mean() < 0.999:
        return float("inf")
    return torch.quantile((one - other).abs().flatten(), 0.99).item()


def floor(passes: int, pixels: int) -> tuple[float, float]:
    """Every pixel's labels written to and read from the 3 corners of the spatial and the 6 of the bilateral lattice."""
    visits = passes * ITERATIONS * LABELS * pixels * 2 * (3 + 6)
    return 2 * visits, 4 * visits
