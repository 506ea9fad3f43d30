"""Masks of single objects as COCO's JSON, which annotation tools and pycocotools read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wsss_core.data.boxes import tightest
from wsss_core.store.instances import Instances


def coco_objects(found: Iterable[tuple[str, Instances]], class_names: Sequence[str]) -> dict[str, Any]:
    """The objects of images in COCO's form.

    Parameters
    ----------
    found
        File name of each image, and its objects. Those without a pixel are left out.

    Returns
    -------
    What is written as JSON: ``images``, ``categories`` (class c has the id c + 1) and ``annotations``, each with its
    tightest ``bbox``, ``area``, ``iscrowd``, ``score``, and its mask as a compressed run-length code.

    Examples
    --------
    >>> masks = np.zeros((1, 4, 6), dtype=bool)
    >>> masks[0, 1:3, 2:5] = True
    >>> made = coco_objects([("a.jpg", Instances.of((4, 6), [1], [[2, 1, 5, 3]], masks, [0.5]))], ["cat", "dog"])
    >>> made["annotations"][0]["bbox"], made["annotations"][0]["category_id"], made["annotations"][0]["score"]
    ([2, 1, 3, 2], 2, 0.5)
    """
    from pycocotools import mask as coco_mask

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, objects in found:
        height, width = objects.size
        images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
        for number in np.flatnonzero(objects.masks.any((1, 2))):
            mask = objects.masks[number]
            x0, y0, x1, y1 = tightest(mask)
            counts: Any = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": int(objects.classes[number]) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(mask.sum()),
                    "iscrowd": int(objects.crowd[number]),
                    "score": round(float(objects.scores[number]), 6),
                    "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
                }
            )
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(class_names)]
    return {"images": images, "categories": categories, "annotations": annotations}
