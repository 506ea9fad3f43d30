"""Boxes of objects, as people draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np

from wsss_core.settings import setting

NoiseKind = Literal["fixed", "random"]
"""Whether all boxes are drawn as badly, or each in its own way; see `wsss_core.data.box_noise`."""

LEAST_SIDE = 2
"""Pixels; a box that is thinner is a slip of the mouse."""


@dataclass(frozen=True)
class Box:
    """The box of one object.

    Attributes
    ----------
    label
        Class, 0-based.
    x0, y0, x1, y1
        Corners in pixels from the image's upper left; x1 and y1 are exclusive.
    difficult
        Marked as hard to recognise (VOC). Such objects are trained on and count like others.
    crowd
        Holds a group of objects that were not told apart (COCO). It is neither trained on nor turned into a mask.
    """

    label: int
    x0: float
    y0: float
    x1: float
    y1: float
    difficult: bool = False
    crowd: bool = False

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1)."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def area(self) -> float:
        """Pixels that it covers."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


def tightest(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box (x0, y0, x1, y1) around the pixels of a mask, bool [H, W], of which there must be one.

    Examples
    --------
    >>> tightest(np.array([[0, 0, 0], [0, 1, 1]], dtype=bool))
    (1, 1, 3, 2)
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def share_of_boxes() -> float:
    """The setting `box_share` of a data set."""
    return setting(
        1.0,
        "share of the images for training whose boxes are used, drawn by a hash of their ids; those of a smaller share "
        "are among those of a larger one",
        minimum=0,
        maximum=1,
    )


def draw_of_boxes() -> int:
    """The setting `box_draw` of a data set."""
    return setting(0, "another number, other images whose boxes are used", minimum=0)


def noise_of_boxes() -> float:
    """The setting `box_noise` of a data set."""
    return setting(
        0.0,
        "make both sides of every box of an image for training longer by this part of them (or shorter, if negative), "
        "about its centre",
        minimum=-0.9,
        maximum=1,
    )


def kind_of_noise() -> NoiseKind:
    """The setting `box_noise_kind` of a data set."""
    return setting(
        "fixed", "fixed: the same part for all boxes; random: for each a part of its own, uniform between 0 and that"
    )


def plain(boxes: Sequence[Box]) -> list[list[Any]]:
    """Boxes as lists of plain numbers, for JSON; `from_plain` reads them."""
    return [list(astuple(box)) for box in boxes]


def from_plain(rows: Sequence[Sequence[Any]]) -> tuple[Box, ...]:
    """Boxes from what `plain` made of them.

    Examples
    --------
    >>> from_plain(plain([Box(2, 1, 2, 30, 40, crowd=True)]))
    (Box(label=2, x0=1, y0=2, x1=30, y1=40, difficult=False, crowd=True),)
    """
    return tuple(Box(*row) for row in rows)


def fitted(box: Box, size: tuple[int, int]) -> tuple[Box | None, str]:
    """A box clipped to its image, and what is to be said about it.

    Parameters
    ----------
    size
        (H, W) of the image in pixels.

    Returns
    -------
    The box, None if it cannot be used, and a text: "" if all is well.

    Examples
    --------
    >>> box, text = fitted(Box(0, -3, 5, 20, 30), (40, 60))
    >>> box.corners, text
    ((0, 5, 20, 30), 'the box (-3, 5, 20, 30) leaves its image and is clipped')
    >>> fitted(Box(0, 5, 5, 6, 30), (40, 60))
    (None, 'the box (5, 5, 6, 30) has a side of less than 2 pixels in the image of 60x40')
    """
    height, width = size
    shown = "(" + ", ".join(f"{value:g}" for value in box.corners) + ")"
    if not all(map(math.isfinite, box.corners)):
        return None, f"the box {shown} has a corner that is no finite number"
    if box.x1 < box.x0 or box.y1 < box.y0:
        return None, f"the box {shown} ends before it begins: its corners are x0, y0, x1, y1"
    x0, y0, x1, y1 = max(0, box.x0), max(0, box.y0), min(width, box.x1), min(height, box.y1)
    if min(x1 - x0, y1 - y0) < LEAST_SIDE:
        return None, f"the box {shown} has a side of less than {LEAST_SIDE} pixels in the image of {width}x{height}"
    if (x0, y0, x1, y1) == box.corners:
        return box, ""
    clipped = Box(box.label, x0, y0, x1, y1, box.difficult, box.crowd)
    return clipped, f"the box {shown} leaves its image and is clipped"
