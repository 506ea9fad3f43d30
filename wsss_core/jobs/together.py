"""Images that pass through a network together, and reading them ahead of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch


class Sized(Protocol):
    """What stands for an image whose size is known."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        ...


Record = TypeVar("Record", bound=Sized)
Read = TypeVar("Read")

MOST_PIXELS = 2**24
"""Pixels of views in one forward pass on a GPU: eleven pairs of 1000x750. More keep no GPU busier."""

BYTES_PER_PIXEL = 2048
"""Memory of a forward pass for each pixel of its views: room for eight maps of 64 float32 channels at full resolution.
A ResNet has so many at half resolution at most."""

AHEAD = 4
"""Images that are decoded before they are needed, at least."""


def view_pixels(device: torch.device) -> int:
    """Most pixels of views in one forward pass, for half of a GPU's free memory; 0 on a CPU, for no batches."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST_PIXELS, free // 2 // BYTES_PER_PIXEL))


def batches(records: Sequence[Record], pixels: int) -> list[list[Record]]:
    """Records in lists of one image size, of at most `pixels` pixels or of one image; each alone if `pixels` is 0.

    Sizes come in the order in which they first occur, and the images of a size in theirs.
    """
    if not pixels:
        return [[record] for record in records]
    by_size: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        by_size.setdefault(record.size, []).append(record)
    found = []
    for (height, width), same in by_size.items():
        count = max(1, pixels // (height * width))
        found += [same[start : start + count] for start in range(0, len(same), count)]
    return found


def read_ahead(
    groups: Iterable[list[Record]], read: Callable[[Record], Read], threads: int = 1
) -> Iterator[tuple[list[Record], list[Read]]]:
    """Each group with what was read of its images, in order, while threads read the groups that follow it.

    At least `AHEAD` images, and no more groups than hold so many, wait in memory. An error of `read` is
    raised in its turn.
    """
    pool = ThreadPoolExecutor(max(1, threads))
    waiting: deque = deque()
    try:
        for group in groups:
            waiting.append((group, [pool.submit(read, record) for record in group]))
            while sum(len(later) for later, _ in waiting) - len(waiting[0][0]) >= AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(group: list[Record], futures: list) -> tuple[list[Record], list]:
    return group, [future.result() for future in futures]
