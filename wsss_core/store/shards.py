"""HDF5 files of one record an image: written whole, resumable, with unchanged records reused, and read as mappings.

A `RecordKind` says what the records of a file are and how one is written and read. Each kind is declared beside the
type of its records: seeds, scores, posteriors, labels.

`build` computes the records of a shard one by one, `build_batched` several at a time. Finished records live in a
cache file beside the state of the stage, keyed by a fingerprint of everything they depend on, so a killed job
continues where it was and an image that did not change is not computed again. The declared output is always rebuilt
from it and renamed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import h5py
import numpy as np

from wsss_core import __version__, keyed
from wsss_core.errors import UserError, whole
from wsss_core.pace import Clock
from wsss_core.store.atomic import atomic_path
from wsss_core.store.sealed import is_whole, require_whole, seal

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the file as a whole; a file of a later one is refused, since its records may mean something else."""

Record = TypeVar("Record")


@dataclass(frozen=True)
class RecordKind(Generic[Record]):
    """What the records of a file are.

    Attributes
    ----------
    name
        Kept in the file and checked on reading.
    write
        Writes a record into an HDF5 group of its own.
    read
        Reads it from there. It may raise anything of a group that does not hold such a record.
    """

    name: str
    write: Callable[[h5py.Group, Record], None]
    read: Callable[[h5py.Group], Record]


class RecordStore(Mapping[str, Record]):
    """Read-only mapping from image id to record, in the order in which the file was built.

    Parameters
    ----------
    path
        HDF5 file written by `build`.
    kinds
        What its records may be; they are read as the file says.

    Attributes
    ----------
    kind
        What its records are.
    attrs
        Method, settings, versions and class names of the file.

    Raises
    ------
    UserError
        If the file is missing, holds other records, or was not finished.
    """

    def __init__(self, path: str | os.PathLike, *kinds: RecordKind[Record]) -> None:
        self._file = _opened(path)
        attrs = self._file.attrs
        allowed = {kind.name: kind for kind in kinds}
        with damage_told(str(path)):
            held = str(attrs.get("kind", "no"))
            if held not in allowed:
                raise UserError(f"{path}: holds {held} records, not {' or '.join(allowed)}")
            if not attrs.get("complete", False):
                raise UserError(f"{path}: was not finished; delete it and run again")
            if attrs.get("format", FORMAT) != FORMAT:
                raise UserError(f"{path}: is of format {attrs['format']}, this version reads {FORMAT}: use a newer one")
            self.kind = allowed[held]
            self.attrs: dict[str, Any] = _json(attrs["attrs"], dict)
            self._ids: list[str] = [str(name) for name in _json(attrs["ids"], list)]
            lacking = [name for name in self._ids if group_name(name) not in self._file]
            if lacking:
                raise ValueError(f"there is no record of {lacking[0]!r}")

    def fingerprint(self, image_id: str) -> str:
        """Digest of everything that the record of an image depends on; KeyError if the file does not hold it."""
        group = self.group(image_id)
        with damage_told(f"{self._file.filename}: image {image_id!r}"):
            return str(group.attrs["fingerprint"])

    def group(self, image_id: str) -> h5py.Group:
        """HDF5 group of an image, to read a part of its record; KeyError if the file does not hold it."""
        name = group_name(image_id)
        if name not in self._file:
            raise KeyError(f"{image_id!r} is not in {self._file.filename}")
        with damage_told(f"{self._file.filename}: image {image_id!r}"):
            require_inside(self._file, name)
            group = self._file[name]
            if not isinstance(group, h5py.Group):
                raise ValueError("is no record")
            for part in group:
                require_inside(group, part)
        return group

    def __getitem__(self, image_id: str) -> Record:
        group = self.group(image_id)
        with damage_told(f"{self._file.filename}: image {image_id!r}"):
            return self.kind.read(group)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def fingerprint(*parts: Any) -> str:
    """Digest of anything JSON can hold: image digest, settings, code, upstream."""
    return keyed.key_bytes(json.dumps(parts, sort_keys=True, separators=(",", ":"))).hex()


