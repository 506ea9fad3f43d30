"""How methods that adapt to each image went: why every image ended, and its target's logits on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Trajectory:
    """One image.

    Attributes
    ----------
    stop
        Why it ended, such as "steps", "margin" or "explosion".
    maps
        Number of maps in its sum.
    target
        Summed logits of its classes, of every state.
    """

    id: str
    stop: str
    maps: int
    target: tuple[float, ...]


def trajectories(records: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Trajectory]:
    """Trajectories from (image id, statistics of `wsss_core.seeds.rib.rib_seed`); images without any are left out."""
    return [
        Trajectory(image_id, str(found["stop"]), int(found["maps"]), tuple(map(float, found["target"])))
        for image_id, found in records
        if {"stop", "maps", "target"} <= set(found)
    ]


def stop_counts(found: Sequence[Trajectory]) -> dict[str, dict[int, int]]:
    """Why images ended, to how many maps were summed, to the number of images; most frequent reason first."""
    counts: dict[str, dict[int, int]] = {}
    for one in found:
        reason = counts.setdefault(one.stop, {})
        reason[one.maps] = reason.get(one.maps, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    return {reason: dict(sorted(by_maps.items())) for reason, by_maps in ordered}


def quantile_curves(found: Sequence[Trajectory], quantiles: Sequence[float]) -> np.ndarray:
    """Quantiles of the target's logits over the images that went so far.

    Returns
    -------
    float64 [Q, longest trajectory].
    """
    longest = max((len(one.target) for one in found), default=0)
    columns = [[one.target[k] for one in found if len(one.target) > k] for k in range(longest)]
    return np.array([np.quantile(column, quantiles) for column in columns]).reshape(longest, len(quantiles)).T
