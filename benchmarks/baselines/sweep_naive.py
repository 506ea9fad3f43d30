"""The obvious threshold sweep: one pass over all maps for every threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def sweep(seeds_and_targets: Iterable[tuple[Any, Any]], thresholds: Sequence[float], n_labels: int) -> np.ndarray:
    """Stack the constant plane, take the argmax, count; int64 [T, L, L] (IRN's seed evaluation, for every t).

    Parameters
    ----------
    seeds_and_targets
        Read once for every threshold: a sequence of (maps, target array), maps with ``classes`` and ``full()``.
    """
    matrices = []
    for threshold in thresholds:
        matrix = np.zeros((n_labels, n_labels), dtype=np.int64)
        for maps, target in seeds_and_targets:
            full = np.asarray(maps.full(), dtype=np.float32)
            plane = np.full((1, *target.shape), threshold, dtype=np.float32)
            labels = np.array([0, *(c + 1 for c in maps.classes)])
            prediction = labels[np.concatenate([plane, full]).argmax(0)]
            counted = target != 255
            pairs = target[counted].astype(np.int64) * n_labels + prediction[counted]
            matrix += np.bincount(pairs, minlength=n_labels**2).reshape(n_labels, n_labels)
        matrices.append(matrix)
    return np.stack(matrices)