def group_name(image_id: str) -> str:
    """HDF5 group of an image id (ids may hold ``/`` and ``.``)."""
    return image_id.replace("%", "%25").replace("/", "%2F").replace(".", "%2E")


def build(
    path: Path,
    kind: RecordKind[Record],
    fingerprints: Mapping[str, str],
    compute: Callable[[str], Record],
    attrs: Mapping[str, Any],
    *,
    cache: Path,
    save_seconds: float = 60.0,
) -> int:
    """Write the shard file `path`, one record for every image of `fingerprints`, in that order.

    Parameters
    ----------
    kind
        What the records are, and how one is written.
    fingerprints
        Image id to digest of all the record depends on.
    compute
        Image id to record, called for the images without a valid record in the cache.
    attrs
        Method, settings and class names, JSON-serialisable, kept with the file.
    cache
        File of finished records, kept between runs.
    save_seconds
        Finished records are added to the cache after so many seconds.

    Returns
    -------
    The number of records that were reused.
    """

    def one_by_one(ids: Sequence[str]) -> Iterable[tuple[str, Record]]:
        return ((image_id, compute(image_id)) for image_id in ids)

    return build_batched(path, kind, fingerprints, one_by_one, attrs, cache=cache, save_seconds=save_seconds)


def build_batched(
    path: Path,
    kind: RecordKind[Record],
    fingerprints: Mapping[str, str],
    compute: Callable[[Sequence[str]], Iterable[tuple[str, Record]]],
    attrs: Mapping[str, Any],
    *,
    cache: Path,
    save_seconds: float = 60.0,
) -> int:
    """`build` for records that are computed several at a time.

    Parameters
    ----------
    compute
        From the ids of all images without a valid record in the cache to (id, record) of each, in any order; consumed
        as it goes, so that what was yielded survives a kill.

    Raises
    ------
    ValueError
        If `compute` left out an image.
    """
    records = _sound_cache(cache, kind, fingerprints)
    reused = len(records)
    todo = [image_id for image_id in fingerprints if image_id not in records]
    missing = set(todo)
    cache.parent.mkdir(parents=True, exist_ok=True)
    pending: dict[str, Record] = {}
    began = saved = time.monotonic()
    clock = Clock("image", len(todo))
    for number, (image_id, record) in enumerate(compute(todo), 1):
        pending[image_id] = record
        missing.discard(image_id)
        if time.monotonic() - saved > save_seconds:
            _write(cache, kind, fingerprints, cache, pending, attrs, complete=False)
            pending, saved = {}, time.monotonic()
        pace = clock.pace(number)
        if pace:
            log.info("%s", pace)
    if missing:
        raise ValueError(f"no record was computed for {sorted(missing)}")
    _write(path, kind, fingerprints, cache, pending, attrs, complete=True)
    with atomic_path(cache) as copy:
        try:
            os.link(path, copy)
        except OSError:  # a file system without hard links, or two file systems
            shutil.copyfile(path, copy)
    log.info("%d records, %d reused, %.1f s", len(fingerprints), reused, time.monotonic() - began)
    return reused


