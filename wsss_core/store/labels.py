"""Label maps in HDF5 shards, for labels that are an intermediate result rather than masks to look at.

A group per image holds one uint8 dataset ``labels`` [H, W], compressed, and the attributes ``id`` and ``fingerprint``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_core.store.parts import read_array
from wsss_core.store.shards import RecordKind


@dataclass(frozen=True)
class LabelMap:
    """Labels of one image.

    Attributes
    ----------
    values
        uint8 [H, W]: 0 is background, c + 1 the class c, 255 undecided.
    """

    values: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Bytes that the labels take in memory."""
        return self.values.nbytes


def _write(group: Any, labels: LabelMap) -> None:
    """Write one image's labels into an HDF5 group."""
    values = labels.values
    if values.dtype != np.uint8:
        raise ValueError(f"labels must be uint8, got {values.dtype}")
    group.create_dataset("labels", data=values, chunks=values.shape, compression="gzip", compression_opts=4)


def _read(group: Any) -> LabelMap:
    """Read one image's labels from an HDF5 group."""
    return LabelMap(read_array(group, "labels", "u", (None, None)))


LABELS = RecordKind("labels", _write, _read)
