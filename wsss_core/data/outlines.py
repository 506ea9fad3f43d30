"""Outlines of objects as COCO writes them, polygons and run-length codes: held against their image, then filled.

Polygons are filled by pycocotools (imported only here, and only then), whose C code trusts every number it is given: a
corner at 3.5e8 ends the process, NaN eats the memory. So no outline gets there unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def outline_problem(outline: Any, size: tuple[int, int]) -> str:
    """What is wrong with the outline of an object in an image, or "".

    Parameters
    ----------
    outline
        A list of polygons [x, y, x, y, …], or {"size": [H, W], "counts": …} with lengths of runs down the columns, in
        turn outside and inside, as a list or as COCO's compressed text.
    size
        (H, W) of the image. Corners may lie outside of it, by its own width and height at most.

    Examples
    --------
    >>> outline_problem([[1, 1, 9, 1, 9.5, 9]], (20, 30))
    ''
    >>> outline_problem([[1, 1, 9, 1, 3.5e8, 9]], (20, 30))
    'a polygon reaches 350000000.0, far outside the image of 30x20 pixels'
    """
    if isinstance(outline, list):
        return next((text for polygon in outline if (text := _polygon_problem(polygon, size))), "")
    if isinstance(outline, dict):
        return _runs_problem(outline, size)
    return f"the segmentation is {_kind(outline)}, neither polygons nor a run-length code"


def inside(outline: Any, size: tuple[int, int]) -> np.ndarray:
    """Boolean [H, W], inside an outline that `outline_problem` found nothing wrong with.

    Polygons of fewer than three points are left out.

    Examples
    --------
    >>> inside({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3)).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    if isinstance(outline, dict):
        counts = _counts(outline["counts"])
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(size[1], size[0]).T
    polygons = [polygon for polygon in outline if len(polygon) >= 6]
    if not polygons:
        return np.zeros(size, dtype=bool)
    from pycocotools import mask

    return mask.decode(mask.merge(mask.frPyObjects(polygons, *size))).astype(bool)


def _polygon_problem(polygon: Any, size: tuple[int, int]) -> str:
    if not isinstance(polygon, list):
        return f"a polygon is {_kind(polygon)}, not a list of numbers"
    wrong = next((value for value in polygon if type(value) not in (int, float)), 0)
    if type(wrong) not in (int, float):
        return f"a polygon holds {_kind(wrong)} where a number must be"
    if len(polygon) % 2:
        return f"a polygon holds {len(polygon)} numbers, which are no pairs x, y"
    height, width = size
    for values, side in ((polygon[::2], width), (polygon[1::2], height)):
        far = next((value for value in values if not -side <= value <= 2 * side), None)
        if far is not None:
            return f"a polygon reaches {_short(far)}, far outside the image of {width}x{height} pixels"
    return ""


def _runs_problem(outline: dict[str, Any], size: tuple[int, int]) -> str:
    height, width = size
    if "size" not in outline or "counts" not in outline:
        return "the run-length code holds no size and counts"
    if outline["size"] != [height, width]:
        return (
            f"the run-length code is for [height, width] {_short(outline['size'])}, the image for [{height}, {width}]"
        )
    try:
        counts = _counts(outline["counts"])
    except ValueError as error:
        return f"the run-length code {error}"
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        return f"the run-length code covers {_short(sum(counts))} pixels of {height * width}, or goes back"
    return ""


def _counts(counts: Any) -> Sequence[int]:
    if isinstance(counts, str):
        return _expanded(counts)
    if not isinstance(counts, list) or any(type(count) is not int for count in counts):
        raise ValueError("has counts that are neither whole numbers nor a text")
    return counts


def _expanded(text: str) -> list[int]:
    """Lengths of runs from COCO's compressed text.

    A character is six bits, counted from "0": five of a number, the lowest first, and one that says whether more
    follow. Numbers are signed; from the fourth on they are differences to the number before the last.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for letter in text:
        bits = ord(letter) - ord("0")
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("is no text that COCO's tools write")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            signed = number - (1 << shift) if bits & 16 else number
            counts.append(signed + (counts[-2] if len(counts) > 2 else 0))
            number, shift = 0, 0
    if shift:
        raise ValueError("ends in the middle of a number")
    return counts


def _kind(value: Any) -> str:
    named = {type(None): "null", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return named.get(type(value), "a number")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
