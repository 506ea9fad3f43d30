"""Points and scribbles that people have drawn stand over the masks that were made.

Published uses are two. The marks are the only labels of a training, and all else is undecided (`rest: undecided`):
Bearman et al., "What's the Point: Semantic Segmentation with Point Supervision", ECCV 2016, whose loss sums over the
points alone; Lin et al., "ScribbleSup", CVPR 2016. Or they are certain where they are, and masks made of tags say
the rest (`rest: keep`), which is J. Lee's dissertation, section 6.2: labels of several kinds in one training.

A folder holds any of these:

* PNGs of labels, one an image, 255 where nothing was drawn;
* ``points.csv`` with the columns image, x, y, class: pixels from the upper left, 0-based, and the name of a class or
  "background";
* ``points.json`` with the same: ``{"photo.jpg": [{"x": 3, "y": 5, "class": "cat"}]}``.

Where they meet, a point stands over a scribble, and the later of two points over the earlier.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsss_core.constants import BACKGROUND, IGNORE
from wsss_core.data.folders import walk
from wsss_core.data.names import did_you_mean
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.refine import MaskInputs, MaskMaker
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.masks import read_mask, tried_names

POINTS = ("points.csv", "points.json")
COLUMNS = ("image", "x", "y", "class")


@dataclass(frozen=True, kw_only=True)
class MarksSettings:
    """Marks by hand over masks."""

    folder: str = setting(
        REQUIRED,
        "folder of scribbles, PNGs of labels with 255 where nothing was drawn, named after the image's id or its file; "
        "and of points, in points.csv (columns image, x, y, class) or points.json",
    )
    radius: int = setting(2, "pixels around a point that have its label too, as the crow flies", minimum=0)
    rest: Literal["keep", "undecided"] = setting(
        "keep", "where nothing is marked, of images with marks and without: keep the mask's label, or leave undecided"
    )


@dataclass(frozen=True)
class Point:
    """A pixel of an image, and the label there: c + 1 of class c, 0 background."""

    x: float
    y: float
    label: int


def maker(settings: MarksSettings, inputs: MaskInputs) -> MaskMaker:
    """What lays the marks of each image over its mask.

    Raises
    ------
    UserError
        If the folder is missing or holds no marks, or a point cannot be read; making masks: if a scribble is
        unreadable, of another size than its image, or holds a label that there is not, or a point lies outside its
        image.
    """
    folder = Path(settings.folder)
    points = read_points(folder, inputs.class_names)
    masks, cut = inputs.masks, inputs.cut
    assert masks is not None and cut is not None  # the registry demands them
    n_labels = len(inputs.class_names) + 1

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        return [one(record) for record in records]

    def one(record: ImageRecord) -> np.ndarray:
        below = masks(record) if settings.rest == "keep" else np.full(record.size, IGNORE, np.uint8)
        drawn = scribbles_of(folder, record)
        labels = below if drawn is None else over(below, read_mask(drawn, record.size, n_labels))
        return over(labels, dotted(points_of(points, record), record, settings.radius))

    words = "marks by hand" if settings.rest == "keep" else "marks by hand, and nothing beside them"
    return MaskMaker(cut.noting(words), make)


def over(below: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Labels, uint8 [H, W], of marks where there are any (not 255), else those below.

    Examples
    --------
    >>> over(np.array([1, 1, 255]), np.array([255, 0, 2])).tolist()
    [1, 0, 2]
    """
    return np.where(marks == IGNORE, below, marks)


def dotted(points: Sequence[Point], record: ImageRecord, radius: int) -> np.ndarray:
    """Labels of points and the discs around them, uint8 [H, W], 255 elsewhere.

    Raises
    ------
    UserError
        If a point lies outside the image.
    """
    labels = np.full(record.size, IGNORE, np.uint8)
    rows, columns = np.ogrid[: record.height, : record.width]
    for point in points:
        if not (0 <= point.x < record.width and 0 <= point.y < record.height):
            raise UserError(
                f"{record.path}: the point ({point.x:g}, {point.y:g}) lies outside of the image of "
                f"{record.width}x{record.height}"
            )
        near = (rows - int(point.y)) ** 2 + (columns - int(point.x)) ** 2 <= radius**2
        labels[near] = point.label
    return labels


def scribbles_of(folder: Path, record: ImageRecord) -> Path | None:
    """The scribbles of an image, if there are any, under any of its `tried_names`."""
    return next((folder / name for name in tried_names(record.id, record.path) if (folder / name).is_file()), None)


def points_of(points: dict[str, list[Point]], record: ImageRecord) -> list[Point]:
    """The points of an image, which may be named by its id or by its file, with or without the ending."""
    file = Path(record.path)
    names = dict.fromkeys([record.id, file.name, file.stem])
    return [point for name in names for point in points.get(name, ())]


def read_points(folder: Path, class_names: Sequence[str]) -> dict[str, list[Point]]:
    """Name of each image to its points, of both files.

    Raises
    ------
    UserError
        If the folder is missing or holds no marks, or a file of points is not as it must be.
    """
    if not folder.is_dir():
        raise UserError(f"marks {folder}: is not a folder")
    files = {entry.name for entry in walk(folder)}
    if not any(name.endswith(".png") or name in POINTS for name in files):
        raise UserError(f"marks {folder}: holds neither scribbles (.png) nor {' or '.join(POINTS)}")
    found: dict[str, list[Point]] = {}
    for name in POINTS:
        if name in files:
            for where, row in _rows(folder / name):
                found.setdefault(str(row["image"]), []).append(_point(where, row, class_names))
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each point stands, and what it says."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            content = json.loads(text)
            rows = [{"image": image, **point} for image, points in content.items() for point in points]
            return iter([(f"{path}: image {row['image']!r}", row) for row in rows])
        table = csv.DictReader(text.splitlines())
        missing = set(COLUMNS) - set(table.fieldnames or ())
        if missing:
            raise ValueError(f"there is no column {', '.join(sorted(missing))}")
        return iter([(f"{path}, row {number}", row) for number, row in enumerate(table, start=2)])
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: points cannot be read ({error})") from error


def _point(where: str, row: dict[str, Any], class_names: Sequence[str]) -> Point:
    try:
        x, y, name = float(row["x"]), float(row["y"]), str(row["class"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: x and y must be numbers, and class a name ({error})") from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UserError(f"{where}: x and y must be finite numbers")
    if name != BACKGROUND and name not in class_names:
        raise UserError(f"{where}: there is no class {name!r}{did_you_mean(name, class_names)}")
    return Point(x, y, 0 if name == BACKGROUND else list(class_names).index(name) + 1)
