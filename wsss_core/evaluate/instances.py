"""Scores of single objects: average precision as COCO defines it, ABO, and the overlap of pseudo-masks with true ones.

Of every image the predicted objects are judged against the true ones (`judge_masks`, `judge_boxes`); what was judged is
put together, in the order of the images (`Judged.together`), and scored once (`average_precision`, `best_overlaps`).

Average precision is that of COCO's evaluation (Lin et al., "Microsoft COCO", ECCV 2014; the package pycocotools, with
which the tests compare it): the predictions of a class take true objects greedily by score, and precision is
interpolated at 101 recalls. The VOC papers before 2018 count otherwise (11 recalls, or the area under the curve).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from wsss_core.constants import MEAN_ROW
from wsss_core.store.instances import Instances

IOUS = np.concatenate([[0.25], np.linspace(0.5, 0.95, 10)])
"""IoUs from which on a prediction is right; AP is the mean over the last ten."""

SIZES = {"": (0, np.inf), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, np.inf)}
"""Column ending to the least and greatest area in pixels of the original image, both included as in COCO."""

RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Predictions of an image and a class that count: those of the highest scores."""

COLUMNS = ("ap", "ap25", "ap50", "ap70", "ap75", "ap_small", "ap_medium", "ap_large", "abo", "abo_objects", "objects")
"""Of the table of predicted objects, beside the class."""

PSEUDO_COLUMNS = ("iou", "iou_small", "iou_medium", "iou_large", "objects")
"""Of the table of pseudo-masks, beside the class."""


@dataclass(frozen=True)
class InstanceScoresSettings:
    """Scores of single objects, which have no settings."""


@dataclass(frozen=True)
class Objects:
    """What judging asks of the n objects of an image beside their overlaps.

    Attributes
    ----------
    classes
        0-based, int64 [n].
    areas
        In pixels of the original image, [n]: of the masks, or of the boxes where boxes are judged.
    scores
        Confidence, [n]; not read of true objects.
    crowd
        Whether it is a group that was not told apart, bool [n]; not read of predictions.
    """

    classes: np.ndarray
    areas: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Judged:
    """The predictions and the true objects of some images, judged.

    Attributes
    ----------
    classes, scores
        Of the P predictions, [P].
    outcomes
        Of each prediction for every range of `SIZES` and every IoU of `IOUS`, int8 [P, 4, 11]: 1 right, -1 wrong, 0 not
        counted.
    true_classes, true_areas
        Of the T true objects that are no crowds, [T].
    best
        Largest IoU of each with a prediction of its class, [T]; 0 without any.
    """

    classes: np.ndarray
    scores: np.ndarray
    outcomes: np.ndarray
    true_classes: np.ndarray
    true_areas: np.ndarray
    best: np.ndarray

    @classmethod
    def together(cls, parts: Iterable[Judged]) -> Judged:
        """Several as one: of images, or of shards of them. Equal scores keep the order of the parts."""
        kept = [_NOTHING, *parts]
        return cls(*(np.concatenate([getattr(part, f.name) for part in kept]) for f in fields(cls)))


_NOTHING = Judged(
    np.zeros(0, dtype=np.int64),
    np.zeros(0),
    np.zeros((0, len(SIZES), len(IOUS)), dtype=np.int8),
    np.zeros(0, dtype=np.int64),
    np.zeros(0),
    np.zeros(0),
)


def judge_masks(predicted: Instances, true: Instances) -> Judged:
    """The predicted masks of an image against its true ones.

    Raises
    ------
    ValueError
        If they are of images of different sizes.
    """
    return judge(_by_masks(predicted), _by_masks(true), mask_overlaps(predicted, true))


def judge_boxes(predicted: Instances, true: Instances) -> Judged:
    """The predicted boxes of an image against its true ones; the masks are not looked at."""
    return judge(_by_boxes(predicted), _by_boxes(true), box_overlaps(predicted.boxes, true.boxes, true.crowd))


def judge(predicted: Objects, true: Objects, overlaps: np.ndarray) -> Judged:
    """The P predictions of an image against its T true objects.

    Within each class the predictions take, by falling score, the free true object that they overlap best, if by the IoU
    asked for at least. True objects that are crowds or of another size than is asked for are taken only where no
    other will do, and what takes them is not counted; a crowd can be taken often. Nor is a prediction counted that
    takes nothing and is of another size.

    Parameters
    ----------
    overlaps
        As `mask_overlaps` or `box_overlaps` give them, [P, T].
    """
    parts = []
    for label in np.union1d(predicted.classes, true.classes):
        theirs = np.flatnonzero(true.classes == label)
        ours = np.flatnonzero(predicted.classes == label)
        ours = ours[np.argsort(-predicted.scores[ours], kind="stable")][:MOST]
        found, crowd, areas = overlaps[np.ix_(ours, theirs)], true.crowd[theirs], true.areas[theirs]
        single = theirs[~crowd]
        parts.append(
            Judged(
                predicted.classes[ours],
                predicted.scores[ours],
                _outcomes(found, predicted.areas[ours], areas, crowd),
                true.classes[single],
                true.areas[single],
                found[:, ~crowd].max(0, initial=0.0),
            )
        )
    return Judged.together(parts)


