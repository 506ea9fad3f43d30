"""What several steps read: shards of maps, images beside them, thresholds, digests of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from wsss_core.data.table import ImageTable, check_classes
from wsss_core.errors import UserError
from wsss_core.store.shards import RecordKind, RecordStore

Record = TypeVar("Record")


def open_records(path: Path, table: ImageTable, kind: RecordKind[Record]) -> RecordStore[Record]:
    """Open a shard of records, one an image: of maps, scores, attributions or instances.

    Raises
    ------
    UserError
        If it cannot be read, was made for other classes, or lacks an image of the table.
    """
    store = RecordStore(path, kind)
    check_classes(path, store.attrs.get("class_names"), table.class_names)
    held = set(store)
    missing = [record.id for record in table.records if record.id not in held]
    if missing:
        raise UserError(f"{path}: holds nothing of {len(missing)} images of the shard, such as {missing[0]!r}")
    return store


def read_threshold(path: Path | None) -> dict[str, Any] | None:
    """Content of a threshold file, or None without one."""
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        value = content["value"]
        if not isinstance(content["rule"], str) or not (value is None or (_is_number(value) and 0 <= value <= 1)):
            raise ValueError(f"the rule {content['rule']!r:.40} with the value {value!r:.40}")
        return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: threshold cannot be read ({error})") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
