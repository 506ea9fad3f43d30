"""Decoded images kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError


def read_record(record: ImageRecord) -> np.ndarray:
    """The image of a record, uint8 [H, W, 3]; UserError naming the image if it cannot be read."""
    try:
        return read_image(Path(record.path))
    except UserError as error:
        raise UserError(f"image {record.id!r}: {error}") from error


class DecodedImages(Sequence[np.ndarray]):
    """Images of records, uint8 [H, W, 3], decoded when first asked for, by any number of threads.

    Parameters
    ----------
    limit
        Images are kept until they fill this many bytes, over all loader processes; further ones are decoded every time.
    read
        From a record to its image, an array or a tensor.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        limit: int = 2_000_000_000,
        read: Callable[[ImageRecord], Any] = read_record,
    ) -> None:
        self.records, self._read = list(records), read
        self._limit, self._used = limit, 0
        self._kept: dict[int, np.ndarray] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._kept:
            image = self._read(self.records[index])
            with self._lock:
                if self._used + image.nbytes > self._limit // _loaders():
                    return image
                if index not in self._kept:
                    self._used += image.nbytes
                    self._kept[index] = image
        return self._kept[index]


def _loaders() -> int:
    """Loader processes that this one is one of; each keeps images of its own."""
    worker = get_worker_info()
    return worker.num_workers if worker else 1
