"""Read a data set, look at every image and mask once, and deal the images into shards."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsss_core.data.box_noise import noisy
from wsss_core.data.decode import digest_of
from wsss_core.data.examine import (
    KnownFiles,
    class_counts,
    examine_all,
    in_every_image,
    require_classes,
    require_roles,
    with_boxes_of_share,
    without_truth,
    zeros_without_background,
)
from wsss_core.data.parts import part_settings
from wsss_core.data.reading import Problem, Reader
from wsss_core.data.table import ImageRecord, ImageTable, deal, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.store.atomic import atomic_folder, atomic_path
from wsss_core.store.cells import cell

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "ood")
LISTED = 5
"""Problems that the error message shows; the file has them all."""


def run(
    *, config: Path, table: Path, shards: Path, problems: Path, cache: Path, drawn: Path, execution: Execution
) -> None:
    """Write the image table, the shards and the list of problems of a data set.

    Every image is decoded once; results are kept in `cache` by path, size and time of change. All problems are
    collected before anything stops, and the classes are logged with their numbers of images. With ``unreadable: skip``
    an image that cannot be used is left out, a train image whose mask cannot be used is kept without it.

    Parameters
    ----------
    config
        Settings file of the step; the method is the data set's format, a module of `wsss_core.data`.
    table
        Image table of all images.
    shards
        Folder: ``<split>/<shard>.json`` and ``<split>.csv`` for train, val and ood, present even if empty.
        The shards of train also hold images for evaluation that play the role "score". ``train.csv`` is what training
        sees: it holds none of these, and names no true mask.
    problems
        CSV with the columns image, path, problem, severity, action; only its header if all is well.
    cache
        JSON file of what is known about files that have not changed.
    drawn
        Folder for true masks that are drawn from polygons; those that are up to date are kept.

    Raises
    ------
    UserError
        If images, masks or tags cannot be used and may not be skipped, a split turns out empty, a class has no train
        image, tags and masks contradict each other more than chance explains (`wsss_core.data.truth`), or the data
        has no background and a true mask holds a 0.
    """
    step = read_step(config)
    settings = step.settings
    reader: Reader = step.plug
    reading = reader.read(settings, execution.threads, drawn)
    known = KnownFiles.read(cache)
    most = getattr(settings, "max_megapixels", math.inf)  # the demo draws its own pictures
    records, found = examine_all(reading, known, execution.threads, most)
    known.write()
    if getattr(settings, "background", "class") == "none":
        found = [*found, *zeros_without_background(records, known)]
    drawn_by = {part["domain"]: part_settings(part) for part in getattr(settings, "parts", ())}
    records = [with_given_boxes(record, drawn_by.get(record.domain, settings)) for record in records]
    found = sorted({*reading.problems, *found}, key=lambda p: (p.severity == "note", p.image, p.path, p.text))
    log.info("images for training by class: %s", class_counts(reading.class_names, records))
    skip = settings.unreadable == "skip"
    _write_problems(problems, found, skip)
    _stop_or_log(found, problems, skip, len(reading.records))
    require_roles(reading, records)
    require_classes(reading.class_names, records)
    everywhere = in_every_image(reading.class_names, records)
    if everywhere:
        log.warning("%s", everywhere)
    images = ImageTable(reading.class_names, tuple(sorted(records, key=lambda r: r.id)))
    write_table(table, images)
    _write_shards(shards, images, settings.shard_size, known)
    known.write()
    counts = ", ".join(f"{len(images.split(role))} {role}" for role in ("train", "score", "val", "ood"))
    log.info("%d images (%s), %d classes", len(images.records), counts, len(images.class_names))


def with_given_boxes(record: ImageRecord, settings: Any) -> ImageRecord:
    """A record with as many boxes, and as badly drawn ones, as the settings ask for, if it is for training."""
    if "train" not in record.splits or not hasattr(settings, "box_share"):  # not all formats have boxes
        return record
    record = with_boxes_of_share(record, settings.box_share, settings.box_draw)
    if not settings.box_noise:
        return record
    return replace(record, boxes=noisy(record, settings.box_noise, settings.box_noise_kind, settings.box_draw))


def _write_problems(path: Path, problems: Sequence[Problem], skip: bool) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["image", "path", "problem", "severity", "action"])
        for problem in problems:
            action = _action(problem) if skip or problem.severity == "note" else "stop"
            severity = "note" if problem.severity == "note" else "error"
            writer.writerow([*map(cell, (problem.image, problem.path, problem.text)), severity, action])


def _action(problem: Problem) -> str:
    if problem.severity == "error" and not problem.image:
        return "stop"
    return {"error": "image skipped", "mask": "mask skipped", "row": "row skipped", "note": "kept"}[problem.severity]


def _stop_or_log(problems: Sequence[Problem], path: Path, skip: bool, n_images: int) -> None:
    notes = [p for p in problems if p.severity == "note"]
    errors = [p for p in problems if p.severity != "note"]
    if notes:
        log.warning("%d %s about the data, listed in %s:", len(notes), "note" if len(notes) == 1 else "notes", path)
        for problem in notes[:LISTED]:
            log.warning("  %s", _line(problem))
    stopping = [p for p in errors if not skip or _action(p) == "stop"]
    if stopping:
        count = f"{len(stopping)} problem{'s' * (len(stopping) > 1)}"
        lines = [f"{count} in a data set of {n_images} images, listed in {path}:"]
        lines += [f"  {_line(p)}" for p in stopping[:LISTED]]
        lines += [f"  … and {len(stopping) - LISTED} more"] if len(stopping) > LISTED else []
        if any(_action(p) != "stop" for p in stopping):
            lines.append("Mend them, or set dataset.unreadable to skip to go on without what cannot be used.")
        raise UserError("\n".join(lines))
    if errors:
        log.warning("what cannot be used is skipped (%d in all, listed in %s):", len(errors), path)
        for problem in errors[:LISTED]:
            log.warning("  %s", _line(problem))


def _line(problem: Problem) -> str:
    named = problem.image and problem.image not in problem.path
    return f"{problem.path}: {f'image {problem.image!r}: ' if named else ''}{problem.text}"


def _write_shards(folder: Path, images: ImageTable, shard_size: int, known: KnownFiles) -> None:
    """Write the manifests and the table of every split; files that did not change keep their time of change."""
    before = known.content["written"]
    with atomic_folder(folder) as temporary:
        for split in SPLITS:
            (temporary / split).mkdir()
            for name, members in deal(images.in_shards(split), shard_size).items():
                write_manifest(temporary / split / f"{name}.json", images.class_names, members)
            records = images.split(split)
            shown = [without_truth(r) for r in records] if split == "train" else records
            write_table(temporary / f"{split}.csv", ImageTable(images.class_names, tuple(shown)))
        written = {}
        for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
            name, digest = path.relative_to(temporary).as_posix(), digest_of(path.read_bytes())
            if name in before and before[name][0] == digest:
                os.utime(path, ns=(before[name][1], before[name][1]))
            written[name] = [digest, path.stat().st_mtime_ns]
    known.content["written"] = written
