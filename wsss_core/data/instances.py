"""True masks of single objects: VOC's object images, and outlines as COCO writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.boxes import tightest
from wsss_core.data.outlines import inside, outline_problem
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError, whole
from wsss_core.store.atomic import write_text
from wsss_core.store.instances import Instances
from wsss_core.store.masks import read_mask
from wsss_core.store.parts import MOST_SIDE, require_classes

SAME = 0.5
"""IoU of a box that was drawn with the tightest box of a mask, from which on they are of one object."""


@dataclass(frozen=True)
class Outlined:
    """One object of an image: class, outline (see `wsss_core.data.outlines`), and whether it is a crowd."""

    label: int
    outline: Any
    crowd: bool = False


def write_outlines(path: Path, size: tuple[int, int], objects: Sequence[Outlined]) -> None:
    """Write the outlined objects of an image of (H, W) pixels, for `true_instances`."""
    rows = [{"label": o.label, "crowd": o.crowd, "outline": o.outline} for o in objects]
    write_text(path, json.dumps({"size": list(size), "objects": rows}))


def with_labels(path: Path, target: Path, places: Sequence[int | None]) -> None:
    """Write outlined objects again with other class numbers; those whose class has none (None) are left out.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    size, objects = _outlines(path)
    kept = [Outlined(place, o.outline, o.crowd) for o in objects if (place := places[o.label]) is not None]
    write_outlines(target, size, kept)


def instances_size(path: Path) -> tuple[int, int]:
    """(H, W) of the image that a file of true instances is of; UserError if it cannot be read."""
    if path.suffix == ".json":
        return _outlines(path)[0]
    height, width = read_mask(path).shape
    return height, width


def true_instances(record: ImageRecord) -> Instances:
    """The true objects of an image.

    An object image numbers the objects from 1; their classes come from the image's mask, whose 255 is ignored in all
    of them. Objects come in the order of the boxes they belong to, each with that box: the one of its class that meets
    its tightest box best, by an IoU of 0.5 at least. Those without a box come last, with their tightest box.

    Raises
    ------
    UserError
        If the image has no true instances, or their file cannot be read or contradicts the mask.
    """
    if not record.instances:
        raise UserError(f"{record.path}: no true masks of single objects are known of this image")
    path = Path(record.instances)
    classes, masks, crowd, void = _outlined(path) if path.suffix == ".json" else _numbered(path, record)
    tight = [(*map(float, tightest(mask)),) for mask in masks]
    boxes = [box for box in record.boxes if not box.crowd]
    owner = _owners([(box.label, box.corners) for box in boxes], list(zip(classes, tight, strict=True)))
    order = [owner[k] for k in sorted(owner)]
    order += [number for number in range(len(masks)) if number not in owner.values()]
    drawn = {number: boxes[k].corners for k, number in owner.items()}
    size = record.size
    return Instances.of(
        size,
        [classes[number] for number in order],
        [drawn.get(number, tight[number]) for number in order],
        [masks[number] for number in order],
        ignored=np.broadcast_to(void, (len(order), *size)),
        crowd=[crowd[number] for number in order],
    )


def _outlines(path: Path) -> tuple[tuple[int, int], list[Outlined]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        height, width = size = tuple(content["size"])
        if not all(type(side) is int and 0 < side <= MOST_SIDE for side in size):
            raise ValueError(f"the size is {size}")
        objects = [Outlined(o["label"], o["outline"], o["crowd"]) for o in content["objects"]]
        for one in objects:
            if type(one.label) is not int or type(one.crowd) is not bool:
                raise ValueError("an object has no class, or it is not said whether it is a crowd")
            require_classes([one.label])
            if problem := outline_problem(one.outline, (height, width)):
                raise ValueError(problem)
        return (height, width), objects
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: the outlines of the objects cannot be read ({whole(error)})") from error


def _outlined(path: Path) -> tuple[list[int], list[np.ndarray], list[bool], np.ndarray]:
    size, objects = _outlines(path)
    found = [(o.label, inside(o.outline, size), o.crowd) for o in objects]
    found = [item for item in found if item[1].any()]
    return [c for c, _, _ in found], [m for _, m, _ in found], [k for _, _, k in found], np.zeros(size, dtype=bool)


def _numbered(path: Path, record: ImageRecord) -> tuple[list[int], list[np.ndarray], list[bool], np.ndarray]:
    numbers, labels = read_mask(path), read_mask(Path(record.mask))
    if numbers.shape != labels.shape or numbers.shape != record.size:
        raise UserError(f"{path}: is not of the size of the image's mask, {record.mask}")
    classes, masks = [], []
    for number in np.unique(numbers):
        if number in (0, IGNORE):
            continue
        mask = numbers == number
        within = labels[mask]
        within = within[(within != 0) & (within != IGNORE)]
        if not within.size:
            raise UserError(f"{path}: object {number} lies where the mask {record.mask} shows no class")
        classes.append(int(np.bincount(within).argmax()) - 1)
        masks.append(mask)
    return classes, masks, [False] * len(masks), (numbers == IGNORE) | (labels == IGNORE)


def _owners(
    boxes: Sequence[tuple[int, tuple[float, ...]]], objects: Sequence[tuple[int, tuple[float, ...]]]
) -> dict[int, int]:
    """Place of a box to the place of its object: the pairs of one class, the best first."""
    pairs = sorted(
        ((_iou(a, b), k, n) for k, (c, a) in enumerate(boxes) for n, (d, b) in enumerate(objects) if c == d),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    found: dict[int, int] = {}
    for value, k, n in pairs:
        if value >= SAME and k not in found and n not in found.values():
            found[k] = n
    return found


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, wide) * max(0.0, high)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)
