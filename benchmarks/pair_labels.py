"""Losses of the inter-pixel relation network with their gradients: index tables, against shifted views."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks import Work, largest_relative_difference
from benchmarks.baselines.pair_labels import relation_loss_by_tables
from wsss_core.kernels.paths import directions, margin
from wsss_core.refine.irn.network import relation_loss

CASES = {"tiny": (2, 24, 5), "quick": (2, 64, 10), "full": (4, 128, 10)}
"""Images, side of the grid in cells, radius; the published training has 32 images of 128 cells."""

LABELS = 21


def works(size: str, device: str) -> list[Work]:
    """Everything of a training step but the network."""
    images, side, radius = CASES[size]
    return [
        Work(
            f"IRN losses and gradients, {images} × {side}×{side} cells, radius {radius}",
            prepare=partial(_inputs, images, side),
            baseline=lambda inputs: _step(lambda *given: relation_loss_by_tables(*given, radius, LABELS), inputs),
            ours=lambda inputs: _step(lambda *given: relation_loss(*given, radius)["loss"], inputs),
            limit=1e-4,
            difference=largest_relative_difference,
            floor=lambda: _floor(images, side, radius),
        )
    ]


def _inputs(images: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Boundary logits, displacements, and labels in blocks of 4 x 4 cells."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(images, 1, side, side, generator=draw)
    shifts = torch.randn(images, 2, side, side, generator=draw)
    labels = torch.tensor([0, 0, 4, 15, 255], dtype=torch.uint8)[
        torch.randint(0, 5, (images, side // 4, side // 4), generator=draw)
    ]
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    return logits.to(device).requires_grad_(), shifts.to(device).requires_grad_(), labels.to(device)


def _step(loss, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    value = loss(*inputs)
    return (value.detach(), *torch.autograd.grad(value, inputs[:2]))


def _floor(images: int, side: int, radius: int) -> tuple[float, float]:
    """The strongest boundary of every pair written and read once forward and once backward."""
    sources = (side - margin(radius)) * (side - 2 * margin(radius))
    return 0.0, 4 * 4 * images * sources * len(directions(radius))
