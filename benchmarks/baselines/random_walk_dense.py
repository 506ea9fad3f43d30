"""The random walk as it is usually written: a dense transition matrix, squared eight times.

For h x w pixels the matrix holds (h w)^2 numbers: 552 MB in float32 for a PASCAL VOC image at stride 4.
"""

from __future__ import annotations

import numpy as np


def propagate_dense(
    scores: np.ndarray, boundary: np.ndarray, *, radius: int = 5, beta: float = 10.0, log2_steps: int = 8
) -> np.ndarray:
    """As `wsss_core.kernels.random_walk.propagate`, in the precision of `scores`.

    Parameters
    ----------
    scores
        [K, h, w].
    boundary
        [h, w] or [1, h, w].
    """
    transition = transition_matrix(boundary.reshape(boundary.shape[-2:]).astype(scores.dtype), radius, beta)
    for _ in range(log2_steps):
        transition = transition @ transition
    start = (scores * (1 - boundary)).astype(scores.dtype).reshape(len(scores), -1)
    return (start @ transition).reshape(scores.shape)


def transition_matrix(boundary: np.ndarray, radius: int, beta: float) -> np.ndarray:
    """Column-stochastic transition matrix [hw, hw] of a boundary map [h, w]."""
    height, width = boundary.shape
    affinity = np.eye(height * width, dtype=boundary.dtype)
    for dy in range(radius):
        for dx in range(-radius + 1, radius):
            if (dy == 0 and dx <= 0) or dy * dy + dx * dx >= radius * radius:
                continue
            cells = [
                (y, x)
                for y in range(dy + 1)
                for x in range(min(dx, 0), max(dx, 0) + 1)
                if (dy * x - dx * y) ** 2 / (dy * dy + dx * dx) < 1
            ]
            for y0 in range(height - dy):
                for x0 in range(max(0, -dx), width - max(0, dx)):
                    largest = max(boundary[y0 + y, x0 + x] for y, x in cells)
                    i, j = y0 * width + x0, (y0 + dy) * width + x0 + dx
                    affinity[i, j] = affinity[j, i] = (1 - largest) ** beta
    return affinity / affinity.sum(axis=0, keepdims=True)
