"""The pictures on the page: training and validation images, stage by stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.decode import read_image
from wsss_core.data.missing import true_labels
from wsss_core.data.table import ImageRecord
from wsss_core.evaluate.header import scored_split
from wsss_core.evaluate.mask_signs import confidence
from wsss_core.jobs.run_files import KINDS, Labels, RunFiles
from wsss_core.report import overlays
from wsss_core.report.choose import Choice, choose, choose_in_turn, image_miou, mistakes, sample
from wsss_core.report.page import (
    Cell,
    Gallery,
    Row,
    percent,
)

log = logging.getLogger(__name__)

RANKED = 2000
"""At most so many images are scored one by one to find the best and the worst."""

LONG_SIDE = 320
"""Longer side of the pictures, in pixels."""

COLUMNS = 6
"""At most so many stages stand beside each other."""

MISTAKES = 10
"""So many of the largest confusions are listed."""


def galleries(files: RunFiles) -> list[Gallery]:
    """Pictures of training and of validation images, stage by stage; empty without images or settings to show any."""
    count = files.configuration.report.get("images", 0)
    if not count:
        return []
    seeds, refinements = files.having("seeds", "maps"), files.having("refinements", "masks")
    networks = files.having("segmentations", "predictions")
    found = [
        _gallery(files, _title_of_masks(files), "train", "score", [*seeds, *refinements], count),
        _gallery(files, "Validation images", "val", "val", networks, count),
    ]
    return [gallery for gallery in found if gallery is not None]


def _title_of_masks(files: RunFiles) -> str:
    """What the images are whose maps and masks are shown."""
    of_val = scored_split(files.table.split("score")) == "val"
    return "Validation images, which no training sees: maps and masks" if of_val else "Training images"


def _gallery(files: RunFiles, title: str, split: str, role: str, names: Sequence[str], count: int) -> Gallery | None:
    """Pictures of a split; `role` is that of the images whose masks may be looked at."""
    records = {record.id: record for record in files.table.in_shards(split)}
    if not records or not names:
        return None
    log.info("pictures of %s", title.lower())
    names = _as_columns(files, names)
    shards = files.shards(split)
    reader = Labels(files, shards)
    scored = [r.id for r in records.values() if role in r.splits and r.mask and r.id in shards]
    ranked = sample(scored, RANKED)
    choices, matrix = _ranking(files, reader, names[-1], [records[i] for i in ranked], count)
    by_sign = not choices
    if by_sign:
        tagged = [record for i, record in records.items() if record.classes and i in shards]
        choices = _by_sign(files, reader, names[-1], tagged, count) or [Choice(i) for i in sorted(records)[:count]]
    rows = [_row(files, reader, records[choice.id], choice, names, role) for choice in choices]
    with_truth = any(row.cells[-1].uri for row in rows)
    columns = [("image", "")]
    columns += [(name, f"{KINDS[files.stages[name].section]}, {files.stages[name].method}") for name in names]
    columns += [("truth", "for reporting")] if with_truth else []
    if not with_truth:
        rows = [Row(row.id, row.reason, row.tags, row.cells[:-1]) for row in rows]
    return Gallery(
        title,
        _gallery_note(files, names, scored, ranked, choices, by_sign),
        columns,
        rows,
        mistakes(matrix, MISTAKES) if matrix is not None else [],
        names[-1],
    )


def _by_sign(files: RunFiles, reader: Labels, name: str, tagged: Sequence[ImageRecord], count: int) -> list[Choice]:
    """The images to show where there are no true masks: the classes in turn, by how confident the maps are."""
    records = {record.id: record for record in tagged}
    signs = _confidences(files, reader, name, [records[i] for i in sample(list(records), RANKED)])
    choices = choose_in_turn(signs, {i: record.classes for i, record in records.items()}, count)
    if len(set(signs.values())) == 1:  # of images without maps nothing is better than another
        return [Choice(choice.id) for choice in choices]
    return choices


def _confidences(files: RunFiles, reader: Labels, name: str, records: Sequence[ImageRecord]) -> dict[str, float]:
    """How confident the maps under a stage's masks are of each image; 0 where there are no maps."""
    seed = files.configuration.ancestor(name, "seeds")
    found = {}
    for record in records:
        maps = None if seed is None else reader.maps(seed.name, record.id)
        labels = reader.labels(name, record)
        found[record.id] = 0.0 if maps is None or labels is None else confidence(maps[0].numpy(), labels)
    return found


