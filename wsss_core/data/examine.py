"""Looking at every image and mask of a data set once, and judging what they hold."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from wsss_core import keyed
from wsss_core.code_digest import code_digest
from wsss_core.constants import IGNORE
from wsss_core.data.boxes import Box, fitted, from_plain, plain
from wsss_core.data.decode import decode_turned, digest_of, read_bytes, require_megapixels
from wsss_core.data.instances import instances_size
from wsss_core.data.reading import Problem, Reading
from wsss_core.data.table import ImageRecord
from wsss_core.data.truth import Truth, contradictions, unscored
from wsss_core.errors import UserError
from wsss_core.pace import Clock
from wsss_core.store.atomic import write_text
from wsss_core.store.masks import read_mask

log = logging.getLogger(__name__)

SPECK = 500
"""A region of a mask that is smaller than this part of the image is no object."""


def look_at_image(path: str, max_megapixels: float = math.inf) -> dict[str, Any]:
    """Height, width, EXIF orientation and digest of an image file, decoded whole; raises UserError."""
    data = read_bytes(path)
    pixels, orientation = decode_turned(data, path, max_megapixels)
    return {"height": pixels.shape[0], "width": pixels.shape[1], "turned": orientation, "digest": digest_of(data)}


def look_at_mask(path: str) -> dict[str, Any]:
    """Height, width, digest and labels of a mask; raises UserError."""
    labels = read_mask(Path(path))
    return {
        "height": labels.shape[0],
        "width": labels.shape[1],
        "digest": digest_of(Path(path).read_bytes()),
        "labels": np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist(),
    }


def look_at_instances(path: str) -> dict[str, Any]:
    """Height, width and digest of a file of true instances; raises UserError."""
    height, width = instances_size(Path(path))
    return {"height": height, "width": width, "digest": digest_of(Path(path).read_bytes())}


def look_at_regions(path: str) -> dict[str, Any]:
    """The boxes of the connected regions of a mask's labels; raises UserError.

    Regions meet at corners too; those of less than a 500th of the image are specks.
    """
    labels = read_mask(Path(path))
    found = []
    for label in np.unique(labels[(labels != 0) & (labels != IGNORE)]):
        regions, _ = ndimage.label(labels == label, np.ones((3, 3)))
        areas = np.bincount(regions.ravel())
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
            if areas[number] >= labels.size / SPECK:
                found.append(Box(int(label) - 1, columns.start, rows.start, columns.stop, rows.stop))
    return {"boxes": plain(found)}


class KnownFiles:
    """What is known about files, kept as JSON; an entry counts while path, size and time of change are the same."""

    CODE = ("wsss_core.data.decode", "wsss_core.data.instances", "wsss_core.store.masks")

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    @classmethod
    def read(cls, path: Path) -> KnownFiles:
        fresh = {"code": code_digest(cls.CODE), "image": {}, "mask": {}, "instances": {}, "regions": {}, "written": {}}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            digest = content.pop("digest")
            return cls(path, content if digest == _digest(content) and content["code"] == fresh["code"] else fresh)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # all is looked at again
            return cls(path, fresh)

    def write(self) -> None:
        """Write what is known so far; other threads may be looking at files."""
        content = {key: dict(value) if isinstance(value, dict) else value for key, value in self.content.items()}
        write_text(self.path, json.dumps(content | {"digest": _digest(content)}, ensure_ascii=False))

    def look(self, kind: str, look: Callable[[str], dict[str, Any]], path: str) -> dict[str, Any] | str:
        """What `look` finds in a file, or the text of its UserError."""
        try:
            state = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: a path that holds the character 0
            return f"file cannot be read ({getattr(error, 'strerror', None) or error})"
        if not stat.S_ISREG(state.st_mode):
            return "is not a file"
        stamp = [state.st_size, state.st_mtime_ns]
        entry = self.content[kind].get(path)
        if entry is not None and entry["stamp"] == stamp:
            return entry
        try:
            entry = {"stamp": stamp} | look(path)
        except UserError as error:
            return str(error).removeprefix(f"{path}: ")
        self.content[kind][path] = entry
        return entry


def _digest(content: Mapping[str, Any]) -> str:
    """Digest of what is known about files, for the file that keeps it."""
    return digest_of(json.dumps(content, sort_keys=True).encode())


@dataclass
class _Seen:
    """What the files of one image hold, or what is wrong with them."""

    image: dict[str, Any] | str
    mask: dict[str, Any] | str | None
    instances: dict[str, Any] | str | None = None
    regions: dict[str, Any] | str | None = None


def examine(
    reading: Reading, known: KnownFiles, workers: int, max_megapixels: float = math.inf
) -> tuple[list[ImageRecord], list[Problem]]:
    """Open all files; returns the usable records, sizes and digests filled in, and the problems found."""
    broken = {problem.image for problem in reading.problems if problem.severity == "error"}
    maskless = {problem.image for problem in reading.problems if problem.severity == "mask"}
    records, problems = [], []
    paths: dict[str, str] = {}
    for record, seen in zip(reading.records, _seen(reading, known, workers, max_megapixels), strict=True):
        wrong = [p for p in _problems(record, seen, reading) if p.severity != "note" or record.id not in broken]
        if paths.setdefault(record.id, record.path) != record.path:
            wrong.append(Problem(record.id, record.path, f"duplicate id: {paths[record.id]} has it too"))
        problems += wrong
        if isinstance(seen.image, str) or record.id in broken or not record.splits:
            continue
        if any(p.severity == "error" for p in wrong):
            continue
        filled = _filled(record, seen.image, seen.mask, reading.tags_from_masks)
        filled, of_objects = _with_objects(filled, seen)
        problems += of_objects
        no_mask = record.id in maskless or any(p.severity == "mask" for p in wrong)
        records.append(without_truth(filled) if no_mask else filled)
    return records, problems + _duplicates(records) + _contradictions(reading, records, known)


def examine_all(
    reading: Reading, known: KnownFiles, workers: int, max_megapixels: float = math.inf
) -> tuple[list[ImageRecord], list[Problem]]:
    """As `examine`; several data sets one by one, as each may have its own faults and tell its tags in its own way."""
    if not reading.parts:
        return examine(reading, known, workers, max_megapixels)
    records: list[ImageRecord] = []
    problems: list[Problem] = []
    for part in reading.parts:
        found, wrong = examine(part, known, workers, max_megapixels)
        named = {record.domain for record in part.records}
        records += [replace(r, unknown=tuple(c for c in r.unknown if c not in r.classes)) for r in found]
        problems += [replace(p, path=f"{p.path} of {min(named)}") if named and not p.image else p for p in wrong]
    return records, problems + _duplicates(records)


def _seen(reading: Reading, known: KnownFiles, workers: int, max_megapixels: float) -> Iterable[_Seen]:
    def look(record: ImageRecord) -> _Seen:
        image = known.look("image", partial(look_at_image, max_megapixels=max_megapixels), record.path)
        if isinstance(image, dict):  # known since the limit was another
            try:
                require_megapixels(image["width"], image["height"], record.path, max_megapixels)
            except UserError as error:
                image = str(error).removeprefix(f"{record.path}: ")
        regions = reading.boxes_from_masks and record.mask
        return _Seen(
            image,
            known.look("mask", look_at_mask, record.mask) if record.mask else None,
            known.look("instances", look_at_instances, record.instances) if record.instances else None,
            known.look("regions", look_at_regions, record.mask) if regions else None,
        )

    clock = Clock("image", len(reading.records))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for count, seen in enumerate(pool.map(look, reading.records), start=1):
            pace = clock.pace(count)
            if pace:
                log.info("%s", pace)
                known.write()
            yield seen


def _problems(record: ImageRecord, seen: _Seen, reading: Reading) -> list[Problem]:
    if isinstance(seen.image, str):
        return [Problem(record.id, record.path, seen.image)]
    problems = []
    if {"train", "val"} <= set(record.splits):
        problems.append(Problem(record.id, record.path, "the image is both for training and for evaluation (val)"))
    if "ood" in record.splits and record.classes:
        names = ", ".join(reading.class_names[c] for c in record.classes)
        problems.append(Problem(record.id, record.path, f"the image is in an ood list but has the tags {names}"))
    wrong = None if seen.mask is None else _mask_problem(seen.image, seen.mask, len(reading.class_names) + 1)
    if wrong is not None:
        needed = reading.tags_from_masks or "val" in record.splits
        problems.append(Problem(record.id, record.mask, wrong, "error" if needed else "mask"))
        return problems
    if seen.mask is not None and _fits_both_ways(seen.image):
        turned = f"the photo is turned by its EXIF tag (orientation {seen.image['turned']})"
        text = f"{turned} and its mask would fit either way: was it drawn on the photo as it is shown?"
        problems.append(Problem(record.id, record.mask, text, "note"))
    shown = _mask_classes(seen.mask) if isinstance(seen.mask, dict) else []
    if seen.mask is not None and record.classes and not set(shown) & set(record.classes):
        tags = ", ".join(reading.class_names[c] for c in record.classes)
        problems.append(Problem(record.id, record.mask, f"the mask shows none of the tags ({tags})", "note"))
    if "train" not in record.splits:
        return problems
    if reading.tags_from_masks and seen.mask is None:
        problems.append(Problem(record.id, record.path, "there is no mask to take the tags from"))
    untagged = [reading.class_names[c] for c in shown if c not in record.classes]
    if untagged and not reading.tags_from_masks:
        tags = ", ".join(reading.class_names[c] for c in record.classes) or "none"
        text = f"the mask holds {', '.join(untagged)}, the tags do not ({tags})"
        problems.append(Problem(record.id, record.mask, text, "note"))
    return problems


def _mask_problem(image: Mapping[str, Any], mask: Mapping[str, Any] | str, n_labels: int) -> str | None:
    if isinstance(mask, str):
        return mask
    if (mask["height"], mask["width"]) != (image["height"], image["width"]):
        text = f"mask is {mask['width']}x{mask['height']}, its image is {image['width']}x{image['height']}"
        if image["turned"] != 1 and (mask["width"], mask["height"]) == (image["height"], image["width"]):
            text += f" as its EXIF tag turns it (orientation {image['turned']}): the mask was drawn on the photo as "
            text += "stored; turn the mask alike, or store the photo upright"
        return text
    wrong = [label for label in mask["labels"] if label >= n_labels and label != IGNORE]
    if wrong:
        return f"mask holds the values {wrong[:5]}, allowed are 0..{n_labels - 1} and {IGNORE}"
    return None


def _fits_both_ways(image: Mapping[str, Any]) -> bool:
    """Whether a mask's size does not tell if it was drawn on the photo as stored or as shown."""
    return image["turned"] in (2, 3, 4) or (image["turned"] != 1 and image["height"] == image["width"])


