"""What a seed method recorded about every image, summed up whatever it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Statistics of many images.

    Attributes
    ----------
    images
        Number of images that recorded anything.
    counts
        Key to value to number of images, for texts and truth values, most frequent first.
    numbers
        Key to (mean, lowest, highest), for numbers.
    curves
        Key to (mean, number of images) per index, for lists of numbers (inner lists are averaged first).
    """

    images: int
    counts: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, tuple[float, float, float]]
    curves: Mapping[str, tuple[tuple[float, int], ...]]


def summarise(records: Iterable[Mapping[str, Any]]) -> Summary:
    """Sum up the statistics of many images, key by key.

    Examples
    --------
    >>> summary = summarise([{"stop": "limit", "logits": [1, 3]}, {"stop": "limit", "logits": [2]}])
    >>> summary.counts, summary.curves
    ({'stop': {'limit': 2}}, {'logits': ((1.5, 2), (3.0, 1))})
    """
    images = 0
    values: dict[str, list[Any]] = {}
    for record in records:
        images += bool(record)
        for key, value in _flat(record):
            values.setdefault(key, []).append(value)
    counts: dict[str, dict[str, int]] = {}
    numbers: dict[str, tuple[float, float, float]] = {}
    curves: dict[str, tuple[tuple[float, int], ...]] = {}
    for key, found in values.items():
        lists = [v for v in found if isinstance(v, list) and v]
        plain = [v for v in found if isinstance(v, (int, float)) and not isinstance(v, bool)]
        words = [str(v) for v in found if isinstance(v, (str, bool))]
        if words:
            counts[key] = dict(Counter(words).most_common())
        if plain:
            numbers[key] = (float(np.mean(plain)), float(min(plain)), float(max(plain)))
        if lists:
            curves[key] = _mean_curve(lists)
    return Summary(images, counts, numbers, curves)


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _mean_curve(lists: list[list[Any]]) -> tuple[tuple[float, int], ...]:
    curve = []
    for index in range(max(map(len, lists))):
        here = [_mean(v[index]) for v in lists if len(v) > index]
        here = [v for v in here if np.isfinite(v)]
        if here:
            curve.append((float(np.mean(here)), len(here)))
    return tuple(curve)


def _mean(value: Any) -> float:
    try:
        return float(np.mean(value)) if np.size(value) else float("nan")
    except (TypeError, ValueError):
        return float("nan")
