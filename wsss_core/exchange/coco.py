"""Label masks as COCO's JSON: one annotation for each class of an image, its mask as a compressed run-length code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from wsss_core.exchange import Labelled, write_new
from wsss_core.exchange.coco_objects import coco_objects
from wsss_core.store.instances import Instances


def write(folder: Path, images: Iterable[Labelled], class_names: Sequence[str]) -> None:
    """Write ``annotations.json``; class c has the category c + 1."""
    content = coco_objects(((image.name, _regions(image)) for image in images), class_names)
    write_new(folder / "annotations.json", json.dumps(content, ensure_ascii=False) + "\n")


def _regions(image: Labelled) -> Instances:
    """All that an image shows of a class, as if it were one object."""
    masks = np.stack([image.labels == c + 1 for c in image.present]) if image.present else None
    size = (image.labels.shape[0], image.labels.shape[1])
    if masks is None:
        return Instances.of(size)
    return Instances.of(size, image.present, np.zeros((len(masks), 4)), masks)
