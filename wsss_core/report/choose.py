"""Which images the page shows, and how well each of them came out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsss_core import keyed
from wsss_core.evaluate.confusion import metrics


@dataclass(frozen=True)
class Choice:
    """One image on the page and why it is there: "best", "median", "worst" or ""."""

    id: str
    reason: str = ""


def choose(scores: Mapping[str, float], count: int) -> list[Choice]:
    """The best, the middle and the worst images, a third of `count` each, from best to worst.

    Parameters
    ----------
    scores
        Image id to score; NaN is left out. Ties are broken by id.

    Examples
    --------
    >>> [(c.id, c.reason) for c in choose({"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.4, "e": 0.2}, 3)]
    [('b', 'best'), ('d', 'median'), ('a', 'worst')]
    >>> [c.id for c in choose({"a": 0.1, "b": 0.9}, 3)]
    ['b', 'a']
    """
    ranked = sorted((i for i, s in scores.items() if not np.isnan(s)), key=lambda i: (-scores[i], i))
    if len(ranked) <= count:
        return [Choice(image_id) for image_id in ranked]
    best, worst = -(-count // 3), (count + 1) // 3
    middle = count - best - worst
    rest = ranked[best : len(ranked) - worst]
    start = (len(rest) - middle) // 2
    return [
        *(Choice(i, "best") for i in ranked[:best]),
        *(Choice(i, "median") for i in rest[start : start + middle]),
        *(Choice(i, "worst") for i in ranked[len(ranked) - worst :]),
    ]


def choose_in_turn(scores: Mapping[str, float], classes: Mapping[str, Sequence[int]], count: int) -> list[Choice]:
    """As `choose`, but the classes take turns, so that no class fills the page.

    Parameters
    ----------
    classes
        Image id to its classes, at least one.

    Examples
    --------
    >>> scores = {"a": 0.9, "b": 0.8, "c": 0.2, "d": 0.5, "e": 0.1}
    >>> classes = {"a": (0,), "b": (0,), "c": (0,), "d": (1,), "e": (1,)}
    >>> [(c.id, c.reason) for c in choose_in_turn(scores, classes, 3)]
    [('a', 'best'), ('e', 'median'), ('c', 'worst')]
    """
    ranked = sorted(scores, key=lambda i: (-scores[i], i))
    groups = {c: [i for i in ranked if c in classes[i]] for c in sorted({c for i in ranked for c in classes[i]})}
    if len(ranked) <= count:
        return [Choice(image_id) for image_id in ranked]
    best, worst = -(-count // 3), (count + 1) // 3
    reasons = ["best"] * best + ["median"] * (count - best - worst) + ["worst"] * worst
    found: dict[str, Choice] = {}
    turns = itertools.cycle(groups.values())
    for reason in reasons:
        left: list[str] = []
        while not left:
            left = [image_id for image_id in next(turns) if image_id not in found]
        image_id = left[{"best": 0, "median": len(left) // 2, "worst": -1}[reason]]
        found[image_id] = Choice(image_id, reason)
    return list(found.values())


def sample(ids: Sequence[str], limit: int) -> list[str]:
    """At most `limit` ids, the same ones in every run: those with the smallest hash, in the order given."""
    if len(ids) <= limit:
        return list(ids)
    kept = set(sorted(ids, key=lambda i: keyed.key_bytes("report", i))[:limit])
    return [image_id for image_id in ids if image_id in kept]


def image_miou(matrix: np.ndarray) -> float:
    """Mean IoU over the labels that one image holds, background included."""
    return float(metrics(matrix).mean("iou"))


@dataclass(frozen=True)
class Mistake:
    """Part of a label's pixels that was given another label."""

    target: int
    prediction: int
    part: float


def mistakes(matrix: np.ndarray, count: int) -> list[Mistake]:
    """The largest mistakes off the diagonal of a confusion matrix [L, L], as parts of the true label's pixels."""
    total = matrix.sum(1, keepdims=True)
    parts = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    np.fill_diagonal(parts, 0)
    order = np.argsort(-parts, axis=None, kind="stable")[:count]
    pairs = [divmod(int(cell), matrix.shape[1]) for cell in order]
    return [Mistake(t, p, float(parts[t, p])) for t, p in pairs if parts[t, p] > 0]
