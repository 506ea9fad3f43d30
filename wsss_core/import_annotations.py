"""Annotations of other programs as files that a run reads: what `wsss import` does."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from wsss_core.errors import UserError
from wsss_core.exchange import write_names, write_new
from wsss_core.exchange.incoming import Annotations, by_stem, read_annotations
from wsss_core.store.masks import write_mask


def import_annotations(path: Path, form: str, out: Path, class_names: Sequence[str] | None) -> list[str]:
    """Write tags, masks and boxes of annotations that another program has made.

    Parameters
    ----------
    path, form, class_names
        As `wsss_core.exchange.incoming.read_annotations` takes them.
    out
        Folder to write into: ``classes.txt``; ``labels.csv`` with the tags of every image; ``masks/NAME.png`` of images
        with masks or polygons; ``boxes.json``, as COCO's, if there are boxes.

    Returns
    -------
    What was written, a line each.

    Raises
    ------
    UserError
        If Datumaro is missing or cannot read the file, it holds nothing, a shape is of another class, or a file that
        is there would be replaced.
    """
    found = read_annotations(path, form, class_names)
    if not any(image.classes for image in found.images):
        raise UserError(f"{path}: none of its {len(found.images)} images has a tag, box, polygon or mask")
    write_names(out, found.class_names)
    write_new(out / "labels.csv", _tags(found))
    lines = [f"tags of {len(found.images)} images in {out / 'labels.csv'}"]
    masked = 0
    for name, image in by_stem(found.images):
        if image.labels is not None:
            write_mask(out / "masks" / f"{name}.png", image.labels)
            masked += 1
    if masked:
        lines.append(f"{masked} masks in {out / 'masks'}")
    boxes = sum(len(image.boxes) for image in found.images)
    if boxes:
        write_new(out / "boxes.json", json.dumps(_boxes(found), ensure_ascii=False) + "\n")
        lines.append(f"{boxes} boxes in {out / 'boxes.json'}")
    if found.left_out:
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(found.left_out.items()))
        lines.append(f"left out, as nothing here takes them: {shown}")
    return lines


def _tags(found: Annotations) -> str:
    """A label a row, so that names may hold any separator; an image without labels has a row with an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label"])
    for image in found.images:
        names = [found.class_names[c] for c in image.classes] or [""]
        writer.writerows([image.name, name] for name in names)
    return text.getvalue()


def _boxes(found: Annotations) -> dict:
    images = [{"id": number, "file_name": image.name} for number, image in enumerate(found.images, 1)]
    annotations = [
        {
            "id": 0,
            "image_id": number,
            "category_id": c + 1,
            "bbox": [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)],
            "area": round((x1 - x0) * (y1 - y0), 2),
            "iscrowd": 0,
        }
        for number, image in enumerate(found.images, 1)
        for c, x0, y0, x1, y1 in image.boxes
    ]
    numbered = [annotation | {"id": number} for number, annotation in enumerate(annotations, 1)]
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(found.class_names)]
    return {"images": images, "categories": categories, "annotations": numbered}
