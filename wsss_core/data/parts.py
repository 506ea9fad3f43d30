"""Several data sets as one: each of a format of its own, classes matched by name.

A data set that was not annotated for a class says nothing of it: the class is missing there and not absent. Every image
carries the classes of which its data set says nothing (`ImageRecord.unknown`), so that losses and scores leave them
out. A tag that is given counts, whether its class is annotated throughout or not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.boxes import Box
from wsss_core.data.formats import reader
from wsss_core.data.instances import with_labels
from wsss_core.data.names import alike, did_you_mean
from wsss_core.data.reading import Problem, Reading, Sources, class_list, named_file, read_class_names
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.settings import REQUIRED, from_mapping, setting
from wsss_core.store.atomic import write_text
from wsss_core.store.masks import mask_name, read_mask, write_mask

STAMP = "renumbered.json"
"""File beside the masks of a part, renumbered, that says what each was made from."""

OF_ALL = ("unreadable", "max_megapixels", "shard_size")
"""Settings that all parts share."""

OF_A_PART = ("domain", "format", "annotated")
"""Settings of a part beside those of its format."""


@dataclass(frozen=True, kw_only=True)
class PartsSettings:
    """Several data sets as one."""

    parts: tuple[dict[str, Any], ...] = setting(
        REQUIRED,
        "the data sets: of each its name (domain), its format with the settings of that format, and the names of the "
        "classes that it was annotated for (annotated; without it, all of its own)",
        minItems=1,
    )
    classes: str | None = setting(
        None,
        "text file of the class names, one a line, in order of their labels; null: those of the parts, in their order",
    )
    unreadable: Literal["stop", "skip"] = setting(
        "stop", "when images, masks or tags cannot be used: stop with the whole list, or skip them and go on"
    )
    max_megapixels: float = setting(
        100.0,
        "images of more million pixels cannot be used: memory grows with them, and small files may unpack to so many",
        exclusiveMinimum=0,
    )
    shard_size: int = setting(128, "images a shard, roughly", minimum=1)


@dataclass(frozen=True)
class Part:
    """One data set of several, and what it says of classes.

    Attributes
    ----------
    settings
        Of its format.
    own
        Its own class names, in order of its labels.
    places
        Of each of these the number among the classes of all, None for those that are left out.
    missing
        Numbers of the classes that it was not annotated for.
    """

    domain: str
    format: str
    settings: Any
    own: tuple[str, ...]
    places: tuple[int | None, ...]
    missing: tuple[int, ...]


def part_settings(part: Mapping[str, Any]) -> Any:
    """Settings of the format of a part, defaults filled."""
    given = {key: value for key, value in part.items() if key not in OF_A_PART}
    return from_mapping(reader(part["format"])[1], given)


def classes(settings: PartsSettings) -> tuple[str, ...]:
    """The names in the class file, else those of the parts in their order, each once.

    Raises
    ------
    UserError
        As the readers of the parts, or if names of two parts differ in their writing alone.
    """
    if settings.classes is not None:
        return read_class_names(named_file(Path(), settings.classes, "classes"))
    return _together(settings, {part["domain"]: _own(part) for part in settings.parts})


def parts_of(settings: PartsSettings) -> tuple[tuple[str, ...], list[Part]]:
    """The classes of all, and the parts.

    Raises
    ------
    UserError
        As `classes`, or if a part is annotated for a class that there is not.
    """
    own = {part["domain"]: _own(part) for part in settings.parts}
    names = classes(settings) if settings.classes is not None else _together(settings, own)
    found = []
    for part in settings.parts:
        domain = part["domain"]
        annotated = own[domain] if part.get("annotated") is None else part["annotated"]
        unknown = [name for name in annotated if name not in names and name not in own[domain]]
        if unknown:
            hint = did_you_mean(unknown[0], names)
            raise UserError(f"dataset.parts, {domain}: annotated: there is no class {unknown[0]!r}{hint}")
        places = tuple(names.index(name) if name in names else None for name in own[domain])
        missing = tuple(c for c, name in enumerate(names) if name not in annotated)
        found.append(Part(domain, part["format"], part_settings(part), own[domain], places, missing))
    return names, found


def read(settings: PartsSettings, workers: int = 0, drawn: Path | None = None) -> Reading:
    """Read every part; its records then speak of the classes of all.

    An id that an earlier part has too is preceded by the part's name and a slash. True masks whose labels stand for
    other classes than among those of all are written again with the labels of all, into the folder `drawn`; an object
    of a class that is left out is background.

    Returns
    -------
    With a reading for each part in `parts`.

    Raises
    ------
    UserError
        As the readers of the parts, naming the part.
    """
    names, parts = parts_of(settings)
    taken: set[str] = set()
    readings = []
    for part in parts:
        folder = None if drawn is None else drawn / part.domain
        try:
            own = reader(part.format)[0].read(part.settings, workers, folder)
        except UserError as error:
            raise _of_part(part.domain, error) from error
        ids = {r.id: f"{part.domain}/{r.id}" if r.id in taken else r.id for r in own.records}
        taken |= set(ids.values())
        records = [_joined(record, ids[record.id], part) for record in own.records]
        problems = [replace(problem, image=ids.get(problem.image, problem.image)) for problem in own.problems]
        if folder is not None and part.places != tuple(range(len(part.own))):
            records = _renumbered(records, part, folder / "labels", problems, workers)
        readings.append(replace(own, class_names=names, records=tuple(records), problems=tuple(problems)))
    return Reading(
        names,
        tuple(record for one in readings for record in one.records),
        tuple(problem for one in readings for problem in one.problems),
        tuple(dict.fromkeys(role for one in readings for role in one.wanted)),
        parts=tuple(readings),
    )


def sources(settings: PartsSettings) -> Sources:
    """What the parts read."""
    found = [reader(part["format"])[0].sources(part_settings(part)) for part in settings.parts]
    files = [path for one in found for path in one.files]
    files += [] if settings.classes is None else [Path(settings.classes)]
    return Sources(tuple(path for one in found for path in one.folders), tuple(files))


def _own(part: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        return reader(part["format"])[0].classes(part_settings(part))
    except UserError as error:
        raise _of_part(part["domain"], error) from error


def _of_part(domain: str, error: UserError) -> UserError:
    return UserError(f"data set {domain!r}: {error}")


def _together(settings: PartsSettings, own: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    annotated = [name for part in settings.parts for name in (part.get("annotated") or ())]
    names = list(dict.fromkeys([*(name for found in own.values() for name in found), *annotated]))
    for group in alike(names):
        shown = " and ".join(map(repr, group))
        raise UserError(
            f"dataset.parts: the classes {shown} differ by their writing alone: are they one class? Write it alike in "
            "all parts, or list the classes to keep in dataset.classes"
        )
    return class_list(names, Path("dataset.parts"))


def _joined(record: ImageRecord, image_id: str, part: Part) -> ImageRecord:
    """The record of a part's image with the classes of all."""
    tags = tuple(sorted(place for c in record.classes if (place := part.places[c]) is not None))
    boxes = tuple(_renamed(box, place) for box in record.boxes if (place := part.places[box.label]) is not None)
    silent = () if record.splits == ("ood",) else tuple(c for c in part.missing if c not in tags)
    return replace(record, id=image_id, classes=tags, boxes=boxes, domain=part.domain, unknown=silent)


