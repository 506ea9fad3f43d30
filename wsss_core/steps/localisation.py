"""Score the class maps of a seed as localisation: their boxes against the boxes of the data set."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from wsss_core.constants import MEAN_ROW
from wsss_core.data.table import ImageRecord, check_classes, read_manifests
from wsss_core.data.true_masks import read_true_mask
from wsss_core.errors import UserError
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.localisation import (
    COLUMNS,
    LEVELS,
    LocalisationSettings,
    Located,
    best_level,
    localisation_rows,
    located,
)
from wsss_core.evaluate.predicted import read_predicted
from wsss_core.evaluate.sweep import is_held_out
from wsss_core.evaluate.tables import write_rows
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.store.cut import Cut
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import RecordStore

log = logging.getLogger(__name__)


def run(
    *,
    config: Path,
    manifests: Sequence[Path],
    maps: Sequence[Path],
    predicted: Path | None,
    localisation: Path,
    execution: Execution,
) -> None:
    """Score the maps of all images for training that have boxes; masks are read where there are any, for PxAP.

    Parameters
    ----------
    config
        Settings file of the step.
    manifests
        Manifests of all shards.
    maps
        Seed shards of these images.
    predicted
        CSV of the class that the seed's classifier takes each image for, for Top-1 localisation; None without one.
    localisation
        CSV to write; see `wsss_core.evaluate.localisation.localisation_rows`. Only its header if no image has boxes.

    Raises
    ------
    UserError
        If no rule is given, maps of an image are missing or are for other classes, or rule heldout leaves no image on
        one side.
    """
    settings: LocalisationSettings = read_step(config).settings
    if settings.rule is None:
        raise UserError("localisation.rule is null: name a rule (fixed, heldout or oracle) to score localisation")
    table = read_manifests(manifests)
    names = table.class_names
    records = {record.id: record for record in table.split("train") if _boxes(record)[1].size}
    choosing = {i for i in records if settings.rule == "heldout" and is_held_out(i, settings.heldout_fraction)}
    if records and settings.rule == "heldout" and len(choosing) in (0, len(records)):
        raise UserError(
            f"localisation, rule heldout: a fraction of {settings.heldout_fraction} of {len(records)} images with "
            f"boxes leaves {len(choosing)} to choose the threshold on; change localisation.heldout_fraction"
        )
    guesses = read_predicted(predicted, names) if predicted else {}
    parts = {
        record.id: _located(record, seed, len(names), guesses.get(record.id))
        for record, seed in _pairs(maps, records, names)
    }
    if missing := [image_id for image_id in records if image_id not in parts]:
        raise UserError(f"image {missing[0]!r} has boxes but no maps")
    found = Located.together((part for image_id, part in parts.items() if image_id not in choosing), len(names))
    if not len(found.classes):
        write_rows(localisation, ScoreHeader("score", 0), COLUMNS, {})
        log.info("no boxes to score")
        return
    level = {
        "fixed": lambda: int(np.abs(LEVELS - settings.threshold).argmin()),
        "oracle": lambda: best_level(found),
        "heldout": lambda: best_level(Located.together((parts[image_id] for image_id in choosing), len(names))),
    }[settings.rule]()
    rows = localisation_rows(found, level, names)
    note = "boxes take the place of masks; max_ columns are the best of all thresholds in hindsight"
    cut = Cut(settings.rule, float(LEVELS[level]), notes=(note,))
    header = ScoreHeader("score", len(records) - len(choosing), len(choosing), cut=cut)
    write_rows(localisation, header, COLUMNS, rows)
    mean = rows[MEAN_ROW]
    log.info(
        "%d maps: BoxAcc %.4f, CorLoc %.4f at threshold %.2f (%s); best in hindsight %.4f",
        mean["maps"],
        mean["box_acc"],
        mean["corloc"],
        LEVELS[level],
        settings.rule,
        mean["max_box_acc"],
    )


def _boxes(record: ImageRecord) -> tuple[np.ndarray, np.ndarray]:
    """Corners [B, 4] and classes [B] of an image's boxes that are no crowds."""
    boxes = [box for box in record.boxes if not box.crowd]
    corners = np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4)
    return corners, np.array([box.label for box in boxes], dtype=np.int64)


def _pairs(
    paths: Sequence[Path], records: Mapping[str, ImageRecord], class_names: Sequence[str]
) -> Iterator[tuple[ImageRecord, SeedMaps]]:
    """Every image with its maps, one shard open at a time."""
    for path in paths:
        store = RecordStore(path, SEEDS)
        check_classes(path, store.attrs.get("class_names"), class_names)
        yield from ((records[image_id], store[image_id]) for image_id in store if image_id in records)


def _located(record: ImageRecord, seed: SeedMaps, n_classes: int, guess: int | None) -> Located:
    mask = read_true_mask(record, n_classes + 1) if record.mask else None
    return located(seed.full().numpy(), seed.classes, *_boxes(record), mask, n_classes, guess)