def mask_overlaps(predicted: Instances, true: Instances) -> np.ndarray:
    """IoU of each of P masks with each of T true ones, float64 [P, T].

    Pixels that a true object ignores (void, 255) are left out of both masks. With a crowd it is the part of the
    predicted mask that lies in it.

    Raises
    ------
    ValueError
        If they are of images of different sizes.
    """
    if predicted.size != true.size:
        raise ValueError(f"masks of {predicted.size} cannot be compared with true ones of {true.size}")
    if not len(predicted) or not len(true):
        return np.zeros((len(predicted), len(true)))
    ours, theirs, void = (planes.reshape(len(planes), -1) for planes in (predicted.masks, true.masks, true.ignored))
    ours_32 = ours.astype(np.float32)  # sums of ones are exact below 2^24
    common = (ours_32 @ theirs.astype(np.float32).T).astype(np.float64)
    counted = np.repeat(ours.sum(1, dtype=np.float64)[:, None], len(true), 1)
    if void.any():
        counted -= ours_32 @ void.astype(np.float32).T
    return _ratio(common, counted, theirs.sum(1, dtype=np.float64), true.crowd)


def box_overlaps(predicted: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of each of P boxes [P, 4] with each of T true ones [T, 4], float64 [P, T]; boxes are (x0, y0, x1, y1) with
    x1 and y1 exclusive. With a crowd (bool [T]) it is the part of the predicted box that lies in it.

    Examples
    --------
    >>> true = np.array([[0, 0, 10, 10], [0, 0, 10, 10]])
    >>> box_overlaps(np.array([[5, 0, 15, 10]]), true, np.array([False, True])).round(3).tolist()
    [[0.333, 0.5]]
    """
    ours, theirs = np.asarray(predicted, dtype=np.float64)[:, None], np.asarray(true, dtype=np.float64)[None]
    sides = np.minimum(ours[..., 2:], theirs[..., 2:]) - np.maximum(ours[..., :2], theirs[..., :2])
    return _ratio(sides.clip(0).prod(-1), _box_areas(ours), _box_areas(theirs), crowd)


def average_precision(judged: Judged, n_classes: int) -> np.ndarray:
    """AP of every range of `SIZES`, every IoU of `IOUS` and every class, [4, 11, C]; NaN without a true object."""
    result = np.full((len(SIZES), len(IOUS), n_classes), np.nan)
    for label in range(n_classes):
        chosen = np.flatnonzero(judged.classes == label)
        outcomes = judged.outcomes[chosen[np.argsort(-judged.scores[chosen], kind="stable")]]
        right, wrong = (outcomes > 0).cumsum(0), (outcomes < 0).cumsum(0)
        precision = right / (right + wrong + np.spacing(1.0))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        areas = judged.true_areas[judged.true_classes == label]
        for size, bounds in enumerate(SIZES.values()):
            if not (count := int(_within(areas, bounds).sum())):
                continue
            for level in range(len(IOUS)):
                places = np.searchsorted(right[:, size, level] / count, RECALLS)
                result[size, level, label] = np.append(precision[:, size, level], 0.0)[places].mean()
    return result


def best_overlaps(judged: Judged, n_classes: int) -> np.ndarray:
    """ABO of every class: the mean over its objects of the largest IoU with a prediction of the class, [C]; NaN without
    a true object. Scores do not matter but for the `MOST` predictions (after Pont-Tuset & Van Gool, "Boosting Object
    Proposals", ICCV 2015)."""
    return np.array([_mean(judged.best[judged.true_classes == label]) for label in range(n_classes)])


def object_rows(judged: Judged, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The table of predicted objects: `COLUMNS` of every class, then of the row ``mean``.

    A mean runs over the classes where a column is defined; ``abo_objects``, of that row alone, is the mean over all
    objects instead. ``objects`` is the number of true objects that are no crowds.
    """
    ap = average_precision(judged, len(class_names))
    abo = best_overlaps(judged, len(class_names))
    columns = {"ap": ap[0, 1:].mean(0)}
    columns |= {f"ap{level}": ap[0, np.isclose(IOUS, level / 100)][0] for level in (25, 50, 70, 75)}
    columns |= {f"ap{name}": ap[place, 1:].mean(0) for place, name in enumerate(SIZES) if name}
    return _rows(
        columns | {"abo": abo, "abo_objects": np.full(len(class_names), np.nan)},
        judged.true_classes,
        class_names,
        {"abo_objects": _mean(judged.best)},
    )


def paired_ious(pseudo: Instances, true: Instances) -> np.ndarray:
    """IoU of every true object with the pseudo-mask that was made from its box, [T]; NaN where none was.

    Objects and pseudo-masks belong together that have the same class and the same box, the first with the first where
    several have; an empty pseudo-mask has an IoU of 0. Pixels that the true object ignores are left out, and a pixel
    that the pseudo-mask ignores is not in it. Crowds have none.
    """
    waiting: dict[tuple[float, ...], list[int]] = {}
    for place, (label, box) in enumerate(zip(pseudo.classes, pseudo.boxes, strict=True)):
        waiting.setdefault((int(label), *box.tolist()), []).append(place)
    overlaps = mask_overlaps(pseudo, true)
    found = np.full(len(true), np.nan)
    for place, (label, box, crowd) in enumerate(zip(true.classes, true.boxes, true.crowd, strict=True)):
        same = waiting.get((int(label), *box.tolist()))
        if same and not crowd:
            found[place] = overlaps[same.pop(0), place]
    return found


def pseudo_rows(
    classes: np.ndarray, areas: np.ndarray, ious: np.ndarray, class_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The table of pseudo-masks: `PSEUDO_COLUMNS` of every class, then of the row ``mean`` over the classes.

    Parameters
    ----------
    classes, areas
        Of the true objects of all images, [T].
    ious
        Theirs, as `paired_ious` gives them, [T]; NaN is left out.
    """
    known = ~np.isnan(ious)
    classes, areas, ious = classes[known], areas[known], ious[known]
    labels = range(len(class_names))
    columns = {
        f"iou{name}": np.array([_mean(ious[(classes == label) & _within(areas, bounds)]) for label in labels])
        for name, bounds in SIZES.items()
    }
    return _rows(columns, classes, class_names, {})


def _by_masks(found: Instances) -> Objects:
    return Objects(found.classes, found.masks.sum((1, 2), dtype=np.int64), found.scores, found.crowd)


def _by_boxes(found: Instances) -> Objects:
    return Objects(found.classes, _box_areas(found.boxes), found.scores, found.crowd)


def _rows(
    columns: Mapping[str, np.ndarray], classes: np.ndarray, class_names: Sequence[str], of_all: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Rows by class, then their mean (but for the columns `of_all`); the number of objects stands last."""
    counts = np.bincount(classes, minlength=len(class_names))
    rows: dict[str, dict[str, float]] = {
        name: {column: float(values[label]) for column, values in columns.items()} | {"objects": int(counts[label])}
        for label, name in enumerate(class_names)
    }
    means = {column: _mean(values[~np.isnan(values)]) for column, values in columns.items()}
    return rows | {MEAN_ROW: {**means, **of_all, "objects": int(counts.sum())}}


def _outcomes(overlaps: np.ndarray, areas: np.ndarray, true_areas: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """`Judged.outcomes` of the predictions of one class, by falling score."""
    result = np.empty((len(areas), len(SIZES), len(IOUS)), dtype=np.int8)
    for size, bounds in enumerate(SIZES.values()):
        uncounted = crowd | ~_within(true_areas, bounds)
        missed = np.where(_within(areas, bounds), -1, 0)
        order = np.argsort(uncounted, kind="stable")
        for level, least in enumerate(IOUS):
            taken = _taken(overlaps[:, order], uncounted[order], crowd[order], min(least, 1 - 1e-10))
            hit = np.where(np.append(uncounted[order], False)[taken], 0, 1)
            result[:, size, level] = np.where(taken < 0, missed, hit)
    return result


def _taken(overlaps: np.ndarray, uncounted: np.ndarray, crowd: np.ndarray, least: float) -> np.ndarray:
    """Place of the true object that each prediction takes, -1 for none; of equal overlaps the last, as in COCO."""
    free = np.ones(len(crowd), dtype=bool)
    taken = np.full(len(overlaps), -1)
    for place, row in enumerate(overlaps):
        able = np.flatnonzero((row >= least) & (free | crowd))[::-1]
        if counted := [k for k in able if not uncounted[k]]:
            able = np.array(counted)
        if len(able):
            taken[place] = able[row[able].argmax()]
            free[taken[place]] = False
    return taken


def _ratio(common: np.ndarray, ours: np.ndarray, theirs: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    whole = np.where(crowd[None], ours, ours + theirs - common)
    return np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)


def _box_areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _within(areas: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (areas >= bounds[0]) & (areas <= bounds[1])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
