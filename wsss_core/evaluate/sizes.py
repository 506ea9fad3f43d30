"""Scores by the size of objects, and of the classes whose objects are smallest and largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsss_core.settings import setting

GROUPS = ("small", "medium", "large")


@dataclass(frozen=True)
class SizeSettings:
    """Scores by object size."""

    stages: tuple[str, ...] = setting((), "stages compared; []: every target that has scores")
    limits: tuple[float, float] = setting(
        (0.05, 0.2),
        "areas, as parts of an image's labelled pixels, from which on an object is medium and large; an object is all "
        "pixels of one class in one image",
        ascending=True,
        items={"minimum": 0, "maximum": 1},
    )
    classes: int = setting(
        10,
        "classes that count as those of the smallest and of the largest objects (the dissertation's Table 3.5), but "
        "at most half of them",
        minimum=1,
    )


def object_parts(pixels: np.ndarray) -> np.ndarray:
    """Part of one image's labelled pixels that each class covers.

    Parameters
    ----------
    pixels
        Pixels of each label in its true mask [L], background first.

    Returns
    -------
    float64 [L - 1] for the foreground classes; 0 for classes that the image does not hold.
    """
    return pixels[1:] / max(pixels.sum(), 1)


def size_counts(matrix: np.ndarray, parts: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Pixels of one image's objects, by their size.

    An object is all pixels of one class in one image. Its size is its part of the labelled pixels: below the first
    limit it is small, from the second on large, else medium. Pixels that were given a class which the image does not
    hold belong to no object and are not counted here.

    Parameters
    ----------
    matrix
        Confusion matrix [L, L] of the image, rows target, background first.
    parts
        `object_parts` of the image; a matrix that skips undecided pixels does not tell them.

    Returns
    -------
    int64 [3, L - 1, 4]: for small, medium and large, and each foreground class: objects, true positive, false positive
    and false negative pixels. Add up over images and take `size_ious`.
    """
    group = np.searchsorted(np.asarray(limits, dtype=np.float64), parts, side="right")
    hit = np.diagonal(matrix)[1:]
    counts = np.stack([np.ones_like(hit), hit, matrix.sum(0)[1:] - hit, matrix.sum(1)[1:] - hit], axis=-1)
    result = np.zeros((len(GROUPS), len(parts), 4), dtype=np.int64)
    held = np.flatnonzero(parts > 0)
    result[group[held], held] = counts[held]
    return result


def size_ious(counts: np.ndarray) -> np.ndarray:
    """IoU = TP / (TP + FP + FN) of counts [..., C, 4], averaged over the classes that occur: [...].

    NaN for a group that holds no object.
    """
    hit, false, missed = (counts[..., k].astype(np.float64) for k in (1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(counts[..., 0] > 0, hit / (hit + false + missed), np.nan)
        known = ~np.isnan(iou)
        return np.where(known, iou, 0.0).sum(-1) / known.sum(-1)


def smallest_and_largest(means: Sequence[float], count: int) -> tuple[list[int], list[int]]:
    """Classes in order of the mean size of their objects: the `count` smallest and the `count` largest.

    Parameters
    ----------
    means
        Mean size of each class's objects; NaN for classes without any, which are left out.
    count
        At most half of the classes that have objects are taken on each side.

    Examples
    --------
    >>> smallest_and_largest([0.3, 0.1, float("nan"), 0.2, 0.5], 10)
    ([1, 3], [0, 4])
    """
    ranked = [c for c in np.argsort(means, kind="stable").tolist() if not np.isnan(means[c])]
    taken = min(count, len(ranked) // 2)
    return ranked[:taken], ranked[len(ranked) - taken :]
