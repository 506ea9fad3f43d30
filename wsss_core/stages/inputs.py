"""What several stages read: shards of maps, thresholds, digests of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord, ImageTable
from wsss_core.errors import UserError
from wsss_core.store.masks import mask_name
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SeedMaps, SeedStore
from wsss_core.store.shards import RecordStore


def check_classes(path: Path, found: Sequence[str] | None, class_names: Sequence[str]) -> None:
    """Raise UserError if a file was written for another class list than that of the images, or another order."""
    if found is not None and list(found) != list(class_names):
        raise UserError(f"{path}: its class list differs from that of the images, or is in another order")


def open_seeds(path: Path, table: ImageTable) -> SeedStore:
    """Open a shard of seed maps.

    Raises
    ------
    UserError
        If it cannot be read, was made for other classes, or lacks an image of the table.
    """
    return _checked(SeedStore(path), path, table)


def open_scores(path: Path, table: ImageTable) -> RecordStore[ScoreMaps]:
    """Open a shard of scores; errors as for `open_seeds`."""
    return _checked(RecordStore(path, SCORES), path, table)


Store = TypeVar("Store", bound=RecordStore)


def _checked(store: Store, path: Path, table: ImageTable) -> Store:
    check_classes(path, store.attrs.get("class_names"), table.class_names)
    held = set(store)
    missing = [record.id for record in table.records if record.id not in held]
    if missing:
        raise UserError(f"{path}: holds no maps of {len(missing)} images of the shard, such as {missing[0]!r}")
    return store


def mask_files(folders: Sequence[Path], image_ids: Iterable[str], what: str) -> dict[str, Path]:
    """Image id to its mask, or label map, in one of the folders.

    Raises
    ------
    UserError
        If images have none; `what` says what they lack, in the plural.
    """
    found = {path.name: path for folder in folders for path in Path(folder).glob("*.png")}
    names = {image_id: mask_name(image_id) for image_id in image_ids}
    missing = [image_id for image_id, name in names.items() if name not in found]
    if missing:
        where = f"{names[missing[0]]} is in none of {len(folders)} folders"
        raise UserError(f"{len(missing)} of {len(names)} images have no {what}, such as {missing[0]!r}: {where}")
    return {image_id: found[name] for image_id, name in names.items()}


def read_image_of(record: ImageRecord, maps: SeedMaps) -> np.ndarray:
    """The image, uint8 [H, W, 3]; UserError if it cannot be read or its size is not that of its maps."""
    image = read_image(Path(record.path))
    if image.shape[:2] != tuple(maps.size):
        raise UserError(f"{record.path}: image {record.id!r} is {image.shape[:2]}, its maps are for {maps.size}")
    return image


def read_threshold(path: Path | None) -> dict[str, Any] | None:
    """Content of a threshold file, or None without one."""
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: threshold cannot be read ({error})") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
