"""What the objects of an image were attributed to: a small map an object, in HDF5 shards.

A group per image holds the arrays of `Attributions`, and a float32 dataset ``map_<number>`` for each object.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_core.store.parts import read_array, read_size, read_statistics, require_classes
from wsss_core.store.shards import RecordKind, RecordStore

if TYPE_CHECKING:
    import torch

LARGE = 2**12
"""Maps of more numbers are compressed."""


@dataclass(frozen=True)
class Attributions:
    """Of each of the n objects of an image, which pixels a detector needs to find it.

    Attributes
    ----------
    size
        (H, W) of the image in pixels.
    classes
        Class of each object, 0-based, int64 [n].
    boxes
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive, float32 [n, 4].
    maps
        For each object a map in [0, 1], float32 [gh, gw], on a grid of its own, whose corner cells lie on the corner
        pixels of the image.
    found
        Whether there is an attribution, bool [n]; where there is none the map is 0.
    statistics
        What the method recorded about this image (numbers, strings or lists of numbers).
    """

    size: tuple[int, int]
    classes: np.ndarray
    boxes: np.ndarray
    maps: tuple[np.ndarray, ...]
    found: np.ndarray
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def none(cls, size: tuple[int, int]) -> Attributions:
        """Of an image (H, W) without objects."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(size, nothing, np.zeros((0, 4), dtype=np.float32), (), nothing.astype(bool))

    def full(self, number: int) -> torch.Tensor:
        """The map of an object at the size of the image, float32 [H, W]: bilinear, corner cells on corner pixels."""
        import torch
        import torch.nn.functional as F

        grid = torch.from_numpy(self.maps[number])[None, None]
        return F.interpolate(grid, self.size, mode="bilinear", align_corners=True)[0, 0]


def _write(group: Any, one: Attributions) -> None:
    group.attrs["size"] = np.asarray(one.size, dtype=np.int64)
    group.attrs["statistics"] = json.dumps(dict(one.statistics), sort_keys=True)
    for name in ("classes", "boxes", "found"):
        group.create_dataset(name, data=getattr(one, name))
    for number, values in enumerate(one.maps):
        compressed = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if values.size > LARGE else {}
        group.create_dataset(f"map_{number}", data=values.astype(np.float32), **compressed)


def _read(group: Any) -> Attributions:
    n = len(group["classes"])
    return Attributions(
        size=read_size(group),
        classes=require_classes(read_array(group, "classes", "i", (n,))),
        boxes=read_array(group, "boxes", "f", (n, 4)),
        maps=tuple(read_array(group, f"map_{number}", "f", (None, None)) for number in range(n)),
        found=read_array(group, "found", "b", (n,)),
        statistics=read_statistics(group),
    )


ATTRIBUTIONS = RecordKind("attributions", _write, _read)


class AttributionStore(RecordStore[Attributions]):
    """Read-only mapping from image id to the `Attributions` in an HDF5 file; errors as for `RecordStore`."""

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path, ATTRIBUTIONS)
