"""Seed maps: a few native-resolution maps an image, in HDF5 shards.

One file holds the images of one shard. A group per image (named by `group_name`) holds one float32 dataset
``scale_<s>`` of shape [K, h_s, w_s] per scale, and the attributes ``id``, ``classes``, ``size``, ``stride`` and
``fingerprint``. The stride-4 map, the full-resolution map and any threshold are derived when read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_core.constants import EPSILON
from wsss_core.store.parts import read_array, read_classes, read_size, read_statistics, read_stride
from wsss_core.store.shards import RecordKind, RecordStore, damage_told

if TYPE_CHECKING:
    import torch


USUAL_STRIDE = 16
"""Of the classifiers of the IRN family."""

LARGE = 2**14
"""Maps of more numbers are compressed: those at full resolution."""


@dataclass(frozen=True)
class SeedMaps:
    """Class activation maps of one image, not normalised.

    Attributes
    ----------
    classes
        The K present classes, 0-based.
    maps
        Scale to tensor [K, h_s, w_s], float32, non-negative.
    size
        (H, W) of the image in pixels.
    statistics
        What the method recorded about this image (numbers, strings or lists of numbers).
    stride
        Pixels between the cells of a map: it covers the view up to the next multiple of them.
    """

    classes: tuple[int, ...]
    maps: Mapping[float, torch.Tensor]
    size: tuple[int, int]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    stride: int = USUAL_STRIDE

    def strided(self) -> torch.Tensor:
        """Sum over scales at stride 4, [K, (H-1)//4+1, (W-1)//4+1], each class divided by its maximum + 1e-5.

        Maps of the stride 16 are resized to just this, as in the published IRN code; others to what they cover, and
        cropped.
        """
        rows, columns = ((side - 1) // 4 + 1 for side in self.size)
        if self.stride == USUAL_STRIDE:
            return self._combined(rows, columns, rows, columns)
        covered = (self._covered(side) / 4 for side in self.size)
        covered_rows, covered_columns = (max(1, round(cells)) for cells in covered)
        return self._combined(covered_rows, covered_columns, rows, columns)

    def full(self) -> torch.Tensor:
        """Sum over scales at full resolution, [K, H, W], each class divided by its maximum + 1e-5.

        The maps are resized to the size rounded up to a multiple of their stride, which is what they cover, and
        cropped; the maximum is taken after the crop, as in the published IRN code, whose stride is always 16.
        """
        height, width = self.size
        return self._combined(self._covered(height), self._covered(width), height, width)

    def cpu(self) -> SeedMaps:
        """The same, with maps in the memory of the CPU."""
        return replace(self, maps={scale: values.detach().cpu() for scale, values in self.maps.items()})

    def _covered(self, side: int) -> int:
        """Pixels of the image's side, up to the next multiple of the stride."""
        return -(-side // self.stride) * self.stride

    def _combined(self, rows: int, columns: int, height: int, width: int) -> torch.Tensor:
        import torch
        import torch.nn.functional as F

        if not self.classes:
            return torch.zeros(0, min(rows, height), min(columns, width))
        enlarged = (
            F.interpolate(maps[None], (rows, columns), mode="bilinear", align_corners=False)[0]
            for maps in self.maps.values()
        )
        total = sum(enlarged, torch.zeros(()))[:, :height, :width]
        return total / (total.amax((1, 2), keepdim=True) + EPSILON)


def _write(group: Any, maps: SeedMaps) -> None:
    """Write one image's maps into an HDF5 group."""
    group.attrs["classes"] = np.asarray(maps.classes, dtype=np.int64)
    group.attrs["size"] = np.asarray(maps.size, dtype=np.int64)
    group.attrs["stride"] = maps.stride
    group.attrs["statistics"] = json.dumps(dict(maps.statistics), sort_keys=True)
    for scale, values in maps.cpu().maps.items():
        data = values.numpy().astype(np.float32)
        compressed = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if data.size > LARGE else {}
        group.create_dataset(f"scale_{scale}", data=data, **compressed)


def _read(group: Any) -> SeedMaps:
    """Read one image's maps from an HDF5 group."""
    import torch

    classes = read_classes(group)
    names = [name for name in group if name.startswith("scale_")]
    shape = (len(classes), None, None)
    if classes and not names:
        raise ValueError("there are no maps")
    return SeedMaps(
        classes=classes,
        maps={
            float(name.removeprefix("scale_")): torch.from_numpy(read_array(group, name, "f", shape)) for name in names
        },
        size=read_size(group),
        statistics=read_statistics(group),
        stride=read_stride(group) if "stride" in group.attrs else USUAL_STRIDE,  # files of others may not say
    )


SEEDS = RecordKind("seeds", _write, _read)


class SeedStore(RecordStore[SeedMaps]):
    """Read-only mapping from image id to the `SeedMaps` in an HDF5 file; errors as for `RecordStore`.

    Examples
    --------
    >>> from pathlib import Path
    >>> import torch
    >>> from wsss_core.store import shards
    >>> maps = {"photo": SeedMaps((2,), {1.0: torch.ones(1, 3, 4)}, (48, 64))}
    >>> _ = shards.build(Path("shard.h5"), SEEDS, {"photo": "digest"}, maps.get, {}, cache=Path("cache.h5"))
    >>> store = SeedStore("shard.h5")
    >>> list(store), store["photo"].classes, store["photo"].strided().shape
    (['photo'], (2,), torch.Size([1, 12, 16]))
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path, SEEDS)

    def statistics(self, image_id: str) -> Mapping[str, Any]:
        """What the method recorded about an image, read without its maps."""
        group = self.group(image_id)
        with damage_told(f"{group.file.filename}: image {image_id!r}"):
            return read_statistics(group)
