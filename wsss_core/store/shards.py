"""HDF5 files of one record an image: written whole, resumable, with unchanged records reused.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from wsss_core import __version__, keyed
from wsss_core.errors import UserError
from wsss_core.store.atomic import atomic_path

log = logging.getLogger(__name__)


def fingerprint(*parts: Any) -> str:
    """Digest of anything JSON can hold: image digest, settings, code, upstream."""
    return keyed.key_bytes(json.dumps(parts, sort_keys=True, separators=(",", ":"))).hex()


def group_name(image_id: str) -> str:
    """HDF5 group of an image id (ids may hold ``/`` and ``.``)."""
    return image_id.replace("%", "%25").replace("/", "%2F").replace(".", "%2E")


def build(
    path: Path,
    kind: str,
    fingerprints: Mapping[str, str],
    compute: Callable[[str], Any],
    write_record: Callable[[Any, Any], None],
    attrs: Mapping[str, Any],
    *,
    cache: Path,
    save_seconds: float = 60.0,
) -> int:
    """Write the shard file `path`, one record for every image of `fingerprints`, in that order.

    Parameters
    ----------
    kind
        What the records are ("seeds", "scores"); checked on reading.
    fingerprints
        Image id to digest of all the record depends on.
    compute
        Image id to record, called for the images without a valid record in the cache.
    write_record
        Writes a record into an HDF5 group.
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

    def one_by_one(ids: Sequence[str]) -> Iterable[tuple[str, Any]]:
        return ((image_id, compute(image_id)) for image_id in ids)

    return build_batched(
        path, kind, fingerprints, one_by_one, write_record, attrs, cache=cache, save_seconds=save_seconds
    )


def build_batched(
    path: Path,
    kind: str,
    fingerprints: Mapping[str, str],
    compute: Callable[[Sequence[str]], Iterable[tuple[str, Any]]],
    write_record: Callable[[Any, Any], None],
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
    records = _read_cache(cache, kind, fingerprints)
    reused = len(records)
    began = saved = time.monotonic()
    todo = [image_id for image_id in fingerprints if image_id not in records]
    missing = set(todo)
    cache.parent.mkdir(parents=True, exist_ok=True)
    pending: dict[str, Any] = {}
    for number, (image_id, record) in enumerate(compute(todo), 1):
        pending[image_id] = record
        missing.discard(image_id)
        if time.monotonic() - saved > save_seconds:
            _write(cache, kind, fingerprints, cache, pending, write_record, attrs, complete=False)
            pending, saved = {}, time.monotonic()
            pace = (saved - began) / number
            log.info("image %d/%d  %.2f s/image  %.0f s left", number, len(todo), pace, pace * (len(todo) - number))
    if missing:
        raise ValueError(f"no record was computed for {sorted(missing)}")
    _write(path, kind, fingerprints, cache, pending, write_record, attrs, complete=True)
    with atomic_path(cache) as copy:
        try:
            os.link(path, copy)
        except OSError:  # a file system without hard links, or two file systems
            shutil.copyfile(path, copy)
    log.info("%d records, %d reused, %.1f s", len(fingerprints), reused, time.monotonic() - began)
    return reused


def kind_of(path: Path) -> str:
    """What the records of a shard file are, "" if it does not say; UserError if it cannot be read as HDF5."""
    with _opened(path) as file:
        return str(file.attrs.get("kind", ""))


class ShardFile:
    """One shard file, opened for reading and checked."""

    def __init__(self, path: Any, kind: str) -> None:
        self._file = _opened(path)
        attrs = self._file.attrs
        if attrs.get("kind") != kind:
            raise UserError(f"{path}: holds {attrs.get('kind', 'no')} records, not {kind}")
        if not attrs.get("complete", False):
            raise UserError(f"{path}: was not finished; delete it and run again")
        self.ids: list[str] = json.loads(attrs["ids"])
        self.attrs: dict[str, Any] = json.loads(attrs["attrs"])

    def group(self, image_id: str) -> Any:
        """HDF5 group of an image; KeyError if the shard does not hold it."""
        name = group_name(image_id)
        if name not in self._file:
            raise KeyError(f"{image_id!r} is not in {self._file.filename}")
        return self._file[name]

    def fingerprint(self, image_id: str) -> str:
        """Digest of everything that the record of an image depends on; KeyError if the shard does not hold it."""
        return str(self.group(image_id).attrs["fingerprint"])


def _opened(path: Any) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read as HDF5 ({error}); delete it and run again") from error


def _read_cache(cache: Path, kind: str, fingerprints: Mapping[str, str]) -> set[str]:
    """Ids of the images whose record in the cache is valid."""
    try:
        with h5py.File(cache, "r") as old:
            if old.attrs.get("kind") != kind:
                return set()
            return {i for i, digest in fingerprints.items() if _stored_fingerprint(old, i) == digest}
    except OSError:
        return set()


def _stored_fingerprint(file: h5py.File, image_id: str) -> str | None:
    name = group_name(image_id)
    return file[name].attrs.get("fingerprint") if name in file else None


def _write(
    path: Path,
    kind: str,
    fingerprints: Mapping[str, str],
    cache: Path,
    fresh: Mapping[str, Any],
    write_record: Callable[[Any, Any], None],
    attrs: Mapping[str, Any],
    complete: bool,
) -> None:
    """Write valid cached records and fresh ones, in the order of `fingerprints`."""
    kept = _read_cache(cache, kind, fingerprints)
    old = h5py.File(cache, "r") if kept else None
    try:
        with atomic_path(path) as temporary, h5py.File(temporary, "w", track_order=True) as new:
            for image_id, digest in fingerprints.items():
                name = group_name(image_id)
                if image_id in fresh:
                    group = new.create_group(name, track_order=True)
                    group.attrs["id"] = image_id
                    group.attrs["fingerprint"] = digest
                    write_record(group, fresh[image_id])
                elif image_id in kept:
                    _rewrite(old[name], new.create_group(name, track_order=True))
            new.attrs["kind"] = kind
            new.attrs["version"] = __version__
            new.attrs["ids"] = json.dumps([i for i in fingerprints if group_name(i) in new])
            new.attrs["attrs"] = json.dumps(dict(attrs), sort_keys=True)
            new.attrs["complete"] = complete
    finally:
        if old is not None:
            old.close()


def _rewrite(source: h5py.Group, target: h5py.Group) -> None:
    """Write a record again as it was first written, so that a file's bytes do not tell what was reused."""
    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name, dataset in source.items():
        layout = {"chunks": dataset.chunks, "compression": dataset.compression}
        target.create_dataset(name, data=dataset[()], compression_opts=dataset.compression_opts, **layout)
