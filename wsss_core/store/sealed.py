"""Files that end with the digest of what stands before it, so that a damaged one is told before anything reads it.

Neither HDF5 nor torch looks beyond its own end, so a sealed file is one of theirs still, for every other program too.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from wsss_core.errors import UserError

MARK = b"\nwsss sha256 "
LENGTH = len(MARK) + 64
"""Bytes of a seal: the mark, and the digest in hexadecimal digits."""

PIECE = 2**20


def seal(path: Path) -> None:
    """Append the digest of a file to it.

    Examples
    --------
    >>> _ = Path("some.h5").write_bytes(b"content")
    >>> seal(Path("some.h5"))
    >>> is_whole(Path("some.h5"))
    True
    >>> _ = Path("some.h5").write_bytes(Path("some.h5").read_bytes().replace(b"con", b"kon"))
    >>> is_whole(Path("some.h5"))
    False
    """
    with open(path, "r+b") as file:
        digest = _digest(file, os.fstat(file.fileno()).st_size)
        file.seek(0, os.SEEK_END)
        file.write(MARK + digest)


def is_whole(path: str | os.PathLike) -> bool:
    """Whether a file is as it was when it was sealed; errors of reading are raised."""
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size - LENGTH
        if length < 0:
            return False
        digest = _digest(file, length)
        return file.read() == MARK + digest


def require_whole(path: str | os.PathLike) -> None:
    """Raise UserError if a file is missing, was not sealed by this program, or changed since."""
    try:
        whole = is_whole(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not whole:
        raise UserError(
            f"{path}: is damaged, or not a file of this program: its digest is another; delete it and run again"
        )


def require_as_sealed(path: str | os.PathLike) -> None:
    """Raise UserError if a file bears a seal and has changed since; files of other programs bear none."""
    if seal_of(path):
        require_whole(path)


def seal_of(path: str | os.PathLike) -> str:
    """The digest that a file ends with, unchecked; "" if it bears none."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LENGTH))
        end = file.read()
    return end.removeprefix(MARK).decode("ascii", "replace") if end.startswith(MARK) else ""


def _digest(file: BinaryIO, length: int) -> bytes:
    """SHA-256 of the first bytes of a file, in hexadecimal digits; the file is left behind them."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0:
        piece = file.read(min(PIECE, length))
        if not piece:
            break
        digest.update(piece)
        length -= len(piece)
    return digest.hexdigest().encode()
