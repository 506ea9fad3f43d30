"""The outline of a mask as one polygon along the edges of its pixels, from which the mask comes back pixel by pixel."""

from __future__ import annotations

import numpy as np

Point = tuple[int, int]

TURNS = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}
"""A step along an edge, (x, y), to the one after a turn to the right: y points downward."""


def outline(mask: np.ndarray) -> list[Point]:
    """The polygon of a mask, bool [H, W], which hangs together by the sides of its pixels.

    Returns
    -------
    Corners (x, y) in pixels, with the mask to the right of the way: pixel (row, column) has the corners (column, row)
    and (column + 1, row + 1). Holes are joined to the outer line by a line that is gone there and back, as forms with
    one polygon an object have it.

    Examples
    --------
    >>> outline(np.array([[False, True], [True, True]]))
    [(1, 0), (2, 0), (2, 2), (0, 2), (0, 1), (1, 1)]
    """
    outer, *holes = sorted(_loops(mask), key=_twice_area, reverse=True)
    for hole in holes:
        first = min(range(len(hole)), key=lambda k: (hole[k][1], hole[k][0]))
        turned = hole[first:] + hole[:first]
        near = min(range(len(outer)), key=lambda k: _distance(outer[k], turned[0]))
        outer = [*outer[: near + 1], *turned, turned[0], *outer[near:]]
    return outer


def _loops(mask: np.ndarray) -> list[list[Point]]:
    """The closed lines around a mask and around its holes; where two pixels touch at a corner, they stay apart."""
    held = np.pad(mask, 1)
    inner = held[1:-1, 1:-1]
    steps: dict[Point, set[Point]] = {}
    for step, beyond, corner in (
        ((1, 0), held[:-2, 1:-1], (0, 0)),
        ((0, 1), held[1:-1, 2:], (1, 0)),
        ((-1, 0), held[2:, 1:-1], (1, 1)),
        ((0, -1), held[1:-1, :-2], (0, 1)),
    ):
        rows, columns = np.nonzero(inner & ~beyond)
        for x, y in zip((columns + corner[0]).tolist(), (rows + corner[1]).tolist(), strict=True):
            steps.setdefault((x, y), set()).add(step)
    loops = []
    while steps:
        start = place = min(steps, key=lambda point: (point[1], point[0]))
        step = min(steps[start])
        loop: list[Point] = []
        while True:
            onward = steps[place]
            turned = TURNS[step]
            following = turned if turned in onward else step if step in onward else next(iter(onward))
            if following != step or not loop:
                loop.append(place)
            onward.remove(following)
            if not onward:
                del steps[place]
            step = following
            place = (place[0] + step[0], place[1] + step[1])
            if place == start and (place not in steps or TURNS[step] not in steps[place]):
                break
        loops.append(loop)
    return loops


def _twice_area(loop: list[Point]) -> int:
    """Twice the area that a loop encloses, positive with its inside to the right of the way."""
    return sum(x * b - a * y for (x, y), (a, b) in zip(loop, [*loop[1:], loop[0]], strict=True))


def _distance(one: Point, other: Point) -> int:
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2
