"""The image table: one row an image, whatever the data set's own format, and its shards.

`images.csv` has the columns ``id, path, height, width, splits, classes, mask, boxes, digest, mask_digest,
instances, instances_digest, domain, unknown``; a shard manifest is a small JSON file with the class names and the
records of its images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wsss_core import keyed
from wsss_core.data.boxes import Box, from_plain, plain
from wsss_core.errors import UserError
from wsss_core.store.atomic import atomic_path, write_text


@dataclass(frozen=True)
class ImageRecord:
    """One image.

    Attributes
    ----------
    id
        Unique text.
    path
        Image file.
    height, width
        Size in pixels, after any EXIF rotation.
    splits
        Roles the image plays: "train" (tags are used), "score" (its mask scores seeds and pseudo-masks, whether it is
        for training or for evaluation), "val" (its mask evaluates networks), "ood" (holds none of the classes).
    classes
        Tags as 0-based foreground class indices, ascending.
    mask
        Label PNG (0 background, c + 1 class c, 255 ignored), or "".
    boxes
        Boxes of objects, inside the image.
    digest
        Digest of the image file's bytes.
    mask_digest
        Digest of the mask file's bytes, or "".
    instances
        File of the true masks of single objects (see `wsss_core.data.instances`), or "".
    instances_digest
        Digest of its bytes, or "".
    domain
        Name of the data set that it is from, where there are several, else "".
    unknown
        Classes of which nothing is known in the image, as its data set was not annotated for them, ascending: it may
        hold them or not.
    """

    id: str
    path: str
    height: int
    width: int
    splits: tuple[str, ...]
    classes: tuple[int, ...]
    mask: str = ""
    boxes: tuple[Box, ...] = ()
    digest: str = ""
    mask_digest: str = ""
    instances: str = ""
    instances_digest: str = ""
    domain: str = ""
    unknown: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class ImageTable:
    """All images of a data set and the names of its foreground classes."""

    class_names: tuple[str, ...]
    records: tuple[ImageRecord, ...]

    def split(self, name: str) -> tuple[ImageRecord, ...]:
        """The images that play a role, in order of id."""
        return tuple(record for record in self.records if name in record.splits)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the data sets that the images are from, if there are several, in order; else none."""
        return tuple(sorted({record.domain for record in self.records} - {""}))

    def in_shards(self, split: str) -> tuple[ImageRecord, ...]:
        """The images in the shards of a split, in order of id: in those of "train" also images for evaluation whose
        maps and masks are scored. Trainings read the split's table, which has none of these.
        """
        roles = {split, "score"} if split == "train" else {split}
        return tuple(record for record in self.records if roles & set(record.splits))


def check_classes(path: Path, found: Sequence[str] | None, class_names: Sequence[str]) -> None:
    """Raise UserError if a file was written for another class list than that of the images, or another order."""
    if found is not None and list(found) != list(class_names):
        raise UserError(f"{path}: its class list differs from that of the images, or is in another order")


COLUMNS = tuple(field.name for field in fields(ImageRecord))


def write_table(path: Path, table: ImageTable) -> None:
    """Write `images.csv`; tags and splits are separated by spaces, class names stand in a comment line."""
    import pandas as pd

    rows = [
        asdict(r)
        | {
            "splits": " ".join(r.splits),
            "classes": " ".join(map(str, r.classes)),
            "boxes": json.dumps(plain(r.boxes)),
            "unknown": " ".join(map(str, r.unknown)),
        }
        for r in table.records
    ]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        handle.write("# classes: " + json.dumps(table.class_names, ensure_ascii=False) + "\n")
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(handle, index=False)


