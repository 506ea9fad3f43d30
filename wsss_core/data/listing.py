"""Digest of what lies in a data set's folders, taken without opening an image: the workflow sees added images by it."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_core.data.reading import Reader
from wsss_core.errors import UserError
from wsss_core.registry import DATASETS
from wsss_core.settings import from_mapping

_READ_WHOLE = 16 * 2**20
"""Files up to this many bytes count by content, larger ones by size and time of change."""


def reader(form: str) -> tuple[Reader, type]:
    """Module and settings class of a data set's format."""
    module, name = DATASETS[form].split(":")
    loaded = importlib.import_module(module)
    return loaded, getattr(loaded, name)


def dataset_settings(dataset: Mapping[str, Any]) -> Any:
    """Settings object of the `dataset` section of a configuration, defaults filled."""
    settings_class = reader(dataset["format"])[1]
    return from_mapping(settings_class, {key: value for key, value in dataset.items() if key != "format"})


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
        for line in sorted(_entries(folder)):
            digest.update(line.encode("utf-8", "surrogateescape"))
    for path in sources.files:
        digest.update(f"{path}\0".encode("utf-8", "surrogateescape") + _content(path))
    return digest.hexdigest()[:16]


def _entries(folder: Path) -> list[str]:
    lines, todo = [], [str(folder)]
    while todo:
        current = todo.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        todo.append(entry.path)
                    else:
                        state = entry.stat()
                        lines.append(f"{entry.path}\0{state.st_size}\0{state.st_mtime_ns}\n")
        except OSError as error:
            lines.append(f"{current}\0{error.strerror}\n")
    return lines


def _content(path: Path) -> bytes:
    try:
        state = path.stat()
        if state.st_size > _READ_WHOLE:
            return f"{state.st_size}\0{state.st_mtime_ns}".encode()
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return str(error.strerror).encode()
