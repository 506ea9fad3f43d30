"""Score class maps over a sweep of background thresholds, and choose the threshold."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from wsss_core.data.missing import true_labels
from wsss_core.data.table import check_classes, read_manifests
from wsss_core.errors import UserError
from wsss_core.evaluate.header import ScoreHeader, scored_split
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.evaluate.sweep import ScoresSettings
from wsss_core.evaluate.tables import label_names, write_curve, write_evaluation
from wsss_core.evaluate.thresholds import divided, score_thresholds
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.store.atomic import write_text
from wsss_core.store.cut import Cut
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
        Settings file of the step.
    manifests
        Manifests of all shards.
    maps
        Seed or score shards that hold every image scored.
    curve
        CSV to write, of mean scores at every threshold; it uses the masks, for reporting only.
    evaluation
        CSV to write, of the scores at the chosen threshold.
    threshold
        JSON to write, with "rule", "value" and, where there are masks, "miou" at the value and "oracle" (the best
        threshold on the evaluated masks and its mIoU, for reporting only). Under rule otsu also "values", the threshold
        of every image that has a class, with a mask or without; "value" is their median, and "miou" that of all images
        cut at their own. Under rule none "value" is null, and there is no "oracle" and no curve.

    Raises
    ------
    UserError
        If a rule needs masks and there are none, maps of an image are missing, or the class lists differ.
    """
    settings: ScoresSettings = read_step(config).settings
    table = read_manifests(manifests)
    names = table.class_names
    records = {r.id: r for r in table.split("score") if r.mask}
    own = _own_thresholds(maps, names) if settings.rule == "otsu" else {}
    if not records:
        _without_masks(settings, own, curve, evaluation, threshold, names)
        return
    choosing, scored = divided(list(records), settings)
    held = {image_id for path in maps for image_id in _open(path, names)}
    missing = [image_id for image_id in records if image_id not in held]
    if missing:
        raise UserError(f"image {missing[0]!r} has a mask to score but no maps")

    def pairs(image_ids: Sequence[str]) -> Iterator[tuple[Any, np.ndarray]]:
        """Maps and true mask of every image, one shard open at a time."""
        wanted = set(image_ids)
        for path in maps:
            store = _open(path, names)
            for record in (records[image_id] for image_id in store if image_id in wanted):
                yield store[record.id], true_labels(record, len(names) + 1)

    found = score_thresholds(pairs, choosing, scored, settings, len(names) + 1)
    value = _typical(own) if found.chosen is None else found.chosen
    header = ScoreHeader(
        scored_split(list(records.values())), len(scored), len(choosing), cut=Cut(settings.rule, found.chosen)
    )
    write_evaluation(evaluation, header, label_names(names), found.at_chosen)
    if settings.rule == "none":
        _without_threshold(header, found.miou(0), curve, threshold)
        return
    write_curve(curve, replace(header, cut=Cut("all")), found.levels, found.scores)
    best = {"value": found.levels[found.best], "miou": found.miou(found.best)}
    miou = round(float(found.at_chosen.mean("iou")), 6)
    result = {"rule": settings.rule, "value": value, "miou": miou, "oracle": best} | ({"values": own} if own else {})
    write_text(threshold, json.dumps(result) + "\n")
    log.info(
        "%d images: mIoU %.4f at threshold %.3f (%s); best in hindsight %.4f at %.3f",
        len(scored),
        miou,
        value,
        settings.rule,
        best["miou"],
        best["value"],
    )


def _without_threshold(header: ScoreHeader, miou: float, curve: Path, threshold: Path) -> None:
    """Of data without a background there is no curve, and the threshold file holds the rule alone, and the score."""
    write_curve(curve, header, (), None)
    write_text(threshold, json.dumps({"rule": "none", "value": None, "miou": miou}) + "\n")
    log.info("%d images: mIoU %.4f, every pixel of a class (no background)", header.images, miou)


def _without_masks(
    settings: ScoresSettings,
    own: dict[str, float],
    curve: Path,
    evaluation: Path,
    threshold: Path,
    class_names: Sequence[str],
) -> None:
    if settings.rule not in ("fixed", "otsu", "none"):
        raise UserError(
            f"score.rule is {settings.rule}, which chooses the threshold on masks, but the data set has no image to "
            "score: give masks or use rule fixed or otsu"
        )
    header = ScoreHeader("score", 0)
    write_curve(curve, header, (), None)
    write_evaluation(evaluation, header, label_names(class_names), None)
    if settings.rule == "none":
        write_text(threshold, json.dumps({"rule": "none", "value": None}) + "\n")
        log.info("no masks to score; every pixel is of a class (no background)")
        return
    value = settings.threshold if settings.rule == "fixed" else _typical(own)
    result = {"rule": settings.rule, "value": value} | ({"values": own} if own else {})
    write_text(threshold, json.dumps(result) + "\n")
    log.info("no masks to score; the threshold is %.3f (%s)", value, settings.rule)


def _own_thresholds(maps: Sequence[Path], class_names: Sequence[str]) -> dict[str, float]:
    """Otsu's threshold of every image that has a class, to six places."""
    found = {}
    for path in maps:
        for image_id, one in _open(path, class_names).items():
            if one.classes:
                found[image_id] = round(otsu_threshold(one.full()), 6)
    return found


def _typical(own: dict[str, float]) -> float:
    """The median of the images' thresholds; 0 without any."""
    return median(own.values()) if own else 0.0


def _open(path: Path, class_names: Sequence[str]) -> RecordStore[SeedMaps | ScoreMaps]:
    store: RecordStore[Any] = RecordStore(path, SEEDS, SCORES)
    check_classes(path, store.attrs.get("class_names"), class_names)
    return store
