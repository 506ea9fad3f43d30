"""Archives by their names: found in a folder or fetched into it, and used only if their digest is the published one.

A download goes into ``<name>.part`` and goes on there after an interruption, if the server can begin at any byte
(RFC 9110, section 14); one that cannot begins it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wsss_core.errors import UserError, whole
from wsss_core.pace import Clock

log = logging.getLogger(__name__)

CHUNK = 1 << 20
MEGA = 1_000_000
ATTEMPTS = 5
"""Connections that may break one after another without a new byte."""

WAIT = 2.0
"""Seconds before the second attempt; twice as many before each further one."""

TIMEOUT = 60.0


@dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes
    ----------
    name
        What it is called in a folder of archives.
    url
        Address, http or https; "" where it cannot be fetched without an account.
    size
        Bytes; None if that is not known, of what cannot be fetched.
    digest
        Of its content, after the name of the algorithm: ``sha256:…`` or ``md5:…``.
    unpacks
        Bytes that its files may take, all together: more is no such archive.
    """

    name: str
    url: str
    size: int | None
    digest: str
    unpacks: int


class Archives:
    """A folder of archives.

    Attributes
    ----------
    folder
        May be missing, as long as nothing is fetched.
    offline
        Fetch nothing.
    """

    def __init__(self, folder: Path, offline: bool = False) -> None:
        self.folder = folder
        self.offline = offline

    def has(self, archive: Archive) -> bool:
        """Whether a file of that name is in the folder."""
        return (self.folder / archive.name).is_file()

    def get(self, archive: Archive) -> Path:
        """The file of an archive, fetched if it is missing.

        Raises
        ------
        UserError
            If it cannot be had, or is another than the published one.
        """
        path = self.folder / archive.name
        if path.is_file():
            _require(path, archive, f"{path}: is not the published {archive.name}")
            return path
        if not archive.url or archive.size is None:
            raise UserError(f"{path}: is missing; it cannot be fetched without an account")
        if self.offline:
            raise UserError(f"{path}: is missing; fetch {archive.url}, and put it there")
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{archive.name}.part")
        with _alone(part):
            _require_space(self.folder, archive.size - part.stat().st_size, archive.name)
            _fetch(archive, archive.size, part)
            try:
                _require(part, archive, f"{archive.url}: sent something else than the published {archive.name}")
            except UserError:
                part.unlink()
                raise
            os.replace(part, path)
        return path


def _require(path: Path, archive: Archive, told: str) -> None:
    """Raise UserError, beginning with `told`, if a file is not of the size and digest of an archive."""
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise UserError(f"{told}: it has {size} bytes instead of {archive.size}")
    algorithm, _, wanted = archive.digest.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    clock = Clock("MB", _mega(size))
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
            if pace := clock.pace(_mega(handle.tell())):
                log.info("%s compared: %s", archive.name, pace)
    if digest.hexdigest() != wanted:
        raise UserError(f"{told}: its {algorithm} is {digest.hexdigest()} instead of {wanted}")


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold the unfinished file of a download; UserError if another process does."""
    with open(part, "ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{part}: another process is fetching it") from None
        yield


def _require_space(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder}: {name} takes {_mega(needed)} MB more, and {_mega(free)} MB are free")


def _fetch(archive: Archive, wanted: int, part: Path) -> None:
    """Append what is missing of an archive to its unfinished file, over as many connections as it takes."""
    failures = 0
    while (had := part.stat().st_size) < wanted:
        try:
            _receive(archive, wanted, part)
            trouble = "the connection ended"
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                raise UserError(f"{archive.url}: cannot be fetched ({error}); {_by_hand(archive, part)}") from error
            trouble = whole(error)
        size = part.stat().st_size
        failures = 0 if size > had else failures + 1
        if size >= wanted:
            break
        if failures == ATTEMPTS:
            text = f"cannot be fetched ({trouble}); what came is kept, and the same command goes on from there"
            raise UserError(f"{archive.url}: {text}; {_by_hand(archive, part)}")
        log.info("%s: %s after %d of %d MB; trying again", archive.name, trouble, _mega(size), _mega(wanted))
        time.sleep(WAIT * 2 ** max(0, failures - 1))


def _receive(archive: Archive, wanted: int, part: Path) -> None:
    """Append what one connection brings, from the first missing byte on."""
    had = part.stat().st_size
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={had}-"} if had else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(part, "r+b") as handle:
        start = _start(answer) if had else 0
        if start > had:
            raise ValueError(f"the server began at byte {start} instead of {had}")
        handle.truncate(start)
        handle.seek(start)
        _copy(answer, handle, archive.name, start, wanted)


def _start(answer: http.client.HTTPResponse) -> int:
    """The byte that an answer begins with: what it says, else the first one."""
    given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(given[1]) if answer.status == 206 and given else 0


def _copy(answer: IO[bytes], handle: IO[bytes], name: str, start: int, wanted: int) -> None:
    done, clock = start, Clock("MB", _mega(wanted), _mega(start))
    while done <= wanted and (chunk := answer.read(CHUNK)):
        handle.write(chunk[: wanted + 1 - done])  # one byte too many tells that it is another file
        done += len(chunk)
        if pace := clock.pace(_mega(done)):
            log.info("%s fetched: %s", name, pace)


def _by_hand(archive: Archive, part: Path) -> str:
    return f"or fetch it elsewhere, and put it into {part.parent}"


def _mega(size: int) -> int:
    return size // MEGA