def _mask_classes(mask: Mapping[str, Any]) -> list[int]:
    return [label - 1 for label in mask["labels"] if label not in (0, IGNORE)]


def _filled(
    record: ImageRecord, image: Mapping[str, Any], mask: Mapping[str, Any] | str | None, tags_from_masks: bool
) -> ImageRecord:
    usable = None if isinstance(mask, str) else mask
    return replace(
        record,
        height=image["height"],
        width=image["width"],
        digest=image["digest"],
        mask_digest=usable["digest"] if usable else "",
        classes=tuple(_mask_classes(usable)) if tags_from_masks and usable else record.classes,
    )


def _with_objects(record: ImageRecord, seen: _Seen) -> tuple[ImageRecord, list[Problem]]:
    """A record with boxes inside its image and the digest of its instances, and what is wrong with them."""
    given = from_plain(seen.regions["boxes"]) if isinstance(seen.regions, dict) else record.boxes
    boxes, problems = [], []
    for box in given:
        fit, text = fitted(box, record.size)
        if fit is not None:
            boxes.append(fit)
        if text:
            problems.append(Problem(record.id, record.path, text + ("" if fit else ": left out"), "note"))
    found, wrong = seen.instances, ""
    if isinstance(found, str):
        wrong = found
    elif found is not None and (found["height"], found["width"]) != record.size:
        size = f"{found['width']}x{found['height']}"
        wrong = f"its objects are of {size} pixels, the image of {record.width}x{record.height}"
    if wrong:
        problems.append(Problem(record.id, record.instances, wrong, "row"))
    usable = isinstance(found, dict) and not wrong
    filled = replace(
        record,
        boxes=tuple(boxes),
        instances=record.instances if usable else "",
        instances_digest=found["digest"] if isinstance(found, dict) and usable else "",
    )
    return filled, problems


