"""Masks of objects from what they were attributed to: cut within the box, and drawn to the edges of the image.

Lee, Yi, Shin & Yoon, "BBAM", CVPR 2021 (Lee's dissertation, section 5.3.4). Of every object two masks are made: a
narrow one of pixels that surely belong to it, and a wide one beyond which surely none does. What lies in the wide mask
and not in the narrow one is ignored in training.

``threshold: rank`` follows the published code. For q = `foreground` (narrow) and q = `background` (wide):

1. the map is set to [0, 1], enlarged, and 0 outside the box;
2. it is divided by its value at rank area (1 - q), counted from the highest, and cut off at 1: a q of 0.85 keeps the
   highest 15 % of the box at 1, one of 0.2 the highest 80 %;
3. it is blurred (sigma 16 + 48 sqrt(a) pixels, a the box's share of the image), 0 outside the box, divided by its
   maximum;
4. a dense CRF takes it for a probability, and where the posterior exceeds `posterior` is the mask;
5. if that is a fifth of the box or less, and the box a tenth of the image or less, the box is given one probability,
   0.7, 0.8, 0.9, 0.95, 0.96 in turn, but 1 where this mask is, until the CRF leaves more than a third of it.

``threshold: value`` follows the paper: steps 1 and 4, then foreground above `foreground`, background below
`background`. The paper gives no settings of the CRF, nor does it say whether thresholds are of the map or of the
posterior; they are of the posterior here.

An object without attribution, or whose map is 0, gets what step 5 makes of an empty mask, with 0.7, 0.8, 0.9, 0.95 and
more than a fifth of the box. Where no probability leaves enough the last stands. (The published code then stores no
mask, so that the masks after it belong to the wrong boxes.) Chosen here: maps are enlarged as BBAM enlarges its masks,
corner cells on corner pixels, while the published code stores them as JPEGs in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from wsss_core.boxes import ObjectMaker, told_apart
from wsss_core.boxes.geometry import pixels
from wsss_core.data.boxes import Box
from wsss_core.errors import UserError
from wsss_core.kernels.dense_crf import dense_crf, unary_from_probabilities
from wsss_core.settings import setting
from wsss_core.store.attributions import Attributions
from wsss_core.store.instances import Instances

CHUNK_PIXELS = 2**23
"""Pixels of the planes that one CRF works on; bounds memory."""

TINY = 1e-8
"""Added to the value that a map is divided by, as in the published code."""

SMALL_PRIORS, SMALL_SHARE = (0.7, 0.8, 0.9, 0.95, 0.96), 1 / 3
"""Probabilities that the box of a small mask is given in turn, and the part of the box that must be exceeded."""

ABSENT_PRIORS, ABSENT_SHARE = SMALL_PRIORS[:4], 1 / 5
"""The same for an object without attribution."""

SMALL_MASK, SMALL_BOX = 1 / 5, 1 / 10
"""A mask is small that is no larger than this part of a box no larger than this part of the image."""


@dataclass(frozen=True)
class MasksSettings:
    """Masks of objects from their attributions; defaults as published."""

    threshold: Literal["rank", "value"] = setting(
        "rank",
        "what `foreground` and `background` are: rank: parts of the box's pixels, as in the published code; value: "
        "values of the CRF's posterior, as in the paper",
    )
    foreground: float | None = setting(
        None,
        "rank: 1 less the part of the box whose highest values start as foreground; value: posterior above which a "
        "pixel is foreground; null: 0.85 (rank) or 0.8 (value)",
        minimum=0,
        maximum=1,
    )
    background: float = setting(
        0.2,
        "the same for the wide mask, outside of which a pixel is background; equal to `foreground`: nothing is ignored",
        minimum=0,
        maximum=1,
    )
    gaussian: tuple[float, float] = setting(
        (1.0, 3.0), "spatial kernel: standard deviation in pixels, weight", positive=1, items={"minimum": 0}
    )
    bilateral: tuple[float, float, float] = setting(
        (80.0, 3.0, 4.0),
        "bilateral kernel: standard deviation in pixels, standard deviation in grey levels, weight",
        positive=2,
        items={"minimum": 0},
    )
    iterations: int = setting(10, "mean-field iterations of the CRF", minimum=0)
    posterior: float = setting(
        0.9, "a pixel is in a mask where the CRF's posterior exceeds this", minimum=0, exclusiveMaximum=1
    )


def maker(settings: MasksSettings, device: torch.device) -> ObjectMaker:
    """What makes the masks of an image from the attributions of its objects.

    Raises
    ------
    UserError
        If the wide mask would be narrower than the narrow one.
    """
    if settings.background > _narrow(settings):
        raise UserError(f"background {settings.background} must not exceed foreground {_narrow(settings)}")

    def make(image: np.ndarray, boxes: Sequence[Box], attributions: Attributions | None) -> Instances:
        if attributions is None or len(attributions) != len(told_apart(boxes)):
            raise ValueError("masks need an attribution of every box that is no crowd's")
        return masks_of(image, attributions, settings)

    return make


def masks_of(image: np.ndarray, attributions: Attributions, settings: MasksSettings) -> Instances:
    """Masks of the objects of one image.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    attributions
        Of its n objects.

    Returns
    -------
    n objects in the same order. Statistics: ``priors``, for each object the probability that its box was given last
    for the narrow and for the wide mask (0: none); and numbers of objects: ``without``, those without attribution or
    with a map of 0; ``retried``, others that step 5 worked on; ``unsatisfied``, those left with fewer pixels than it
    asks for; ``empty``, those without a pixel.
    """
    n, size = len(attributions), image.shape[:2]
    insides = [pixels(box, size) for box in attributions.boxes]
    maps = [inside_box(attributions, number, place) for number, place in enumerate(insides)]
    if settings.threshold == "rank":
        cuts = _narrow(settings), settings.background
        planes = [softened(ranked(*one, q), one[1]) for q in cuts for one in zip(maps, insides, strict=True)]
        found = posteriors(image, planes, settings) > settings.posterior
    else:
        seen = posteriors(image, maps, settings)
        found = np.concatenate([seen > _narrow(settings), seen >= settings.background])
    attributed = np.array([one.any() for one in attributions.maps], dtype=bool)
    found, priors, short = _with_priors(image, found, insides * 2, np.tile(attributed, 2), settings)
    narrow, wide = found[:n], found[n:]
    tried = np.stack([priors[:n], priors[n:]], 1)
    return Instances.of(
        size,
        attributions.classes,
        attributions.boxes,
        narrow,
        ignored=wide & ~narrow,
        statistics={
            "priors": tried.tolist(),
            "without": int((~attributed).sum()),
            "retried": int((tried.any(1) & attributed).sum()),
            "unsatisfied": int((short[:n] | short[n:]).sum()),
            "empty": int((~narrow.any((1, 2))).sum()),
        },
    )


def inside_box(attributions: Attributions, number: int, place: tuple[slice, slice]) -> np.ndarray:
    """The map of an object less its minimum and divided by its maximum, enlarged to [H, W], and 0 outside its box."""
    grid = attributions.maps[number]
    found = np.zeros(attributions.size, dtype=np.float32)
    found[place] = (attributions.full(number).numpy()[place] - grid.min()) / max(np.ptp(grid), TINY)
    return found


def ranked(values: np.ndarray, place: tuple[slice, slice], q: float) -> np.ndarray:
    """A map divided by its value at rank area (1 - q), counted from the highest, and cut off at 1.

    Parameters
    ----------
    values
        [H, W], 0 outside the box.
    place
        Rows and columns of the box.
    q
        The box's highest 1 - q parts of the pixels become 1.

    Examples
    --------
    >>> ranked(np.array([[0.0, 0.1, 0.2, 0.4, 0.8]]), (slice(0, 1), slice(1, 5)), 0.75).round(2).tolist()
    [[0.0, 0.25, 0.5, 1.0, 1.0]]
    """
    area = values[place].size
    rank = min(int(area * (1 - q)), values.size - 1)
    value = -np.partition(-values, rank, axis=None)[rank]
    return (values / (value + TINY)).clip(0, 1)


def softened(values: np.ndarray, place: tuple[slice, slice]) -> np.ndarray:
    """A map [H, W] blurred, 0 outside the box and divided by its maximum; the larger the box, the wider the blur."""
    import cv2

    width = int(16 + 48 * np.sqrt(values[place].size / values.size))
    blurred = cv2.GaussianBlur(values, (2 * width + 1, 2 * width + 1), width)
    found = np.zeros_like(blurred)
    found[place] = blurred[place] / max(blurred[place].max(), TINY)
    return found


def posteriors(image: np.ndarray, planes: Sequence[np.ndarray] | np.ndarray, settings: MasksSettings) -> np.ndarray:
    """Posterior of a dense CRF on each plane [H, W], taken for the probability of an object; float32 [U, H, W]."""
    found = np.zeros((len(planes), *image.shape[:2]), dtype=np.float32)
    count = max(1, CHUNK_PIXELS // found[0].size) if len(planes) else 1
    for first in range(0, len(planes), count):
        some = np.asarray(planes[first : first + count], dtype=np.float32)
        found[first : first + count] = dense_crf(
            image,
            unary_from_probabilities(np.stack([some, 1 - some], 1)),
            gaussian=settings.gaussian,
            bilateral=settings.bilateral,
            iterations=settings.iterations,
        )[:, 0]
    return found


def _narrow(settings: MasksSettings) -> float:
    """`foreground`, or its default."""
    return {"rank": 0.85, "value": 0.8}[settings.threshold] if settings.foreground is None else settings.foreground


def _with_priors(
    image: np.ndarray,
    found: np.ndarray,
    places: Sequence[tuple[slice, slice]],
    attributed: np.ndarray,
    settings: MasksSettings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks [U, H, W] of boxes without attribution, and (rank) those that are too small, made of constant boxes.

    Returns
    -------
    The masks, the probability that each box was given last (0: none), and which masks remain too small.
    """
    first = found & attributed[:, None, None]
    boxed = np.array([first[u][place].size for u, place in enumerate(places)])
    small = (first.sum((1, 2)) <= boxed * SMALL_MASK) & (boxed <= first[:1].size * SMALL_BOX)
    wanted = np.where(attributed, boxed * SMALL_SHARE, boxed * ABSENT_SHARE)
    short = ~attributed | (small & (settings.threshold == "rank"))
    found, priors = first.copy(), np.zeros(len(first))
    for prior in SMALL_PRIORS:
        todo = np.flatnonzero(short & (attributed | (prior in ABSENT_PRIORS))).tolist()
        if not todo:
            break
        planes = np.zeros((len(todo), *first.shape[1:]), dtype=np.float32)
        for plane, u in zip(planes, todo, strict=True):
            plane[places[u]] = prior
            plane[first[u]] = 1
        found[todo] = posteriors(image, planes, settings) > settings.posterior
        priors[todo] = prior
        short[todo] = found[todo].sum((1, 2)) <= wanted[todo]
    return found, priors, short