def read_table(path: Path) -> ImageTable:
    """Read `images.csv`.

    Raises
    ------
    UserError
        If the file is missing or is not an image table.
    """
    import pandas as pd

    try:
        with open(path, encoding="utf-8") as handle:
            head = handle.readline()
            frame = pd.read_csv(handle, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # of another encoding, or no table at all
        raise UserError(f"{path}: image table cannot be read ({error})") from error
    if not head.startswith("# classes: ") or tuple(frame.columns) != COLUMNS:
        raise UserError(f"{path}: is not an image table (columns {', '.join(COLUMNS)})")
    try:
        names = tuple(str(name) for name in json.loads(head.removeprefix("# classes: ")))
        records = tuple(_record(row, len(names)) for row in frame.to_dict("records"))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is a damaged image table ({error}); delete it and run again") from error
    return ImageTable(names, records)


def _record(row: dict, n_classes: int) -> ImageRecord:
    """The record of a row; errors as for `_require_sound`."""
    record = ImageRecord(
        id=row["id"],
        path=row["path"],
        height=int(row["height"]),
        width=int(row["width"]),
        splits=tuple(row["splits"].split()),
        classes=tuple(int(c) for c in row["classes"].split()),
        mask=row["mask"],
        boxes=from_plain(json.loads(row["boxes"])),
        digest=row["digest"],
        mask_digest=row["mask_digest"],
        instances=row["instances"],
        instances_digest=row["instances_digest"],
        domain=row["domain"],
        unknown=tuple(int(c) for c in row["unknown"].split()),
    )
    _require_sound(record, n_classes)
    return record


def shard_count(n_images: int, shard_size: int) -> int:
    """Number of shards: the power of two that comes nearest to `shard_size` images a shard.

    A power of two seldom changes while a data set grows, and when it does, shards split or merge whole.

    Examples
    --------
    >>> shard_count(10582, 128), shard_count(295, 64), shard_count(0, 64)
    (64, 4, 1)
    """
    count = 1
    while n_images / count > shard_size * 2**0.5:
        count *= 2
    return count


def shard_of(image_id: str, count: int) -> int:
    """Shard of an image: a hash of its id, so adding an image touches one shard."""
    return int.from_bytes(keyed.key_bytes("shard", image_id)[:8], "big") % count


def deal(records: Sequence[ImageRecord], shard_size: int) -> dict[str, list[ImageRecord]]:
    """Shard name ("03-of-08", counted from 0) to its images in order of id; empty shards are left out."""
    count = shard_count(len(records), shard_size)
    digits = max(2, len(str(count)))
    shards: dict[str, list[ImageRecord]] = {}
    for record in sorted(records, key=lambda r: r.id):
        name = f"{shard_of(record.id, count):0{digits}d}-of-{count:0{digits}d}"
        shards.setdefault(name, []).append(record)
    return dict(sorted(shards.items()))


def write_manifest(path: Path, class_names: Sequence[str], records: Iterable[ImageRecord]) -> None:
    """Write the manifest of a shard."""
    content = {"class_names": list(class_names), "images": [asdict(r) | {"boxes": plain(r.boxes)} for r in records]}
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def read_manifest(path: Path) -> ImageTable:
    """Read the manifest of a shard; UserError if the file is missing or is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = tuple(content["class_names"])
        records = tuple(
            ImageRecord(
                **row
                | {
                    "splits": tuple(row["splits"]),
                    "classes": tuple(row["classes"]),
                    "boxes": from_plain(row["boxes"]),
                    "unknown": tuple(row["unknown"]),
                }
            )
            for row in content["images"]
        )
        for record in records:
            _require_sound(record, len(names))
        if not all(isinstance(name, str) for name in names):
            raise ValueError("the name of a class is no text")
    except OSError as error:
        raise UserError(f"{path}: manifest cannot be read ({error.strerror or error})") from error
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is a damaged manifest ({error}); delete it and run again") from error
    return ImageTable(names, records)


def _require_sound(record: ImageRecord, n_classes: int) -> None:
    """Raise ValueError if a part of a record is of another type or range than it can be."""
    texts = (record.id, record.path, record.mask, record.digest, record.mask_digest, record.instances)
    if not all(isinstance(text, str) for text in (*texts, record.instances_digest, record.domain, *record.splits)):
        raise ValueError(f"{record.id!r}: a text is none")
    numbers = (*record.size, *record.classes, *record.unknown, *(box.label for box in record.boxes))
    if not all(type(number) is int for number in numbers):
        raise ValueError(f"{record.id!r}: a whole number is none")
    if min(record.size) < 1 or any(not 0 <= c < n_classes for c in numbers[2:]):
        raise ValueError(f"{record.id!r} is {record.width}x{record.height}, with the classes {record.classes}")
    for box in record.boxes:
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in box.corners):
            raise ValueError(f"{record.id!r}: a corner of a box is no finite number")


def read_manifests(paths: Sequence[Path]) -> ImageTable:
    """The images of several shards; UserError if these were made for different classes."""
    tables = [read_manifest(path) for path in paths]
    names = tables[0].class_names if tables else ()
    for table, path in zip(tables, paths, strict=True):
        check_classes(path, table.class_names, names)
    return ImageTable(names, tuple(record for table in tables for record in table.records))
