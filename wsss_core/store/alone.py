"""One writer at a time: a lock that a second process on the same output sees, on whatever machine it runs."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two looks at a lock that another process holds."""

UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What file systems without locks answer."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock during the block; while another process holds it, wait and say whose it is.

    The lock is the system's own, on a file that stays: it ends with the process that holds it, however that ends, and
    its children do not inherit it. On a file system without locks the block runs without one.

    Parameters
    ----------
    path
        The file; the folder above it is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        _wait(file)
        file.seek(0)
        file.truncate()
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        file.flush()
        yield


def _wait(file: TextIO) -> None:
    told = False
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno in UNSUPPORTED:
                log.info("%s: the file system has no locks, so this goes on without one (%s)", file.name, error)
                return
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        if not told:
            log.info(
                "waits for %s, which is making the same files; it stops by itself if its settings changed",
                _holder(file),
            )
            told = True
        time.sleep(POLL)


def _holder(file: TextIO) -> str:
    """The process that wrote itself into a lock's file."""
    file.seek(0)
    try:
        held = json.loads(file.read())
        return f"process {held['pid']} on {held['host']}"
    except (ValueError, KeyError, TypeError):  # between taking the lock and writing into it
        return "another process"