def _duplicates(records: Iterable[ImageRecord]) -> list[Problem]:
    """Images for training that are also, byte for byte, images for evaluation."""
    train: dict[str, str] = {r.digest: r.id for r in records if "train" in r.splits}
    return [
        Problem(r.id, r.path, f"the same picture as {train[r.digest]!r}, which is for training", "note")
        for r in records
        if "val" in r.splits and "train" not in r.splits and r.digest in train
    ]


def _contradictions(reading: Reading, records: Iterable[ImageRecord], known: KnownFiles) -> list[Problem]:
    """What masks and tags, as a whole, say against each other; nothing where the masks were drawn from the tags."""
    if reading.masks_drawn:
        return []
    masked = [record for record in records if record.mask]
    truths = [Truth(r.id, r.classes, tuple(known.content["mask"][r.mask]["labels"])) for r in masked]
    found = contradictions(reading.class_names, truths)
    silent = {c for record in records for c in record.unknown}
    if found:
        return [Problem("", "tags and masks", text) for text in found]
    names = [n for n in unscored(reading.class_names, truths) if reading.class_names.index(n) not in silent]
    text = f"none of {len(truths)} masks holds {', '.join(map(repr, names))}: never scored"
    return [Problem("", "tags and masks", text, "note")] if names else []


