"""Annotations of other programs, read by Datumaro: tags, boxes and masks, in what forms it knows (CVAT, COCO, YOLO …).

Shapes are laid on one another in their order, as the tools draw them: where two overlap, the later one is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.errors import UserError
from wsss_core.extras import extra

KINDS = ("label", "bbox", "polygon", "mask")
"""What is taken of an image; points, lines, captions and the like are not."""


@dataclass(frozen=True)
class Incoming:
    """What was said of one image.

    Attributes
    ----------
    name
        As the other program calls it, with sub-folders and without an ending.
    classes
        Every class that it has, as a tag or a shape; ascending, 0-based.
    labels
        uint8 [H, W] of its masks and polygons, 0 background, c + 1 class c; None without any.
    boxes
        (class, x0, y0, x1, y1) of its boxes.
    """

    name: str
    classes: tuple[int, ...]
    labels: np.ndarray | None
    boxes: tuple[tuple[int, float, float, float, float], ...]


@dataclass(frozen=True)
class Annotations:
    """All images of a file or folder of annotations, and the names of their classes."""

    class_names: tuple[str, ...]
    images: tuple[Incoming, ...]
    left_out: dict[str, int]


def read_annotations(path: Path, form: str, class_names: Sequence[str] | None = None) -> Annotations:
    """Read annotations of another program.

    Parameters
    ----------
    form
        Name of a format of Datumaro, such as cvat, coco, voc, yolo or label_me.
    class_names
        Names of the classes in the order that labels are numbered by; None: as the other program has them, without
        background.

    Returns
    -------
    The annotations; `left_out` counts shapes of other kinds by their name.

    Raises
    ------
    UserError
        If Datumaro is missing or cannot read the file, or a shape is of a class that `class_names` lacks.
    """
    datumaro = extra("datumaro", "exchange")
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    try:
        found = datumaro.Dataset.import_from(str(path), form)
        items = list(found)
    except Exception as error:  # whatever its readers raise
        cause = error.__cause__ or error
        raise UserError(f"{path}: Datumaro cannot read this as {form} ({type(cause).__name__}: {cause})") from error
    theirs = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    names = list(class_names) if class_names else [name for name in theirs if name.lower() != "background"]
    numbers = {number: names.index(name) for number, name in enumerate(theirs) if name in names}
    left_out: dict[str, int] = {}
    images = []
    for item in items:
        kept = []
        for annotation in sorted(item.annotations, key=lambda one: getattr(one, "z_order", 0)):
            kind = annotation.type.name
            if kind not in KINDS:
                left_out[kind] = left_out.get(kind, 0) + 1
            elif theirs[annotation.label].lower() != "background":
                kept.append(annotation)
        unknown = next((theirs[one.label] for one in kept if one.label not in numbers), None)
        if unknown is not None:
            raise UserError(f"{path}: {item.id} has the class {unknown!r}; the list of classes has {', '.join(names)}")
        images.append(_incoming(path, item, kept, numbers))
    return Annotations(tuple(names), tuple(images), left_out)


def _incoming(path: Path, item: Any, annotations: Sequence[Any], numbers: dict[int, int]) -> Incoming:
    classes = tuple(sorted({numbers[one.label] for one in annotations}))
    boxes = tuple(
        (numbers[one.label], one.x, one.y, one.x + one.w, one.y + one.h)
        for one in annotations
        if one.type.name == "bbox"
    )
    shapes = [one for one in annotations if one.type.name in ("polygon", "mask")]
    labels = None
    if shapes:
        size = _size(path, item, shapes)
        labels = np.zeros(size, np.uint8)
        for shape in shapes:
            labels[_pixels(shape, size)] = numbers[shape.label] + 1
    return Incoming(item.id, classes, labels, boxes)


def _size(path: Path, item: Any, shapes: Sequence[Any]) -> tuple[int, int]:
    """(H, W) of an image, from its masks or from what the annotations say of it."""
    for shape in shapes:
        if shape.type.name == "mask":
            height, width = np.asarray(shape.image).shape
            return height, width
    size = getattr(item.media, "size", None)
    if size is None:
        raise UserError(
            f"{path}: {item.id} has polygons, and its size is not known: lay its photo beside the annotations"
        )
    return int(size[0]), int(size[1])


def _pixels(shape: Any, size: tuple[int, int]) -> np.ndarray:
    """Pixels of a mask or polygon, bool [H, W]."""
    if shape.type.name == "mask":
        return np.asarray(shape.image) > 0
    from pycocotools import mask as rasterised

    return rasterised.decode(rasterised.merge(rasterised.frPyObjects([list(shape.points)], *size))) > 0


def by_stem(images: Sequence[Incoming]) -> Iterator[tuple[str, Incoming]]:
    """Images with the names that files of theirs take: the last part of their name where all of these differ."""
    short = [Path(image.name).name for image in images]
    names = short if len(set(short)) == len(short) else [image.name for image in images]
    yield from zip(names, images, strict=True)
