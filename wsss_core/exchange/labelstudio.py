"""Label masks as tasks of Label Studio: a brush mask for each class of a photo, as predictions that people can correct.

``labels.xml`` is the labelling interface that the tasks need. A photo is looked for below the folder that the server
offers as local files (``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``), as ``/data/local-files/?d=NAME``.

A brush mask is the opacity of RGBA pixels, 0 or 255, all four values alike, as run lengths in a stream of bits: the
number of values in 32 bits; the size of a value, less one, in 5; four sizes of lengths, less one, in 4 each; and for
each run a 1 for one value repeated, the number of its length's size in 2 bits, its length less one, and its value.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from wsss_core.exchange import Labelled, write_new
from wsss_core.store.masks import voc_palette

VALUE_BITS = 8
LENGTH_BITS = (3, 4, 8, 16)


def write(folder: Path, images: Iterable[Labelled], class_names: Sequence[str]) -> None:
    """Write ``tasks.json`` and ``labels.xml``."""
    view = ET.Element("View")
    ET.SubElement(view, "Image", {"name": "image", "value": "$image", "zoom": "true"})
    brushes = ET.SubElement(view, "BrushLabels", {"name": "labels", "toName": "image"})
    for name, colour in zip(class_names, voc_palette()[1:].tolist(), strict=False):
        ET.SubElement(brushes, "Label", {"value": name, "background": "#{:02x}{:02x}{:02x}".format(*colour)})
    ET.indent(view)
    write_new(folder / "labels.xml", ET.tostring(view, encoding="unicode") + "\n")
    tasks = [_task(image, class_names) for image in images]
    write_new(folder / "tasks.json", json.dumps(tasks, ensure_ascii=False) + "\n")


def _task(image: Labelled, class_names: Sequence[str]) -> dict:
    height, width = image.labels.shape
    results = [
        {
            "id": f"class-{c}",
            "type": "brushlabels",
            "from_name": "labels",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_code(image.labels == c + 1), "brushlabels": [class_names[c]]},
        }
        for c in image.present
    ]
    photo = f"/data/local-files/?d={quote(image.name)}"
    return {"data": {"image": photo}, "predictions": [{"model_version": "wsss", "result": results}]}


def brush_code(mask: np.ndarray) -> list[int]:
    """The bytes of a mask, bool [H, W], as a brush mask.

    Examples
    --------
    >>> brush_code(np.array([[False, True]]))
    [0, 0, 0, 8, 57, 27, 252, 96, 17, 255, 128]
    """
    flat = np.repeat(mask.ravel(), 4)
    changes = np.flatnonzero(np.diff(flat)) + 1
    starts = np.array([0, *changes])
    lengths = np.diff([*starts, flat.size])
    bits = [f"{flat.size:032b}", f"{VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in LENGTH_BITS)]
    for value, length in zip(flat[starts].tolist(), lengths.tolist(), strict=True):
        while length:
            part = min(length, 2 ** LENGTH_BITS[-1])
            number = next(k for k, size in enumerate(LENGTH_BITS) if part <= 2**size)
            bits.append(f"1{number:02b}{part - 1:0{LENGTH_BITS[number]}b}{255 * value:0{VALUE_BITS}b}")
            length -= part
    stream = np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")
    return np.packbits(stream).tolist()
