"""Boxes of objects, as people draw them."""

from __future__ import annotations

from dataclasses import dataclass


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
