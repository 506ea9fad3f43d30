"""The bare training loop: batches that lie ready on the device, no loading, no log, no signals, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def bare_training(
    batches: Sequence[Any],
    loss: Callable[[Any], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
) -> None:
    """Train in place, a step for each batch, as `wsss_core.training.fit` does."""
    base_rates = [group["lr"] for group in optimizer.param_groups]
    for step, batch in enumerate(batches):
        for group, base in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base * rate(step)
        optimizer.zero_grad()
        loss(batch)["loss"].backward()
        optimizer.step()