def zeros_without_background(records: Iterable[ImageRecord], known: KnownFiles) -> list[Problem]:
    """What is wrong with true masks of data without a background: label 0 occurs in them."""
    masked = [record for record in records if record.mask]
    wrong = [record for record in masked if 0 in known.content["mask"][record.mask]["labels"]]
    if not wrong:
        return []
    text = (
        f"{len(wrong)} of {len(masked)} true masks hold label 0, such as that of {wrong[0].id!r}, and "
        f"dataset.background is none: write {IGNORE} where a pixel is not to be counted, or leave the setting out"
    )
    return [Problem("", wrong[0].mask, text)]


def require_roles(reading: Reading, records: Sequence[ImageRecord]) -> None:
    scored = [record for record in records if "score" in record.splits]
    of_val = [record.id for record in scored if "val" in record.splits]
    if 0 < len(of_val) < len(scored):
        trained = next(record.id for record in scored if "val" not in record.splits)
        raise UserError(
            f"dataset.score: {len(scored) - len(of_val)} of the images to score are for training (such as {trained}), "
            f"{len(of_val)} for evaluation (such as {of_val[0]}), and one score of both says nothing; score one kind"
        )
    for role in reading.wanted:
        if not any(role in record.splits for record in records):
            raise UserError(f"dataset.{role}: no image is left in this split, of {len(reading.records)} in all")


def require_classes(class_names: Sequence[str], records: Sequence[ImageRecord]) -> None:
    present = {c for record in records if "train" in record.splits for c in record.classes}
    absent = [name for c, name in enumerate(class_names) if c not in present]
    if len(absent) == len(class_names):
        raise UserError("dataset: no train image has a class tag, there is nothing to learn from")
    if absent:
        named = ", ".join(repr(name) for name in absent[:10]) + (", …" if len(absent) > 10 else "")
        raise UserError(
            f"dataset.classes: no train image has the class{'es' * (len(absent) > 1)} {named}; "
            f"take {'them' if len(absent) > 1 else 'it'} out of the class list or add images"
        )


def class_counts(class_names: Sequence[str], records: Sequence[ImageRecord]) -> str:
    """Every class with the number of its train images: a wrong separator or a mistyped name is seen here."""
    tagged = Counter(c for record in records if "train" in record.splits for c in record.classes)
    return ", ".join(f"{name} {tagged[c]}" for c, name in enumerate(class_names))


def in_every_image(class_names: Sequence[str], records: Sequence[ImageRecord]) -> str:
    """What to do about classes that every train image has, which no classifier can tell from what is around them.

    Returns
    -------
    A sentence; "" if there are none.
    """
    train = [record for record in records if "train" in record.splits]
    tagged = {c: [c in record.classes for record in train if c not in record.unknown] for c in range(len(class_names))}
    named = [repr(name) for c, name in enumerate(class_names) if tagged[c] and all(tagged[c])]
    if not named:
        return ""
    classes = f"class{'es' * (len(named) > 1)} {', '.join(named)}"
    return (
        f"every image for training has the {classes}, so that nothing tells {'them' if len(named) > 1 else 'it'} from "
        "what is around; add images without, such as of the same places, whose cell of labels is empty"
    )


def without_truth(record: ImageRecord) -> ImageRecord:
    splits = tuple(split for split in record.splits if split != "score")
    return replace(record, mask="", mask_digest="", instances="", instances_digest="", splits=splits)


def with_boxes_of_share(record: ImageRecord, share: float, draw: int) -> ImageRecord:
    """The record without its boxes, if it is for training and not drawn into a share of the images."""
    if "train" not in record.splits or keyed.chance("boxes", draw, record.id) < share:
        return record
    return replace(record, boxes=())
