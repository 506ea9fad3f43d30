"""Localisation: how well the box around the high values of a class map meets an object of the class.

The measures of weakly supervised object localisation (Choe et al., "Evaluating Weakly Supervised Object Localization
Methods Right", CVPR 2020) and CorLoc (Deselaers et al., IJCV 2012). A map, scaled from its least to its greatest value
to [0, 1], is cut at a threshold; the boxes are the tightest ones of its 8-connected components. Every map is of a class
that the image has, which is called GT-known; Top-1 localisation asks beside that for the class that a classifier takes
the image for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from wsss_core.constants import IGNORE, MEAN_ROW
from wsss_core.evaluate.instances import box_overlaps
from wsss_core.settings import setting

LEVELS = np.round(np.linspace(0, 1, 101), 2)
"""Thresholds of scaled maps."""

IOUS = (0.3, 0.5, 0.7)
"""Those that V2 takes the mean over; the others ask for 0.5."""

COLUMNS = ("box_acc", "corloc", "box_acc_v2", "max_box_acc", "max_box_acc_v2", "px_ap", "top1", "top1_loc", "maps")
"""Of the table, beside the class."""


@dataclass(frozen=True)
class LocalisationSettings:
    """Whether and how maps are scored against the boxes of the data set."""

    rule: Literal["fixed", "heldout", "oracle"] | None = setting(
        None,
        "how the threshold of the boxes is chosen: fixed: the value `threshold`; heldout: best BoxAcc on "
        "`heldout_fraction` of the images with boxes, evaluated on the others; oracle: best on the very images that "
        "are scored (labelled so); null: localisation is not scored",
    )
    threshold: float = setting(0.3, "threshold under rule fixed, on maps scaled to [0, 1]", minimum=0, maximum=1)
    heldout_fraction: float = setting(
        0.2,
        "part of the images with boxes that rule heldout chooses on, by a hash of their ids",
        exclusiveMinimum=0,
        exclusiveMaximum=1,
    )


@dataclass(frozen=True)
class Located:
    """What the maps of some images found.

    Attributes
    ----------
    classes
        Of the N maps, [N].
    largest
        IoU of the box of each map's largest component at each of `LEVELS` with the true box of its class that it meets
        best, [N, 101].
    best
        The same of the component whose box is best.
    pixels
        Of all maps together, per class: numbers of pixels by the highest of `LEVELS` that they reach, int64
        [C, 2, 101]; those outside the class's true mask first, those in it second.
    guessed
        Which of the N maps is of the class that a classifier takes its image for, bool [N].
    guesses
        Number of images of which that class is known, and of those that have it.
    """

    classes: np.ndarray
    largest: np.ndarray
    best: np.ndarray
    pixels: np.ndarray
    guessed: np.ndarray
    guesses: tuple[int, int] = (0, 0)

    @classmethod
    def none(cls, n_classes: int) -> Located:
        """That of no image."""
        levels = len(LEVELS)
        pixels = np.zeros((n_classes, 2, levels), dtype=np.int64)
        none = np.zeros((0, levels))
        return cls(np.zeros(0, dtype=np.int64), none, none, pixels, np.zeros(0, dtype=bool))

    @classmethod
    def together(cls, parts: Iterable[Located], n_classes: int) -> Located:
        """Several as one."""
        kept = [cls.none(n_classes), *parts]
        return cls(
            np.concatenate([part.classes for part in kept]),
            np.concatenate([part.largest for part in kept]),
            np.concatenate([part.best for part in kept]),
            np.sum([part.pixels for part in kept], 0),
            np.concatenate([part.guessed for part in kept]),
            (sum(part.guesses[0] for part in kept), sum(part.guesses[1] for part in kept)),
        )


def located(
    maps: np.ndarray,
    classes: Sequence[int],
    boxes: np.ndarray,
    owners: np.ndarray,
    mask: np.ndarray | None,
    n: int,
    guess: int | None = None,
) -> Located:
    """What the maps of one image found; those of a class without a box are left out.

    Parameters
    ----------
    maps
        [K, H, W], of any range.
    classes
        The K classes, 0-based.
    boxes, owners
        True boxes [B, 4] as (x0, y0, x1, y1), x1 and y1 exclusive, and their classes [B].
    mask
        True labels [H, W], c + 1 of class c and 255 ignored, if they are known.
    n
        Number of classes.
    guess
        The class that a classifier takes the image for, if it is known.
    """
    kept = [k for k, label in enumerate(classes) if (owners == label).any()]
    pixels = np.zeros((n, 2, len(LEVELS)), dtype=np.int64)
    found = []
    for k in kept:
        scaled = min_max(maps[k])
        found.append(_overlaps(scaled, boxes[owners == classes[k]]))
        if mask is not None:
            pixels[classes[k]] = _reached(scaled, mask, classes[k] + 1)
    ious = np.array(found).reshape(len(kept), 2, len(LEVELS))
    labels = np.array([classes[k] for k in kept], dtype=np.int64)
    guesses = (0, 0) if guess is None else (1, int(guess in classes))
    return Located(labels, ious[:, 0], ious[:, 1], pixels, labels == (-1 if guess is None else guess), guesses)


def min_max(values: np.ndarray) -> np.ndarray:
    """A map scaled to [0, 1] from its least to its greatest value; 0 where these are equal."""
    least, greatest = values.min(), values.max()
    return (values - least) / (greatest - least) if greatest > least else np.zeros_like(values)


def component_boxes(scaled: np.ndarray, threshold: float) -> np.ndarray:
    """Boxes [n, 4] of the 8-connected components of a map at or above a threshold, that of most pixels first.

    Examples
    --------
    >>> values = np.array([[0.9, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.4]])
    >>> component_boxes(values, 0.4).tolist()
    [[0, 0, 2, 2], [3, 1, 4, 2]]
    """
    found = cv2.connectedComponentsWithStats((scaled >= threshold).astype(np.uint8), connectivity=8)[2][1:]
    x, y, width, height, area = found.T
    return np.stack([x, y, x + width, y + height], 1)[np.argsort(-area, kind="stable")]


def box_accuracy(ious: np.ndarray, least: Sequence[float]) -> np.ndarray:
    """Share of N maps whose box has an IoU of `least` or more, the mean over several of these, at each of T thresholds;
    [T] from [N, T], NaN without a map."""
    if not len(ious):
        return np.full(ious.shape[1], np.nan)
    return np.mean([(ious >= value).mean(0) for value in least], 0)


def pixel_ap(pixels: np.ndarray) -> float:
    """Area under the curve of pixel precision over recall (PxAP), from numbers of pixels [2, T] as in `Located`; NaN
    where no pixel is in a true mask."""
    outside, within = pixels[:, ::-1].cumsum(1)  # at or above each threshold, the highest first
    if not within[-1]:
        return float("nan")
    precision = within / np.maximum(within + outside, 1)
    return float((precision * np.diff(within / within[-1], prepend=0.0)).sum())


def best_level(found: Located) -> int:
    """Place of the threshold with the highest BoxAcc; the lowest of equal ones."""
    return int(box_accuracy(found.largest, (0.5,)).argmax())


def localisation_rows(found: Located, level: int, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The table: `COLUMNS` of every class, then of the row ``mean``.

    In the row ``mean`` the accuracies run over all maps, and CorLoc and PxAP are means over the classes;
    ``max_box_acc`` and ``max_box_acc_v2``, of that row alone, are the highest over all thresholds, in hindsight. Of
    that row alone are, too, ``top1``, the share of images that have the class which the classifier takes them for, and
    ``top1_loc``, that of images where the map of this class is right besides; both where this class is known.

    Parameters
    ----------
    level
        Place of the threshold in `LEVELS`.
    """

    def row(chosen: np.ndarray) -> dict[str, float]:
        accuracy = float(box_accuracy(found.largest[chosen], (0.5,))[level])
        v2 = float(box_accuracy(found.best[chosen], IOUS)[level])
        return dict.fromkeys(COLUMNS, float("nan")) | {"box_acc": accuracy, "box_acc_v2": v2, "maps": int(chosen.sum())}

    rows = {}
    for label, name in enumerate(class_names):
        rows[name] = row(found.classes == label) | {"px_ap": pixel_ap(found.pixels[label])}
        rows[name]["corloc"] = rows[name]["box_acc"]
    of_all = row(np.ones(len(found.classes), dtype=bool))
    for column in ("corloc", "px_ap"):
        known = [one[column] for one in rows.values() if not np.isnan(one[column])]
        of_all[column] = float(np.mean(known)) if known else float("nan")
    images, right = found.guesses
    if images:
        of_all["top1"] = right / images
        of_all["top1_loc"] = float((found.largest[found.guessed, level] >= 0.5).sum() / images)
    of_all["max_box_acc"] = float(box_accuracy(found.largest, (0.5,)).max())
    of_all["max_box_acc_v2"] = float(np.mean([box_accuracy(found.best, (value,)).max() for value in IOUS]))
    return rows | {MEAN_ROW: of_all}


def _overlaps(scaled: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU [2, 101] with the true box met best: of the largest component, and of the best."""
    result = np.zeros((2, len(LEVELS)))
    for place, level in enumerate(LEVELS):
        ious = box_overlaps(component_boxes(scaled, level), boxes, np.zeros(len(boxes), dtype=bool))
        if len(ious):
            result[:, place] = ious[0].max(), ious.max()
    return result


def _reached(scaled: np.ndarray, mask: np.ndarray, label: int) -> np.ndarray:
    """Numbers of pixels [2, 101] by the highest threshold that they reach, outside the label and in it."""
    counted = mask != IGNORE
    places = np.searchsorted(LEVELS, scaled[counted], side="right") - 1
    within = mask[counted] == label
    return np.stack([np.bincount(places[within == side], minlength=len(LEVELS)) for side in (False, True)])
