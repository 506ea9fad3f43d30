"""Stage: score class maps over a sweep of background thresholds and choose the threshold."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.data.table import ImageRecord, ImageTable, read_manifest
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import metrics
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.sweep import ScoreSettings, is_held_out, sweep
from wsss_core.evaluate.tables import label_names, write_curve, write_evaluation
from wsss_core.execution import Execution
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import check_classes
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import write_text
from wsss_core.store.cut import Cut
from wsss_core.store.masks import read_mask
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import RecordStore

log = logging.getLogger(__name__)


def run(
    *,
    config: Path,
    manifests: Sequence[Path],
    maps: Sequence[Path],
    curve: Path,
    evaluation: Path,
    threshold: Path,
    execution: Execution,
) -> None:
    """Score the maps of the images that play the role "score" and have a mask.

    Parameters
    ----------
    config
        The step's JSON, settings of `ScoreSettings`.
    maps
        Seed or score shards that hold every image scored.
    curve
        CSV of mean scores at every threshold; it uses the masks, for reporting only.
    evaluation
        CSV of the scores at the chosen threshold.
    threshold
        JSON with "rule", "value" and, where there are masks, "miou" at the value and "oracle" (the best threshold on
        the evaluated masks and its mIoU, for reporting only).

    Raises
    ------
    UserError
        If a rule needs masks and there are none, maps of an image are missing, or the class lists differ.
    """
    execution.torch_device()
    settings = from_mapping(ScoreSettings, read_step(config).settings)
    tables = [read_manifest(path) for path in manifests]
    class_names = _class_names(tables, manifests)
    records = [r for table in tables for r in table.records if "score" in r.splits and r.mask]
    if not records:
        _without_masks(settings, curve, evaluation, threshold, class_names)
        return
    held_out = settings.rule == "heldout"
    choosing = [r for r in records if held_out and is_held_out(r.id, settings.heldout_fraction)]
    evaluated = [r for r in records if not (held_out and is_held_out(r.id, settings.heldout_fraction))]
    if held_out and not (choosing and evaluated):
        raise UserError(
            f"rule heldout: a fraction of {settings.heldout_fraction} of {len(records)} images with masks leaves "
            f"{len(choosing)} to choose the threshold on and {len(evaluated)} to evaluate; change heldout_fraction"
        )
    _check_maps(maps, records, class_names)
    levels = settings.thresholds()
    matrices = sweep(_pairs(maps, evaluated, class_names), levels, len(class_names) + 1)
    scores = metrics(matrices)
    best = int(scores.mean("iou").argmax())
    if settings.rule == "fixed":
        chosen = levels.index(settings.threshold)
    elif settings.rule == "oracle":
        chosen = best
    else:
        chosen_on = sweep(_pairs(maps, choosing, class_names), levels, len(class_names) + 1)
        chosen = int(metrics(chosen_on).mean("iou").argmax())
    header = ScoreHeader("score", len(evaluated), len(choosing), cut=Cut(settings.rule, levels[chosen]))
    write_curve(curve, replace(header, cut=Cut("all")), levels, scores)
    write_evaluation(evaluation, header, label_names(class_names), metrics(matrices[chosen]))
    result = {
        "rule": settings.rule,
        "value": levels[chosen],
        "miou": _rounded(scores, chosen),
        "oracle": {"value": levels[best], "miou": _rounded(scores, best)},
    }
    write_text(threshold, json.dumps(result) + "\n")
    log.info(
        "%d images: mIoU %.4f at threshold %.3f (%s); best in hindsight %.4f at %.3f",
        len(evaluated),
        result["miou"],
        levels[chosen],
        settings.rule,
        result["oracle"]["miou"],
        levels[best],
    )


def _without_masks(
    settings: ScoreSettings, curve: Path, evaluation: Path, threshold: Path, class_names: Sequence[str]
) -> None:
    if settings.rule != "fixed":
        raise UserError(
            f"score.rule is {settings.rule}, which chooses the threshold on masks, but the data set has no image to "
            "score: give masks or use rule fixed"
        )
    header = ScoreHeader("score", 0)
    write_curve(curve, header, (), None)
    write_evaluation(evaluation, header, label_names(class_names), None)
    write_text(threshold, json.dumps({"rule": "fixed", "value": settings.threshold}) + "\n")
    log.info("no masks to score; the threshold is %.3f", settings.threshold)


def _rounded(scores: Any, index: int) -> float:
    return round(float(scores.mean("iou")[index]), 6)


def _class_names(tables: Sequence[ImageTable], manifests: Sequence[Path]) -> tuple[str, ...]:
    for table, path in zip(tables, manifests, strict=True):
        check_classes(path, table.class_names, tables[0].class_names)
    return tables[0].class_names if tables else ()


def _open(path: Path, class_names: Sequence[str]) -> RecordStore[SeedMaps | ScoreMaps]:
    store = RecordStore(path, SEEDS, SCORES)
    check_classes(path, store.attrs.get("class_names"), class_names)
    return store


def _check_maps(maps: Sequence[Path], records: Sequence[ImageRecord], class_names: Sequence[str]) -> None:
    held = {image_id for path in maps for image_id in _open(path, class_names)}
    for record in records:
        if record.id not in held:
            raise UserError(f"image {record.id!r} has a mask to score but no maps")


def _pairs(
    maps: Sequence[Path], records: Sequence[ImageRecord], class_names: Sequence[str]
) -> Iterator[tuple[Any, np.ndarray]]:
    """Maps and true mask of every record, one shard open at a time."""
    wanted = {record.id: record for record in records}
    for path in maps:
        store = _open(path, class_names)
        for record in (wanted[image_id] for image_id in store if image_id in wanted):
            yield store[record.id], read_mask(Path(record.mask), record.size, len(class_names) + 1)
