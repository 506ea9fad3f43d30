"""The random walk without its matrix, one step after another: every cell gathers from its neighbours, 256 times."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from wsss_core.kernels import as_tensor
from wsss_core.kernels.paths import directions, margin
from wsss_core.kernels.random_walk import boundary_affinities


def propagate_stepwise(scores: Any, boundary: Any, *, radius: int = 5, beta: float = 10.0, log2_steps: int = 8) -> Any:
    """As `wsss_core.kernels.random_walk.propagate` for one image, in the precision of `scores`.

    Parameters
    ----------
    scores
        [K, h, w], array or tensor.
    boundary
        [h, w] or [1, h, w].
    """
    x, restore = as_tensor(scores)
    height, width = x.shape[1:]
    reach = margin(radius)
    edge = as_tensor(boundary)[0].to(x).reshape(height, width)
    affinities = F.pad(boundary_affinities(edge, radius, beta), (reach,) * 4)
    pairs = []
    for (dy, dx), values in zip(directions(radius), affinities, strict=True):
        for down, right, shifted in ((dy, dx, values), (-dy, -dx, values.roll((dy, dx), (0, 1)))):
            window = slice(reach + down, reach + down + height), slice(reach + right, reach + right + width)
            pairs.append((window, shifted[reach : reach + height, reach : reach + width]))
    degrees = 1 + torch.stack([weights for _, weights in pairs]).sum(0)
    state = x * (1 - edge)
    for _ in range(2**log2_steps):
        surrounded = F.pad(state, (reach,) * 4)
        for (rows, columns), weights in pairs:
            state = state + weights * surrounded[:, rows, columns]
        state = state / degrees
    return restore(state)
