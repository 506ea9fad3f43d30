"""One damaged file read in another process, which may hang, crash or eat memory; and the corpus of such files."""

from __future__ import annotations

import hashlib
import logging
import lzma
import os
import resource
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.readers import Reader
from wsss_core.errors import UserError
from wsss_core.store.sealed import LENGTH, MARK

CORPUS = Path(__file__).parent / "corpus"

SECONDS = 20.0
"""What a reader may take for a file of a few kB, on a machine that does other things too."""

MEMORY = 3 * 2**30
"""Bytes that it may take beside what the process had before."""

GENERATION = 2000
"""Files after which a new process goes on, so that none inherits much."""

GOOD = ("read", "refused")


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged file.

    Attributes
    ----------
    kind
        "read" without an error, "refused" by UserError; or what must not be: "escaped" (another error), "misread" (read
        as other content, in spite of a digest), "hung", "died".
    words
        What the error said, with the line that raised it.
    """

    kind: str
    words: str = ""

    @property
    def good(self) -> bool:
        """Whether this is as it must be."""
        return self.kind in GOOD


class Trials:
    """Reads damaged files of one reader in a process of its own.

    Examples
    --------
    >>> from tests.fuzz.readers import READERS
    >>> with Trials(READERS["image table"]) as trials:
    ...     trials.read("images.csv", b"nonsense").kind
    'refused'
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
        reader.prepare(self.folder)
        self.valid: Mapping[str, bytes] = {name: (self.folder / name).read_bytes() for name in reader.files}
        self._context = get_context("fork")
        self._process: Any = None
        self._done = 0

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, name: str, content: bytes) -> Outcome:
        """What becomes of the file `name` with this content, beside the other files as they should be."""
        if self._process is None or self._done >= GENERATION:
            self._start()
        self._done += 1
        try:
            self._pipe.send((name, content))
            if not self._pipe.poll(SECONDS):
                self._end()
                return Outcome("hung", f"after {SECONDS:g} s")
            return Outcome(*self._pipe.recv())
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._end()
            return Outcome("died", f"exit status {code}")

    def _start(self) -> None:
        self._end()
        for name, content in self.valid.items():  # a process that was killed left its damaged file
            (self.folder / name).write_bytes(content)
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self.reader, self.folder), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it has begun, and the clock may run
        self._done = 0

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Any, reader: Reader, folder: Path) -> None:
    """Read what comes through the pipe, until it closes."""
    logging.disable()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.chdir(folder)
    expected = digest_of(reader.read(folder)) if reader.guarded else ""
    valid = {name: (folder / name).read_bytes() for name in reader.files}
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            name, content = pipe.recv()
            (folder / name).write_bytes(content)
            try:
                found = digest_of(reader.read(folder))
                differs = found != expected and reader.guarded and not has_seal(content)
                outcome = ("misread", "as other content than was written") if differs else ("read", "")
            except UserError as error:
                outcome = ("refused", str(error)[:200])
            except BaseException as error:
                outcome = ("escaped", _words(error))
            for file, original in valid.items():  # a reader may have written a cache anew
                (folder / file).write_bytes(original)
            pipe.send(outcome)


def _words(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "wsss_core" in frame.filename] or frames
    where = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else ""
    return f"{type(error).__name__} in {where}: {error!s:.200}"


def has_seal(content: bytes) -> bool:
    """Whether the bytes of a file end with their own digest, so that whoever changed them sealed them again."""
    digest = hashlib.sha256(content[:-LENGTH]).hexdigest().encode()
    return content[-LENGTH:] == MARK + digest


def digest_of(value: Any) -> str:
    """Digest of anything that readers return.

    Examples
    --------
    >>> digest_of([1, np.zeros(2)]) == digest_of([1, np.zeros(2)]) != digest_of([1, np.zeros(3)])
    True
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        yield f"{value.dtype}{value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(key)
            yield from _parts(item)
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__}{len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _parts(getattr(value, field.name))
    else:
        yield repr(value).encode("utf-8", "surrogatepass")


def keep(reader: str, name: str, content: bytes) -> Path:
    """Put a damaged file into the corpus."""
    path = CORPUS / folder_of(reader) / f"{hashlib.sha256(content).hexdigest()[:12]}-{Path(name).name}.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(content))
    return path


def kept(reader: Reader) -> list[tuple[str, Path]]:
    """Name among the reader's files, and path in the corpus, of the damaged files that are kept of it."""
    names = {Path(name).name: name for name in reader.files}
    paths = sorted((CORPUS / folder_of(reader.name)).glob("*-*.xz"))
    return [(names[path.stem.partition("-")[2]], path) for path in paths]


def unpacked(path: Path) -> bytes:
    """Content of a damaged file of the corpus, where all are packed: many would be mistaken for what they are not."""
    return lzma.decompress(path.read_bytes())


def folder_of(reader: str) -> str:
    """Name of a reader's folder in the corpus."""
    return reader.replace(" ", "-")
