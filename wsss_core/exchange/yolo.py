"""Label masks as YOLO's segmentation: ``labels/NAME.txt``, a line an outline, and ``data.yaml`` with the names.

A line holds the number of the class, from 0, and the corners of the outline in parts of the photo's width and height.
Each piece of a class is an outline along the edges of its pixels, so that no pixel is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from wsss_core.exchange import Labelled, pieces, write_new
from wsss_core.exchange.outlines import outline


def write(folder: Path, images: Iterable[Labelled], class_names: Sequence[str]) -> None:
    """Write a text file an image, and ``data.yaml``."""
    content = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(class_names))}
    write_new(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    for image in images:
        height, width = image.labels.shape
        lines = []
        for c, mask in pieces(image.labels):
            corners = (f"{x / width:.7g} {y / height:.7g}" for x, y in outline(mask))
            lines.append(f"{c} {' '.join(corners)}\n")
        write_new(folder / "labels" / f"{image.stem}.txt", "".join(lines))