def _gallery_note(
    files: RunFiles,
    names: Sequence[str],
    scored: Sequence[str],
    ranked: Sequence[str],
    choices: Sequence[Choice],
    by_sign: bool,
) -> str:
    words = []
    if by_sign and any(choice.reason for choice in choices):
        words.append(
            "The classes in turn. There are no true masks: best, median and worst are by the mean of the strongest "
            "class map where a class was found, which is no score."
        )
    elif any(choice.reason for choice in choices):
        among = (
            f"{len(scored):,} images" if len(ranked) == len(scored) else f"{len(ranked):,} of {len(scored):,} images"
        )
        words.append(f"The best, the median and the worst of {among} by {names[-1]}.")
    if scored:
        words.append("Under each picture: mIoU over the labels of this image, in percent.")
    if any(files.stages[name].section == "seeds" for name in names):
        words.append("Seeds show the strongest class of every pixel; the dark line is the background threshold.")
    return " ".join(words)


def _as_columns(files: RunFiles, names: Sequence[str]) -> list[str]:
    """At most `COLUMNS` stages: the last one and as many others as fit, targets before the rest."""
    targets = [name for name in names[:-1] if name in files.configuration.targets]
    others = [name for name in names[:-1] if name not in targets]
    kept = {names[-1], *[*targets, *others][: COLUMNS - 1]}
    return [name for name in names if name in kept]


def _ranking(
    files: RunFiles, reader: Labels, name: str, records: Sequence[ImageRecord], count: int
) -> tuple[list[Choice], np.ndarray | None]:
    """The images to show by the scores of one stage, among those that hold a class; and their confusion matrix."""
    scores: dict[str, float] = {}
    total = np.zeros((len(files.labels), len(files.labels)), dtype=np.int64)
    for record in records:
        target = true_labels(record, len(files.labels))
        matrix = reader.matrix(name, record, target)
        if matrix is None:
            continue
        total += matrix
        if matrix[1:].any():
            scores[record.id] = image_miou(matrix)
    return choose(scores, count), total if scores else None


def _row(files: RunFiles, reader: Labels, record: ImageRecord, choice: Choice, names: Sequence[str], role: str) -> Row:
    image = read_image(Path(record.path))
    size = overlays.fitted(*record.size, LONG_SIDE)
    small = overlays.resized(image, size)
    tags = [(c + 1, files.labels[c + 1]) for c in record.classes]
    described = f"image {record.id} ({', '.join(name for _, name in tags) or 'no class'})"
    target = None
    if role in record.splits and record.mask:
        target = true_labels(record, len(files.labels))
    cells = [Cell(overlays.data_uri(small), f"Photo: {described}")]
    for name in names:
        matrix = reader.matrix(name, record, target) if target is not None else None
        score = None if matrix is None else image_miou(matrix)
        picture = _picture(files, reader, name, record, small, size)
        alt = f"{name} on {described}" + (f", mIoU {percent(score)} %" if score is not None else "")
        cells.append(Cell(overlays.data_uri(picture) if picture is not None else "", alt, score))
    truth = overlays.mask_overlay(small, overlays.resized_labels(target, size)) if target is not None else None
    cells.append(Cell(overlays.data_uri(truth) if truth is not None else "", f"True mask of {described}"))
    return Row(record.id, choice.reason, tags, cells)


def _picture(
    files: RunFiles, reader: Labels, name: str, record: ImageRecord, small: np.ndarray, size: tuple[int, int]
) -> np.ndarray | None:
    if files.stages[name].section == "seeds":
        found = reader.maps(name, record.id)
        if found is None:
            return None
        maps, classes = found
        threshold = reader.threshold(name, maps)
        return overlays.heat_overlay(small, overlays.resized_maps(maps.numpy(), size), classes, threshold)
    labels = reader.labels(name, record)
    return None if labels is None else overlays.mask_overlay(small, overlays.resized_labels(labels, size))
