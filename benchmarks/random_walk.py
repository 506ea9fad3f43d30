"""Random walk on boundaries: squaring a dense matrix eight times, and 256 steps of the stencil, against a Chebyshev
expansion of the stencil."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks import Work, largest_difference
from benchmarks.baselines.random_walk_dense import propagate_dense
from benchmarks.baselines.random_walk_steps import propagate_stepwise
from wsss_core.kernels.paths import directions
from wsss_core.kernels.random_walk import TOLERANCE, chebyshev_power, propagate

GRIDS = {"tiny": (12, 15), "quick": (47, 62), "full": (94, 125)}
"""Cells of stride 4; full is a PASCAL VOC image."""

IMAGES = {"tiny": 2, "quick": 16, "full": 64}
"""Images of one size that pass together on a GPU."""

CLASSES = 3


def works(size: str, device: str) -> list[Work]:
    """One image on a CPU, a batch of images on a GPU."""
    images, (height, width) = 1 if device == "cpu" else IMAGES[size], GRIDS[size]
    many = "" if images == 1 else f"{images} images of "
    name = f"random walk, {many}{height}×{width} cells, {CLASSES} classes, 256 steps"
    rows = [
        (name, propagate_dense),
        (f"the same against a stencil that walks step by step, {height}×{width}", propagate_stepwise),
    ]
    return [
        Work(
            title,
            prepare=partial(_inputs, images, height, width),
            baseline=partial(_each, walk),
            ours=lambda inputs: propagate(*inputs),
            truth=lambda inputs: propagate(inputs[0].double(), inputs[1].double()),
            limit=5e-4,
            difference=largest_difference,
            floor=lambda: _floor(images, height * width),
        )
        for title, walk in rows
    ]


def _inputs(images: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scores [N, K, h, w] and boundaries [N, h, w]: mostly open, with some closed lines."""
    draw = torch.Generator().manual_seed(0)
    boundary = torch.rand(images, height, width, generator=draw) ** 6
    scores = torch.rand(images, CLASSES, height, width, generator=draw)
    return scores.to(device), boundary.to(device)


def _each(walk: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, Tensor]) -> Tensor:
    return torch.stack([walk(scores, boundary) for scores, boundary in zip(*inputs, strict=True)])


def _floor(images: int, cells: int) -> tuple[float, float]:
    """Two operations for each tap of the stencil and application; the stencil and the scores read once."""
    taps, applications = 2 * len(directions(5)) + 1, len(chebyshev_power(256, TOLERANCE[torch.float32])) - 1
    operations = 2 * taps * applications * CLASSES * cells * images
    return operations, 4 * images * cells * (len(directions(5)) + 2 * CLASSES)
