"""Whole files or none: everything is written beside its place and renamed, as long as what it is made from stands.

A job whose workflow was killed goes on, and may end when a newer run has other settings or has made the file anew. So a
step says with `only_while` what it is made from, and nothing is renamed once that has changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from wsss_core.errors import UserError

PREFIX = ".tmp-"
LONGEST = 40
"""Characters of a file's name that end that of its temporary one; a file system takes some 255 bytes in all."""

_watched: list[Stands] = []
"""What the files that this process writes are made from."""


class Stands:
    """Files and folders as they are now.

    Parameters
    ----------
    by_content
        Small files, compared by their content.
    others
        What may not change either: files are told by size and time of change, and folders, which may get new files, by
        being the same one. What is not there yet may appear, but not in place of a file that is to be written.
    """

    def __init__(self, by_content: Iterable[Path], others: Iterable[Path]) -> None:
        self._contents = {path: _content(path) for path in map(_key, by_content)}
        self._stamps = {path: _stamp(path) for path in map(_key, others)}

    def require(self, target: Path) -> None:
        """Raise UserError if anything changed, but for what this process itself wrote; `target` is to be written."""
        changed = [path for path, content in self._contents.items() if _content(path) != content]
        watched = (path for path, stamp in self._stamps.items() if stamp is not None or path == _key(target))
        changed += [path for path in watched if _stamp(path) != self._stamps[path]]
        if changed:
            raise UserError(
                f"{target}: is not written, since {changed[0]} changed while this was computed; another run is or was "
                "at work on the same files"
            )

    def wrote(self, target: Path) -> None:
        """Take a path as this process has left it."""
        if _key(target) in self._stamps:
            self._stamps[_key(target)] = _stamp(target)


@contextmanager
def only_while(stands: Stands) -> Iterator[None]:
    """Rename no file or folder written in the block into its place once something of `stands` has changed."""
    _watched.append(stands)
    try:
        yield
    finally:
        _watched.remove(stands)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Temporary path in the same folder, renamed to `path` when the block ends without an error.

    Raises
    ------
    UserError
        If what the file is made from changed meanwhile (`only_while`).

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        _require(path)
        os.replace(temporary, path)
        _wrote(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Temporary folder, renamed to `path` (replacing what was there) when the block ends without an error; errors as
    for `atomic_path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        _require(path)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        _wrote(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _temporary(path: Path) -> Path:
    """A name in the same folder that no other process has, of whatever machine."""
    _sweep(path.parent)
    return path.with_name(f"{PREFIX}{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name[-LONGEST:]}")


@cache
def _sweep(folder: Path) -> None:
    """Remove, once a process, what ended processes of this machine have left in a folder."""
    for left in folder.glob(f"{PREFIX}{_host()}-*"):
        process = left.name.removeprefix(f"{PREFIX}{_host()}-").partition("-")[0]
        if process.isdigit() and not _runs(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@cache
def _host() -> str:
    return re.sub(r"\W", "", socket.gethostname())[:20] or "host"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _require(target: Path) -> None:
    if not any(part.startswith(PREFIX) for part in target.parent.parts):  # what lies in a temporary folder goes with it
        for stands in _watched:
            stands.require(target)


def _wrote(target: Path) -> None:
    for stands in _watched:
        stands.wrote(target)


def _key(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _content(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return (state.st_ino,) if stat.S_ISDIR(state.st_mode) else (state.st_ino, state.st_size, state.st_mtime_ns)