def _renamed(box: Box, label: int) -> Box:
    return replace(box, label=label)


def _renumbered(
    records: Sequence[ImageRecord], part: Part, folder: Path, problems: list[Problem], workers: int
) -> list[ImageRecord]:
    """The records with masks of the labels of all; a problem is appended for each mask that cannot be."""
    stamp = folder / STAMP
    try:
        done = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        done = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = list(pool.map(partial(_renumber, part=part, folder=folder, done=done), records))
    if any(mark for _, mark, _ in found):
        write_text(stamp, json.dumps({record.id: mark for record, mark, _ in found if mark}))
    problems += [problem for _, _, problem in found if problem]
    return [record for record, _, _ in found]


def _renumber(
    record: ImageRecord, part: Part, folder: Path, done: Mapping[str, Any]
) -> tuple[ImageRecord, list[Any], Problem | None]:
    if not record.mask:
        return record, [], None
    target, outlines = folder / mask_name(record.id), folder / f"{mask_name(record.id)}.json"
    drawn = record.instances.endswith(".json")
    mark: list[Any] = [[*map(_stamp, filter(None, (record.mask, record.instances)))], list(part.places)]
    try:
        if done.get(record.id) != mark or not target.is_file() or (drawn and not outlines.is_file()):
            labels = read_mask(Path(record.mask))
            table = np.full(256, IGNORE, dtype=np.uint8)
            table[: len(part.own) + 1] = [0, *(0 if place is None else place + 1 for place in part.places)]
            wrong = sorted(set(np.unique(labels).tolist()) - {*range(len(part.own) + 1), IGNORE})
            if wrong:
                text = f"mask holds the values {wrong[:5]}, allowed are 0..{len(part.own)} and {IGNORE}"
                return record, [], Problem(record.id, record.mask, text, "error" if "val" in record.splits else "mask")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_mask(target, table[labels])
            if drawn:
                with_labels(Path(record.instances), outlines, part.places)
    except (OSError, UserError):  # which the examination of the file will tell
        return record, [], None
    left_out = None in part.places  # an object image numbers objects of these too
    instances = str(outlines) if drawn else "" if left_out else record.instances
    return replace(record, mask=str(target), instances=instances), mark, None


def _stamp(path: str) -> list[Any]:
    state = os.stat(path)
    return [path, state.st_size, state.st_mtime_ns]
