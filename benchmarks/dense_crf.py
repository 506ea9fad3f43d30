"""Dense CRF: one object a pass, against lattices shared by two passes, and against our lattice in torch."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import Work
from benchmarks.baselines.dense_crf import posterior
from benchmarks.inputs import photo
from wsss_core.kernels.dense_crf import dense_crf, unary_from_labels

GRIDS = {"tiny": (40, 52), "quick": (188, 250), "full": (375, 500)}

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
        floor=lambda: _floor(1, height * width),
        **common,
    )
    if device == "cuda":
        return [in_torch]
    shared = Work(
        f"dense CRF, foreground and background pass, {what}",
        prepare=partial(_inputs, 2, height, width),
        baseline=_baseline,
        ours=partial(_ours, "pydensecrf"),
        floor=lambda: _floor(2, height * width),
        **common,
    )
    return [shared, in_torch]


def _inputs(passes: int, height: int, width: int, device: torch.device) -> tuple[np.ndarray, np.ndarray, torch.device]:
    """A picture, and unaries [U, L, H, W] of labels that follow its colours loosely, with two thresholds."""
    image = photo(height, width)
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


def _percentile(one: Tensor, other: Tensor) -> float:
    """99th percentile of the differences; infinite if more than 0.1 % of the labels differ."""
    if (one.argmax(1) == other.argmax(1)).double().mean() < 0.999:
        return float("inf")
    return torch.quantile((one - other).abs().flatten(), 0.99).item()


def _floor(passes: int, pixels: int) -> tuple[float, float]:
    """Every pixel's labels written to and read from the 3 corners of the spatial and the 6 of the bilateral lattice."""
    visits = passes * ITERATIONS * LABELS * pixels * 2 * (3 + 6)
    return 2 * visits, 4 * visits
