"""What one stage gains over another, class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gain:
    """IoU of one label in two stages, fractions."""

    label: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        """after - before."""
        return self.after - self.before


def gains(before: Mapping[str, float], after: Mapping[str, float]) -> list[Gain]:
    """The gain of every label that both stages have a score for, greatest first.

    Examples
    --------
    >>> [(g.label, round(g.difference, 2)) for g in gains({"cat": 0.5, "dog": 0.4}, {"cat": 0.4, "dog": 0.6})]
    [('dog', 0.2), ('cat', -0.1)]
    """
    found = [Gain(label, value, after[label]) for label, value in before.items() if label in after]
    return sorted((g for g in found if not math.isnan(g.difference)), key=lambda g: -g.difference)
