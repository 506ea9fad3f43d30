"""Decoded images kept in memory, as far as a budget goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import get_worker_info

from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError

BUDGET = 2_000_000_000
"""Bytes of decoded images, with their labels, that are kept in the machine's memory."""

Item = TypeVar("Item")
Content = TypeVar("Content")


def read_record(record: ImageRecord) -> np.ndarray:
    """The image of a record, uint8 [H, W, 3]; UserError naming the image if it cannot be read."""
    try:
        return read_image(Path(record.path))
    except UserError as error:
        raise UserError(f"image {record.id!r}: {error}") from error


def read_image_of(record: ImageRecord, size: tuple[int, int]) -> np.ndarray:
    """The image of a record, uint8 [H, W, 3]; UserError if it cannot be read or is not of the size of its maps."""
    image = read_record(record)
    if image.shape[:2] != tuple(size):
        raise UserError(f"{record.path}: image {record.id!r} is {image.shape[:2]}, its maps are for {tuple(size)}")
    return image


class Decoded(Sequence[Content]):
    """What is read of each item, such as its image: read when first asked for, by any number of threads, and kept.

    Parameters
    ----------
    items
        What can be read, such as records of images.
    read
        From an item to its content: an array or a tensor, or a tuple of such; whatever says its ``nbytes``.
    budget
        Contents are kept until they fill this many bytes, over all loader processes together; further ones are read
        every time.
    """

    def __init__(self, items: Sequence[Item], read: Callable[[Item], Content], budget: int = BUDGET) -> None:
        self.items, self._read = list(items), read
        self._budget, self._used = budget, 0
        self._kept: dict[int, Content] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Content:  # type: ignore[override]  # one at a time, no slices
        if index not in self._kept:
            content = self._read(self.items[index])
            size = _bytes(content)
            with self._lock:
                if self._used + size > self._budget // _loaders():
                    return content
                if index not in self._kept:
                    self._used += size
                    self._kept[index] = content
        return self._kept[index]


def _bytes(content: Any) -> int:
    return sum(part.nbytes for part in (content if isinstance(content, tuple) else (content,)))


def _loaders() -> int:
    """Loader processes that this one is one of; each keeps contents of its own."""
    worker = get_worker_info()
    return worker.num_workers if worker else 1
