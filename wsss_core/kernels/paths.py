"""Pixel pairs within a radius: views of both ends, maxima of a map along the paths, differences of features.

The pairs of a pixel are those of a half plane, so that every unordered pair within the radius occurs once:
34 directions for radius 5, 152 for radius 10 (Ahn et al., "Weakly Supervised Learning of Instance Segmentation
with Inter-pixel Relations", CVPR 2019). Shared by the random walk, the training of the boundary network, and
AffinityNet. Nothing here builds an index table: every quantity is a shifted view of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.constants import IGNORE


@dataclass(frozen=True)
class Row:
    """Directions of one row: ``(dy, first), (dy, first + 1), ...``, `count` of them."""

    dy: int
    first: int
    count: int


def margin(radius: float) -> int:
    """Largest offset of a direction along an axis, in cells.

    Examples
    --------
    >>> margin(5), margin(10)
    (4, 9)
    """
    return ceil(radius) - 1


@lru_cache
def rows(radius: float) -> tuple[Row, ...]:
    """The directions of a radius, row by row: a run of neighbouring offsets for each dy.

    Raises
    ------
    ValueError
        If the radius is too small for any pair.
    """
    reach = margin(radius)
    if reach < 1:
        raise ValueError(f"radius must be greater than 1, got {radius}")
    found = [Row(0, 1, reach)]
    for dy in range(1, reach + 1):
        width = max(x for x in range(reach + 1) if x * x + dy * dy < radius * radius or x == 0)
        if dy * dy < radius * radius:
            found.append(Row(dy, -width, 2 * width + 1))
    return tuple(found)


@lru_cache
def directions(radius: float) -> tuple[tuple[int, int], ...]:
    """Offsets (dy, dx) from source to destination, in the order of every stack of pairs here.

    Examples
    --------
    >>> directions(2)
    ((0, 1), (1, -1), (1, 0), (1, 1))
    >>> len(directions(5)), len(directions(10))
    (34, 152)
    """
    return tuple((row.dy, row.first + i) for row in rows(radius) for i in range(row.count))


@lru_cache
def path_cells(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    """Cells on the path from (0, 0) to (dy, dx), both included.

    All integer cells of the rectangle between the two ends whose distance from the straight line is below 1.

    Examples
    --------
    >>> path_cells(1, 1), path_cells(0, 2)
    (((0, 0), (0, 1), (1, 0), (1, 1)), ((0, 0), (0, 1), (0, 2)))
    """
    ys = range(min(dy, 0), max(dy, 0) + 1)
    xs = range(min(dx, 0), max(dx, 0) + 1)
    return tuple((y, x) for y in ys for x in xs if (dy * x - dx * y) ** 2 < dy * dy + dx * dx)


def source(values: Tensor, radius: float) -> Tensor:
    """View of the source pixels, whose destinations all lie inside the map.

    Parameters
    ----------
    values
        [..., H, W].

    Returns
    -------
    View [..., H - R, W - 2R], with R = `margin`.

    Raises
    ------
    ValueError
        If the map is too small for the radius.
    """
    height, width = _source_size(values, radius)
    reach = margin(radius)
    return values[..., :height, reach : reach + width]


def destinations(values: Tensor, radius: float, row: Row) -> Tensor:
    """View of the destinations of all sources for the directions of one row.

    Parameters
    ----------
    values
        [..., H, W].

    Returns
    -------
    View [..., H - R, row.count, W - 2R]: element [y, i, x] is the destination of source (y, x) in direction
    ``(row.dy, row.first + i)``.
    """
    height, width = _source_size(values, radius)
    start = margin(radius) + row.first
    window = values[..., row.dy : row.dy + height, start : start + width + row.count - 1]
    return window.unfold(-1, width, 1)


def path_maxima(values: Tensor, radius: float, border: float | None = None) -> list[Tensor]:
    """Maximum of a map along the path of every pair; differentiable.

    The paths are covered by shifted paths of shorter directions, whose maxima are reused, so a map of radius 10
    takes a few hundred elementwise maxima in place of 2134.

    Parameters
    ----------
    values
        [..., H, W].
    border
        Without it, the sources are those of `source`. With it, every pixel is a source, and paths that leave
        the map meet this value.

    Returns
    -------
    One tensor per direction, in the order of `directions`: [..., H - R, W - 2R], or [..., H, W] with a border.
    """
    reach = margin(radius)
    if border is not None:
        values = F.pad(values, (reach, reach, 0, reach), value=border)
    height, width = _source_size(values, radius)
    maxima: list[Tensor] = []
    plan = _plan(radius)
    for node in plan:
        top, bottom, left, right = node.box
        shape = (height + bottom - top, width + right - left)
        if not node.parts:
            maxima.append(values[..., top : top + shape[0], reach + left : reach + left + shape[1]])
            continue
        shorter = []
        for index, dy, dx in node.parts:
            y, x = top + dy - plan[index].box[0], left + dx - plan[index].box[2]
            shorter.append(maxima[index][..., y : y + shape[0], x : x + shape[1]])
        maxima.append(reduce(torch.maximum, shorter))
    own = {node.direction: i for i, node in enumerate(plan)}
    return [
        maxima[i][..., -plan[i].box[0] :, -plan[i].box[2] :][..., :height, :width]
        for i in (own[direction] for direction in directions(radius))
    ]


def mean_differences(values: Tensor, radius: float, border: float | None = None) -> list[Tensor]:
    """Mean absolute difference over the channels between the two pixels of every pair; differentiable.

    Parameters
    ----------
    values
        [..., D, H, W].
    border
        Without it, the sources are those of `source`. With it, every pixel is a source, and destinations outside
        the map have this value in every channel.

    Returns
    -------
    One tensor per direction, in the order of `directions`: [..., H - R, W - 2R], or [..., H, W] with a border.
    """
    if border is not None:
        reach = margin(radius)
        values = F.pad(values, (reach, reach, 0, reach), value=border)
    here = source(values, radius)
    ends = (there for row in rows(radius) for there in destinations(values, radius, row).unbind(-2))
    return [(here - there).abs().mean(-3) for there in ends]


def pair_kinds(labels: Tensor, radius: float, row: Row) -> dict[str, Tensor]:
    """Which pairs of one row's directions are of one label and which are not, where both labels are known.

    Parameters
    ----------
    labels
        uint8 [..., H, W]: 0 background, 255 unknown, anything else a class.

    Returns
    -------
    "background", "foreground" (one class) and "different", bool [..., H - R, row.count, W - 2R] each.
    """
    here, there = source(labels, radius)[..., None, :], destinations(labels, radius, row)
    known = (here != IGNORE) & (there != IGNORE)
    same = here == there
    return {
        "background": known & same & (here == 0),
        "foreground": known & same & (here != 0),
        "different": known & ~same,
    }


def _source_size(values: Tensor, radius: float) -> tuple[int, int]:
    reach = margin(radius)
    height, width = values.shape[-2] - reach, values.shape[-1] - 2 * reach
    if height < 1 or width < 1:
        size = f"{values.shape[-2]}x{values.shape[-1]}"
        raise ValueError(f"a map of {size} cells holds no pixel pairs of radius {radius}")
    return height, width


class _Node(NamedTuple):
    """A running maximum: `parts` are (earlier node, dy, dx), `box` the range of offsets at which it is needed."""

    direction: tuple[int, int]
    parts: tuple[tuple[int, int, int], ...]
    box: tuple[int, int, int, int]


@lru_cache
def _plan(radius: float) -> tuple[_Node, ...]:
    """How to build each path's maximum from shifted maxima of shorter paths (greedy set cover on bit masks)."""
    stride = 4 * margin(radius) + 4

    def shifted(mask: int, dy: int, dx: int) -> int:
        shift = dy * stride + dx
        return mask << shift if shift >= 0 else mask >> -shift

    origin = 1 << (stride // 2)
    known: list[tuple[tuple[int, int], int]] = [((0, 0), origin)]
    covers: list[tuple[tuple[int, int, int], ...]] = [()]
    for direction in sorted(directions(radius), key=lambda d: len(path_cells(*d))):
        cells = path_cells(*direction)
        target = sum(shifted(origin, y, x) for y, x in cells)
        options = [
            (i, y, x, moved)
            for i, (_, mask) in enumerate(known)
            for y, x in cells
            if not (moved := shifted(mask, y, x)) & ~target
        ]
        missing, cover = target, []
        while missing:
            i, y, x, moved = max(options, key=lambda option: (option[3] & missing).bit_count())
            cover.append((i, y, x))
            missing &= ~moved
        known.append((direction, target))
        covers.append(tuple(cover))
    boxes = [(0, 0, 0, 0) for _ in known]
    for i in reversed(range(len(known))):
        top, bottom, left, right = boxes[i]
        for j, y, x in covers[i]:
            t, b, le, r = boxes[j]
            boxes[j] = (min(t, top + y), max(b, bottom + y), min(le, left + x), max(r, right + x))
    return tuple(_Node(known[i][0], covers[i], boxes[i]) for i in range(len(known)))
