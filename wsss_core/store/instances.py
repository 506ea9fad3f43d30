"""Masks of single objects: the instances of an image, in HDF5 shards.

A group per image holds the arrays of `Instances`; masks are packed to bits and compressed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsss_core.store.parts import read_array, read_size, read_statistics, require_classes
from wsss_core.store.shards import RecordKind, RecordStore


@dataclass(frozen=True)
class Instances:
    """The n objects of one image: true ones, pseudo-masks, or a network's predictions.

    Attributes
    ----------
    size
        (H, W) of the image in pixels.
    classes
        Class of each object, 0-based, int64 [n].
    boxes
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive, float32 [n, 4].
    masks
        Pixels that belong to the object, bool [n, H, W].
    scores
        Confidence in [0, 1], float32 [n]; 1 where nothing else is known.
    ignored
        Pixels of which it is not said whether they belong to the object, bool [n, H, W], disjoint from `masks`.
    crowd
        Whether the entry stands for a group of objects that were not told apart, bool [n].
    statistics
        What the method recorded about this image (numbers, strings or lists of numbers).
    """

    size: tuple[int, int]
    classes: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    scores: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        classes: Any = (),
        boxes: Any = (),
        masks: Any = (),
        scores: Any = None,
        ignored: Any = None,
        crowd: Any = None,
        statistics: Mapping[str, Any] | None = None,
    ) -> Instances:
        """The objects from anything that NumPy reads: scores of 1, nothing ignored and no crowd where not given.

        Raises
        ------
        ValueError
            If the arrays do not tell of the same number of objects, or the masks are not of the image's size.

        Examples
        --------
        >>> mask = np.zeros((1, 4, 6), dtype=bool)
        >>> mask[0, 1:3, 2:5] = True
        >>> found = Instances.of((4, 6), [2], [[2, 1, 5, 3]], mask)
        >>> len(found), found.scores.tolist(), int(found.masks.sum())
        (1, [1.0], 6)
        """
        n = len(classes)
        planes = (n, *size)
        made = cls(
            size=size,
            classes=np.asarray(classes, dtype=np.int64).reshape(n),
            boxes=np.asarray(boxes, dtype=np.float32).reshape(n, 4),
            masks=np.zeros(planes, dtype=bool) if n == 0 else np.asarray(masks, dtype=bool),
            scores=np.ones(n, dtype=np.float32) if scores is None else np.asarray(scores, dtype=np.float32),
            ignored=np.zeros(planes, dtype=bool) if ignored is None or n == 0 else np.asarray(ignored, dtype=bool),
            crowd=np.zeros(n, dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool),
            statistics={} if statistics is None else statistics,
        )
        if made.masks.shape != planes or made.ignored.shape != planes:
            raise ValueError(f"masks of {n} objects must be {list(planes)}, not {list(made.masks.shape)}")
        if made.scores.shape != (n,) or made.crowd.shape != (n,):
            raise ValueError(f"scores and crowd must tell of {n} objects")
        return made


def _write(group: Any, found: Instances) -> None:
    group.attrs["size"] = np.asarray(found.size, dtype=np.int64)
    group.attrs["statistics"] = json.dumps(dict(found.statistics), sort_keys=True)
    for name in ("classes", "boxes", "scores", "crowd"):
        group.create_dataset(name, data=getattr(found, name))
    for name in ("masks", "ignored"):
        packed = np.packbits(getattr(found, name).reshape(len(found), found.size[0] * found.size[1]), axis=1)
        compressed = {"compression": "gzip", "compression_opts": 4} if packed.size else {}
        group.create_dataset(name, data=packed, **compressed)


def _read(group: Any) -> Instances:
    height, width = size = read_size(group)
    n = len(group["classes"])
    arrays = {
        "classes": require_classes(read_array(group, "classes", "i", (n,))),
        "boxes": read_array(group, "boxes", "f", (n, 4)),
        "scores": read_array(group, "scores", "f", (n,)),
        "crowd": read_array(group, "crowd", "b", (n,)),
    }
    for name in ("masks", "ignored"):
        packed = read_array(group, name, "u", (n, -(-height * width // 8)))
        arrays[name] = np.unpackbits(packed, axis=1, count=height * width).astype(bool).reshape(n, height, width)
    return Instances(size, **arrays, statistics=read_statistics(group))


INSTANCES = RecordKind("instances", _write, _read)


class InstanceStore(RecordStore[Instances]):
    """Read-only mapping from image id to the `Instances` in an HDF5 file; errors as for `RecordStore`."""

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path, INSTANCES)
