"""What a run's folder takes on the disk, and what deleting a part of it frees."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file, by what tells it from others; links to it under other names are the same file.

    Attributes
    ----------
    names
        How many names it has on its disk.
    """

    path: Path
    size: int
    key: tuple[int, int]
    names: int


def files(folder: Path) -> Iterator[File]:
    """The files of a folder and of those below it, in order; symbolic links are not followed and not listed."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            state = entry.stat(follow_symlinks=False)
            yield File(Path(entry.path), state.st_size, (state.st_dev, state.st_ino), state.st_nlink)


def taken(listed: Iterable[File]) -> int:
    """Bytes of files, each counted once."""
    return sum({file.key: file.size for file in listed}.values())


def freed(listed: Iterable[File]) -> int:
    """Bytes that are free when these files are deleted: those of files whose every name is among them."""
    listed = list(listed)
    names = Counter(file.key for file in listed)
    return taken(file for file in listed if names[file.key] >= file.names)


def in_bytes(size: int) -> str:
    """A number of bytes in words.

    Examples
    --------
    >>> in_bytes(512), in_bytes(2_340_000), in_bytes(81_000_000_000)
    ('512 bytes', '2.3 MB', '81.0 GB')
    """
    for unit, words in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {words}"
    return f"{size} bytes"
