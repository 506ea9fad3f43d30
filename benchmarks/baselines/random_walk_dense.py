"""The random walk as it is usually written: a dense transition matrix, squared eight times.

For h x w pixels the matrix holds (h w)^2 numbers: 552 MB in float32 for a PASCAL VOC image at stride 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsss_core.kernels import as_tensor


def propagate_dense(scores: Any, boundary: Any, *, radius: int = 5, beta: float = 10.0, log2_steps: int = 8) -> Any:
    """As `wsss_core.kernels.random_walk.propagate` for one image, in the precision of `scores`.

    Parameters
    ----------
    scores
        [K, h, w], array or tensor.
    boundary
        [h, w] or [1, h, w].
    """
    x, restore = as_tensor(scores)
    edge = as_tensor(boundary)[0].to(x).reshape(x.shape[1:])
    transition = transition_matrix(edge, radius, beta)
    for _ in range(log2_steps):
        transition = transition @ transition
    return restore(((x * (1 - edge)).flatten(1) @ transition).reshape(x.shape))


def transition_matrix(boundary: Tensor, radius: int, beta: float) -> Tensor:
    """Column-stochastic transition matrix [hw, hw] of a boundary map [h, w]."""
    height, width = boundary.shape
    index = torch.arange(height * width, device=boundary.device).reshape(height, width)
    affinity = torch.eye(height * width, dtype=boundary.dtype, device=boundary.device)
    for dy in range(radius):
        for dx in range(-radius + 1, radius):
            rows, left, right = height - dy, max(0, -dx), width - max(0, dx)
            if (dy == 0 and dx <= 0) or dy * dy + dx * dx >= radius * radius or rows <= 0 or right <= left:
                continue
            cells = [
                (y, x)
                for y in range(dy + 1)
                for x in range(min(dx, 0), max(dx, 0) + 1)
                if (dy * x - dx * y) ** 2 / (dy * dy + dx * dx) < 1
            ]
            path = torch.stack([boundary[y : y + rows, left + x : right + x] for y, x in cells])
            one, other = index[:rows, left:right], index[dy : dy + rows, left + dx : right + dx]
            affinity[one, other] = affinity[other, one] = (1 - path.amax(0)) ** beta
    return affinity / affinity.sum(0, keepdim=True)
