"""Posteriors of dense CRFs at full resolution, in HDF5 shards.

A group per image holds one uint8 dataset ``posteriors`` [A, K + 1, H, W], background first, in steps of 1/255 and
compressed (the posteriors are nearly 0 or 1 almost everywhere), and the attributes ``id``, ``classes`` and
``fingerprint``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_core.store.parts import read_array, read_classes
from wsss_core.store.shards import RecordKind


@dataclass(frozen=True)
class Posteriors:
    """Posteriors of one image.

    Attributes
    ----------
    classes
        The K present classes, 0-based.
    values
        uint8 [A, K + 1, H, W] of A passes, background first, 255 standing for 1.
    """

    classes: tuple[int, ...]
    values: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""
        return self.values.shape[2:]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.values.nbytes


def _write(group: Any, posteriors: Posteriors) -> None:
    """Write one image's posteriors into an HDF5 group."""
    group.attrs["classes"] = np.asarray(posteriors.classes, dtype=np.int64)
    chunks = (1, 1, *posteriors.values.shape[2:])
    group.create_dataset("posteriors", data=posteriors.values, chunks=chunks, compression="gzip", compression_opts=4)


def _read(group: Any) -> Posteriors:
    """Read one image's posteriors from an HDF5 group."""
    classes = read_classes(group)
    return Posteriors(classes, read_array(group, "posteriors", "u", (None, len(classes) + 1, None, None)))


POSTERIORS = RecordKind("posteriors", _write, _read)
