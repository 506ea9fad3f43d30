"""Digests of what lies in folders, taken without opening a file: the workflow sees added and changed images by them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from wsss_core.data.folders import walk
from wsss_core.data.formats import reader
from wsss_core.errors import UserError
from wsss_core.settings import from_mapping

_READ_WHOLE = 16 * 2**20
"""Files up to this many bytes count by content, larger ones by size and time of change."""


def dataset_settings(dataset: Mapping[str, Any]) -> Any:
    """Settings object of the `dataset` section of a configuration, defaults filled."""
    settings_class = reader(dataset["format"])[1]
    return from_mapping(settings_class, {key: value for key, value in dataset.items() if key != "format"})


def data_sets(dataset: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The data sets of the `dataset` section by name, each as a section of its own; of one alone the name is ""."""
    if dataset["format"] != "parts":
        return {"": dict(dataset)}
    kept = {key: dataset[key] for key in ("unreadable", "max_megapixels", "shard_size")}
    found = {}
    for part in dataset["parts"]:
        own = {key: value for key, value in part.items() if key not in ("domain", "annotated")}
        known = {field.name for field in fields(reader(part["format"])[1])}
        found[part["domain"]] = own | {key: value for key, value in kept.items() if key in known}
    return found


def missing_roots(dataset: Mapping[str, Any]) -> list[str]:
    """Folders of the data that are not there; those of the demo are made."""
    sets = data_sets(dataset).values()
    return [one["root"] for one in sets if one["format"] != "demo" and not os.path.isdir(one["root"])]


def listing_digest(dataset: Mapping[str, Any]) -> str:
    """Digest of names, sizes and times of images and masks, and of the content of lists and tables.

    Parameters
    ----------
    dataset
        The `dataset` section of a configuration, defaults filled.

    Returns
    -------
    16 hexadecimal digits. Whatever is missing counts as missing: the step `index` reports it.
    """
    try:
        sources = reader(dataset["format"])[0].sources(dataset_settings(dataset))
    except UserError as error:
        return hashlib.sha256(str(error).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for folder in sources.folders:
        digest.update(folder_digest(folder).encode())
    for path in sources.files:
        digest.update(f"{path}\0".encode("utf-8", "surrogateescape") + _content(path))
    return digest.hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Digest of names, sizes and times of all files below a folder; what cannot be read counts by its name and reason.

    Returns
    -------
    16 hexadecimal digits.
    """
    digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape"))
    for entry in walk(folder):
        line = f"{entry.name}\0{entry.size}\0{entry.changed}\0{entry.error}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _content(path: Path) -> bytes:
    try:
        state = path.stat()
        if state.st_size > _READ_WHOLE:
            return f"{state.st_size}\0{state.st_mtime_ns}".encode()
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return str(error.strerror).encode()
