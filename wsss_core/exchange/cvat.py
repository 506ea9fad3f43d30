"""Label masks as CVAT's own XML, "CVAT for images 1.1": a mask for each piece of a class, to be corrected there.

A mask is a rectangle (left, top, width, height) with run lengths of its pixels, row by row, outside and
inside in turn, first outside.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.boxes import tightest
from wsss_core.exchange import Labelled, pieces, write_new
from wsss_core.store.masks import voc_palette


def write(folder: Path, images: Iterable[Labelled], class_names: Sequence[str]) -> None:
    """Write ``annotations.xml``."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
    for name, colour in zip(class_names, voc_palette()[1:].tolist(), strict=False):
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*colour)
        ET.SubElement(label, "type").text = "mask"
        ET.SubElement(label, "attributes")
    for number, image in enumerate(images):
        height, width = image.labels.shape
        size = {"width": str(width), "height": str(height)}
        element = ET.SubElement(root, "image", {"id": str(number), "name": image.name, **size})
        for c, mask in pieces(image.labels):
            x0, y0, x1, y1 = tightest(mask)
            place = {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0, "z_order": 0}
            drawn = {"label": class_names[c], "source": "auto", "occluded": "0"}
            runs = {"rle": ", ".join(map(str, run_lengths(mask[y0:y1, x0:x1])))}
            ET.SubElement(element, "mask", {**drawn, **runs, **{key: str(value) for key, value in place.items()}})
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    write_new(folder / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


def run_lengths(mask: np.ndarray) -> list[int]:
    """Numbers of pixels outside and inside a mask, bool [H, W], in turn, row by row, beginning with those outside.

    Examples
    --------
    >>> run_lengths(np.array([[False, True, True], [True, False, False]]))
    [1, 3, 2]
    >>> run_lengths(np.array([[True, False]]))
    [0, 1, 1]
    """
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths
