"""Files out of tar and zip archives, which nobody here has made.

What a data set does not ask for by name is passed over. Of what it asks for, only plain files are taken: a name that
leads out of the folder, a link or a device ends the unpacking, and so does more content than the archive is known to
have. A file that is there already is left as it is if it is the same, and told if it is another.
"""

from __future__ import annotations

import logging
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from wsss_core.errors import UserError, whole
from wsss_core.pace import Clock
from wsss_core.prepare.archives import CHUNK, MEGA, Archive
from wsss_core.store.atomic import atomic_path

log = logging.getLogger(__name__)

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
"""What damaged archives make their readers raise."""

LARGEST = 1 << 30
"""Bytes of a single file; the largest known, COCO's annotations of train, has a third."""


@dataclass(frozen=True)
class Member:
    """A plain file in an archive.

    Attributes
    ----------
    archive
        Its archive.
    name
        Its path there.
    size
        Bytes, as the archive states them.
    content
        Opened for reading.
    """

    archive: Path
    name: str
    size: int
    content: IO[bytes]

    def chunks(self) -> Iterator[bytes]:
        """All of it, which is as long as was stated, in pieces.

        Raises
        ------
        UserError
            If it is not, or cannot be unpacked.
        """
        left = self.size
        try:
            while chunk := self.content.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
        except DAMAGE as error:
            raise UserError(f"{self.archive}: {self.name} is damaged ({whole(error)})") from error
        if left:
            raise UserError(f"{self.archive}: {self.name} is not as long as it is stated to be")


def members(path: Path, archive: Archive, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The plain files of an archive, tar or zip, that are wanted by their names.

    Raises
    ------
    UserError
        If the archive is damaged, or something wanted is no plain file, lies outside or is too large.
    """
    total = 0
    try:
        for member in _zipped(path, wanted) if zipfile.is_zipfile(path) else _tarred(path, wanted):
            total += member.size
            if member.size > LARGEST or total > archive.unpacks:
                raise UserError(f"{path}: {member.name} is larger than anything that the published archive holds")
            yield member
    except DAMAGE as error:
        raise UserError(f"{path}: is damaged ({whole(error)})") from error


def _tarred(path: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    size = path.stat().st_size
    with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*", bufsize=CHUNK) as opened:
        clock = Clock("MB", size // MEGA)
        for entry in opened:
            if pace := clock.pace(raw.tell() // MEGA):
                log.info("%s unpacked: %s", path.name, pace)
            if entry.isdir() or not wanted(entry.name):
                continue
            _require_inside(path, entry.name)
            try:
                tarfile.data_filter(entry, str(path.parent))
            except tarfile.FilterError as error:
                raise UserError(f"{path}: {error}; nothing more is unpacked") from error
            content = opened.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise UserError(f"{path}: {entry.name} is no plain file; nothing more is unpacked")
            yield Member(path, entry.name, entry.size, content)


def _zipped(path: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as opened:
        entries = [entry for entry in opened.infolist() if not entry.is_dir() and wanted(entry.filename)]
        clock = Clock("file", len(entries))
        for number, entry in enumerate(entries):
            if pace := clock.pace(number):
                log.info("%s unpacked: %s", path.name, pace)
            _require_inside(path, entry.filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
                raise UserError(f"{path}: {entry.filename} is no plain file; nothing more is unpacked")
            with opened.open(entry) as content:
                yield Member(path, entry.filename, entry.file_size, content)


def _require_inside(path: Path, name: str) -> None:
    """Raise UserError if a name is not that of a file below the folder that an archive is unpacked in."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in name:
        raise UserError(f"{path}: {name!r} leads out of the folder; nothing more is unpacked")


def put(path: Path, member: Member) -> bool:
    """Write a file, unless the same one is there.

    Returns
    -------
    Whether it was written.

    Raises
    ------
    UserError
        If another file is there, or a link: it is left as it is.
    """
    if os.path.lexists(path):
        if not _same(path, member):
            raise UserError(f"{path}: is left as it is, since it is not the published file; move it away")
        return False
    with atomic_path(path) as temporary, open(temporary, "wb") as target:
        for chunk in member.chunks():
            target.write(chunk)
    return True


def _same(path: Path, member: Member) -> bool:
    """Whether a plain file holds the bytes of a member."""
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode) or state.st_size != member.size:
        return False
    with open(path, "rb") as handle:
        return all(handle.read(len(chunk)) == chunk for chunk in member.chunks())
