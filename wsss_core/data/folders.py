"""What lies in a folder: one walk for the readers, and for the digests by which changes are noticed."""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A file in a folder, or what could not be read there.

    Attributes
    ----------
    name
        Path from the folder, with "/" between its parts.
    size
        Bytes.
    changed
        Time of the last change, nanoseconds.
    error
        Why the entry cannot be read, or "".
    """

    name: str
    size: int = 0
    changed: int = 0
    error: str = ""


def walk(folder: Path) -> list[Entry]:
    """All files below a folder, in order of their names; nothing that begins with a dot.

    Links to folders are followed, each folder once by its real path: loops end, and what lies in the folder itself
    comes before what a link leads to. What cannot be read (a link that leads nowhere, a folder without permission, a
    pipe) is an entry with an error, and the rest goes on.

    Examples
    --------
    >>> folder = Path("photos")
    >>> folder.mkdir()
    >>> _ = (folder / "a.jpg").write_text("…")
    >>> (folder / "b.jpg").symlink_to("nowhere")
    >>> (folder / "again").symlink_to(folder.resolve())
    >>> [(entry.name, entry.error) for entry in walk(folder)]
    [('a.jpg', ''), ('b.jpg', 'No such file or directory')]
    """
    entries: list[Entry] = []
    seen: set[str] = set()
    folders, links = deque([("", str(folder))]), deque[tuple[str, str]]()
    while folders or links:
        prefix, current = folders.popleft() if folders else links.popleft()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(current) as found:
                children = [child for child in found if not child.name.startswith(".")]
        except OSError as error:
            entries.append(Entry(prefix.rstrip("/") or ".", error=_reason(error)))
            continue
        for child in sorted(children, key=lambda child: child.name):
            try:
                if child.is_dir():
                    (links if child.is_symlink() else folders).append((f"{prefix}{child.name}/", child.path))
                else:
                    entries.append(_file(f"{prefix}{child.name}", child.stat()))
            except OSError as error:
                entries.append(Entry(f"{prefix}{child.name}", error=_reason(error)))
    return sorted(entries, key=lambda entry: entry.name)


def _file(name: str, state: os.stat_result) -> Entry:
    if not stat.S_ISREG(state.st_mode):
        return Entry(name, error="is neither a file nor a folder")
    return Entry(name, state.st_size, state.st_mtime_ns)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