@contextmanager
def damage_told(what: str) -> Iterator[None]:
    """Turn whatever a damaged file, or one of another version, makes HDF5 and readers raise into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: cannot be read ({whole(error)}); delete the file and run again") from error


def _json(text: Any, kind: type) -> Any:
    """What an attribute holds as JSON; ValueError if that is of another kind."""
    held = json.loads(text)
    if not isinstance(held, kind):
        raise ValueError(f"{text!r:.40} is no {kind.__name__}")
    return held


def require_inside(group: h5py.Group, name: str) -> None:
    """Raise UserError if an entry of an HDF5 group is a link to elsewhere, such as into another file."""
    inside = isinstance(group.get(name, getlink=True), h5py.HardLink)
    if not inside or (isinstance(held := group[name], h5py.Dataset) and held.external):
        raise UserError(f"{group.file.filename}: {group.name.rstrip('/')}/{name} leads out of it; it is not followed")


def _opened(path: str | os.PathLike) -> h5py.File:
    require_whole(path)  # first, as a damaged file can keep HDF5 busy for ever
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: cannot be read as HDF5 ({error}); delete it and run again") from error


def _read_cache(cache: Path, kind: str, fingerprints: Mapping[str, str]) -> set[str]:
    """Ids of the images whose record in the cache is valid."""
    try:
        if not is_whole(cache):
            log.warning("%s: is damaged, so its records are computed again", cache)
            return set()
        with h5py.File(cache, "r") as old:
            if old.attrs.get("kind") != kind or old.attrs.get("format", FORMAT) != FORMAT:
                return set()
            return {i for i, digest in fingerprints.items() if _stored_fingerprint(old, i) == digest}
    except Exception as error:  # whatever a damaged cache makes HDF5 raise means that its records are computed again
        if not isinstance(error, FileNotFoundError):
            log.warning("%s: cannot be read, so its records are computed again (%s)", cache, whole(error))
        return set()


def _sound_cache(cache: Path, kind: RecordKind, fingerprints: Mapping[str, str]) -> set[str]:
    """`_read_cache`, if all these records are of this kind, which a digest does not say; else the cache is removed."""
    kept = _read_cache(cache, kind.name, fingerprints)
    if not kept:
        return kept
    try:
        with h5py.File(cache, "r") as held:
            for image_id in kept:
                group = held[group_name(image_id)]
                for part in group:
                    require_inside(group, part)
                kind.read(group)
    except Exception as error:
        log.warning("%s: its records are computed again (%s)", cache, whole(error))
        cache.unlink()
        return set()
    return kept


def _stored_fingerprint(file: h5py.File, image_id: str) -> str | None:
    name = group_name(image_id)
    return file[name].attrs.get("fingerprint") if name in file else None


def _write(
    path: Path,
    kind: RecordKind[Record],
    fingerprints: Mapping[str, str],
    cache: Path,
    fresh: Mapping[str, Record],
    attrs: Mapping[str, Any],
    complete: bool,
) -> None:
    """Write valid cached records and fresh ones, in the order of `fingerprints`."""
    kept = _read_cache(cache, kind.name, fingerprints)
    cached: AbstractContextManager[Mapping[str, h5py.Group]] = h5py.File(cache, "r") if kept else nullcontext({})
    with cached as old, atomic_path(path) as temporary:
        with h5py.File(temporary, "w", track_order=True) as new:
            for image_id, digest in fingerprints.items():
                name = group_name(image_id)
                if image_id in fresh:
                    group = new.create_group(name, track_order=True)
                    group.attrs["id"] = image_id
                    group.attrs["fingerprint"] = digest
                    kind.write(group, fresh[image_id])
                    _require_finite(group, f"{kind.name} of image {image_id!r}")
                elif image_id in kept:
                    _rewrite(old[name], new.create_group(name, track_order=True))
            new.attrs["kind"] = kind.name
            new.attrs["format"] = FORMAT
            new.attrs["version"] = __version__
            new.attrs["ids"] = json.dumps([i for i in fingerprints if group_name(i) in new])
            new.attrs["attrs"] = json.dumps(dict(attrs), sort_keys=True)
            new.attrs["complete"] = complete
        seal(temporary)


def _require_finite(group: h5py.Group, what: str) -> None:
    """Raise UserError if a dataset of a record holds a number that is none: it would be drawn as if it were one."""
    for name, dataset in group.items():
        if dataset.dtype.kind == "f" and not np.isfinite(dataset[()]).all():
            raise UserError(
                f"{what}: {name} holds numbers that are not finite (NaN or infinite), and nothing is made of them; the "
                "weights of the network, or an image, are so large that its arithmetic overflows"
            )


def _rewrite(source: h5py.Group, target: h5py.Group) -> None:
    """Write a record again as it was first written, so that a file's bytes do not tell what was reused."""
    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name, dataset in source.items():
        layout = {"chunks": dataset.chunks, "compression": dataset.compression, "shuffle": dataset.shuffle}
        target.create_dataset(name, data=dataset[()], compression_opts=dataset.compression_opts, **layout)
