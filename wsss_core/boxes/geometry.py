"""Boxes as tensors: decoding of a detector's offsets, areas, and the pixels that a box covers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wsss_core.models.detector import CODER_WEIGHTS

LARGEST_GROWTH = math.log(1000 / 16)
"""Offsets of sizes are cut off here before the exponential, as usual for Faster R-CNN."""


def decoded(offsets: Tensor, proposals: Tensor) -> Tensor:
    """Boxes from a detector's offsets.

    Parameters
    ----------
    offsets
        (x, y, w, h) [n, 4]: shift of the centre in sizes of the proposal and logarithm of the change in size, times
        `wsss_core.models.detector.CODER_WEIGHTS`.
    proposals
        (x0, y0, x1, y1) [n, 4].

    Returns
    -------
    (x0, y0, x1, y1) [n, 4], not clipped.

    Examples
    --------
    >>> decoded(torch.tensor([[1.0, 0, 0, 5 * math.log(2)]]), torch.tensor([[10.0, 10, 30, 20]])).round().tolist()
    [[12.0, 5.0, 32.0, 25.0]]
    """
    sizes = proposals[:, 2:] - proposals[:, :2]
    shifts, growth = (offsets / offsets.new_tensor(CODER_WEIGHTS)).split(2, 1)
    centres = (proposals[:, :2] + proposals[:, 2:]) / 2 + shifts * sizes
    halves = sizes * growth.clamp(max=LARGEST_GROWTH).exp() / 2
    return torch.cat([centres - halves, centres + halves], 1)


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each box with the other in its row, [n]; 0 where neither has an area.

    Examples
    --------
    >>> overlaps(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[2.0, 0, 6, 4]])).tolist()
    [0.3333333432674408]
    """
    upper, lower = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    common = (lower - upper).clamp(min=0).prod(1)
    union = areas(boxes) + areas(others) - common
    return torch.where(union > 0, common / union, 0)


def areas(boxes: Tensor) -> Tensor:
    """Areas [n] of boxes [n, 4]."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [n, 4] cut to an image of the size (H, W)."""
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def pixels(corners: Sequence[float], size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels of a box: its corners rounded to the grid, one pixel at least.

    Parameters
    ----------
    corners
        (x0, y0, x1, y1) in pixels; x1 and y1 are exclusive.
    size
        (H, W) of the image.

    Examples
    --------
    >>> pixels((1.0, 2.4, 4.0, 2.4), (10, 10))
    (slice(2, 3, None), slice(1, 4, None))
    """

    def side(low: float, high: float, length: int) -> slice:
        first = min(max(round(low), 0), length - 1)
        return slice(first, min(max(round(high), first + 1), length))

    x0, y0, x1, y1 = (float(value) for value in corners)
    return side(y0, y1, size[0]), side(x0, x1, size[1])
