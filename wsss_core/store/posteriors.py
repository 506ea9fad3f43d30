"""Posteriors of dense CRFs at full resolution, in HDF5 shards.

A group per image holds one uint8 dataset ``posteriors`` [A, K + 1, H, W], background first, in steps of 1/255 and
compressed (the posteriors are nearly 0 or 1 almost everywhere), and the attributes ``id``, ``classes`` and
``fingerprint``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wsss_core.store.shards import ShardFile


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


def write_record(group: Any, posteriors: Posteriors) -> None:
    """Write one image's posteriors into an HDF5 group."""
    group.attrs["classes"] = np.asarray(posteriors.classes, dtype=np.int64)
    chunks = (1, 1, *posteriors.values.shape[2:])
    group.create_dataset("posteriors", data=posteriors.values, chunks=chunks, compression="gzip", compression_opts=4)


def read_record(group: Any) -> Posteriors:
    """Read one image's posteriors from an HDF5 group."""
    return Posteriors(tuple(int(c) for c in group.attrs["classes"]), group["posteriors"][()])


class PosteriorStore(Mapping[str, Posteriors]):
    """Read-only mapping from image id to `Posteriors`; parameters and errors as for `SeedStore`."""

    def __init__(self, path: Any) -> None:
        self._file = ShardFile(path, kind="posteriors")

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Method, settings, versions and class names of this file."""
        return self._file.attrs

    def fingerprint(self, image_id: str) -> str:
        """Digest of everything that the posteriors of an image depend on."""
        return self._file.fingerprint(image_id)

    def __getitem__(self, image_id: str) -> Posteriors:
        return read_record(self._file.group(image_id))

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.ids)

    def __len__(self) -> int:
        return len(self._file.ids)
