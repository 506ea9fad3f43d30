"""The pictures of single objects on the page: boxes, what they were attributed to, and masks, stage by stage."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from wsss_core.constants import MEAN_ROW
from wsss_core.data.decode import read_image
from wsss_core.data.instances import true_instances
from wsss_core.data.table import ImageRecord
from wsss_core.jobs.run_files import KINDS, RunFiles, read_rows
from wsss_core.report import overlays
from wsss_core.report.choose import sample
from wsss_core.report.page import Cell, Gallery, Number, NumberTable, Row, percent
from wsss_core.store.attributions import AttributionStore
from wsss_core.store.instances import Instances, InstanceStore

log = logging.getLogger(__name__)

OPEN = 8
"""Files of a stage that are kept open, since opening one checks its digest."""
LONG_SIDE = 320
"""Longer side of the pictures, in pixels."""

SCORES = {
    "ap": "AP",
    "ap25": "AP25",
    "ap50": "AP50",
    "ap70": "AP70",
    "ap75": "AP75",
    "abo": "best overlap",
    "iou": "IoU in its box",
}
"""Columns of the scores that the page shows, and their names there."""

LOCALISATION = {
    "box_acc": "BoxAcc",
    "box_acc_v2": "BoxAcc V2",
    "corloc": "CorLoc",
    "max_box_acc": "best in hindsight",
    "max_box_acc_v2": "best in hindsight, V2",
    "px_ap": "PxAP",
}
"""Likewise of scores of maps as localisation."""

SHOWN = 0.5
"""Predicted objects of a lower score are not drawn."""

Drawer = Callable[[ImageRecord, np.ndarray], np.ndarray | None]
"""From an image and its small photo, uint8 [h, w, 3], to the picture of a stage."""


def object_galleries(files: RunFiles) -> list[Gallery]:
    """Pictures of the objects of training and of validation images; empty in a run without any."""
    count = files.configuration.report.get("images", 0)
    attributions = files.having("attributions", "attributions")
    masks, networks = files.having("instances", "instances"), files.having("instance_networks", "predictions")
    found = []
    if count and (attributions or masks):
        drawers = {name: _attributed(files, name) for name in attributions}
        drawers |= {name: _masked(files, name, "instances") for name in masks}
        found.append(_gallery(files, "Objects of training images", "train", drawers, count))
    if count and networks:
        drawers = {name: _masked(files, name, "predictions") for name in networks}
        found.append(_gallery(files, "Objects found in validation images", "val", drawers, count))
    return found


def object_tables(files: RunFiles) -> list[NumberTable]:
    """Scores of detectors, of the masks of objects, of instance networks, and of maps as localisation, of those that
    have any.
    """
    coco = "AP as COCO defines it (docs/evaluation.md)"
    boxes = "the box around the high values of a map, against the boxes of its class (docs/evaluation.md)"
    of_networks = ("instance_networks", "instance_scores.csv")
    tables = (
        ("Boxes found by detectors", "detectors", "box_scores.csv", SCORES, f"validation images, by boxes; {coco}"),
        ("Masks of objects", "instances", "instance_scores.csv", SCORES, f"training images, by masks; {coco}"),
        ("Objects found by instance networks", *of_networks, SCORES, f"validation images, by masks; {coco}"),
        ("Localisation by maps", "seeds", "localisation.csv", LOCALISATION, f"training images; {boxes}"),
    )
    found = []
    for title, section, file, scores, words in tables:
        means: dict[str, dict[str, str]] = {}
        for name in files.having(section, file):
            rows = read_rows(files.folder(name) / file, ("class",))
            means.update((name, row) for row in rows if row["class"] == MEAN_ROW)
        if means:
            columns = {key: text for key, text in scores.items() if any(row.get(key) for row in means.values())}
            numbers = [(name, [_number(row.get(key)) for key in columns]) for name, row in means.items()]
            note = f"Percent, means over the classes, on {words}."
            found.append(NumberTable(title, note, [KINDS[section], *columns.values()], numbers))
    return found


def _number(text: str | None) -> Number:
    value = float(text) if text else math.nan
    return Number(percent(value), 0.0 if math.isnan(value) else value)


def _gallery(files: RunFiles, title: str, split: str, drawers: dict[str, Drawer], count: int) -> Gallery:
    log.info("pictures of %s", title.lower())
    records = {record.id: record for record in files.table.split(split)}
    chosen = [records[i] for i in sample([i for i, record in records.items() if record.boxes], count)]
    rows = [_row(files, record, drawers) for record in chosen]
    columns = [("image", "and its boxes")]
    columns += [(name, f"{KINDS[files.stages[name].section]}, {files.stages[name].method}") for name in drawers]
    note = "Images chosen by a hash of their names. Hatched: pixels of which it is not said whether they belong."
    if any(record.instances for record in chosen):
        return Gallery(title, note, [*columns, ("truth", "for reporting")], rows)
    return Gallery(title, note, columns, [Row(row.id, row.reason, row.tags, row.cells[:-1]) for row in rows])


def _row(files: RunFiles, record: ImageRecord, drawers: dict[str, Drawer]) -> Row:
    image = read_image(Path(record.path))
    small = overlays.resized(image, overlays.fitted(*record.size, LONG_SIDE))
    tags = [(c + 1, files.labels[c + 1]) for c in record.classes]
    described = f"image {record.id}"
    boxed = _drawn(small, record.size, Instances.of(record.size), [box.label for box in record.boxes], _corners(record))
    cells = [Cell(overlays.data_uri(boxed), f"Photo with its boxes: {described}")]
    for name, draw in drawers.items():
        picture = draw(record, small)
        cells.append(Cell("" if picture is None else overlays.data_uri(picture), f"{name} on {described}"))
    truth = _objects(small, true_instances(record)) if record.instances else None
    cells.append(Cell("" if truth is None else overlays.data_uri(truth), f"True objects of {described}"))
    return Row(record.id, "", tags, cells)


def _corners(record: ImageRecord) -> np.ndarray:
    return np.array([box.corners for box in record.boxes], dtype=np.float64).reshape(-1, 4)


def _attributed(files: RunFiles, name: str) -> Drawer:
    split, opened = files.shards("train"), lru_cache(OPEN)(AttributionStore)

    def draw(record: ImageRecord, small: np.ndarray) -> np.ndarray | None:
        path = files.folder(name) / "attributions" / f"{split[record.id]}.h5"
        if not path.exists():
            return None
        found = opened(path)[record.id]
        maps = (
            np.stack([found.full(k).numpy() for k in range(len(found))]) if len(found) else np.zeros((0, *found.size))
        )
        resized = overlays.resized_maps(maps.astype(np.float32), small.shape[:2])
        return overlays.heat_overlay(small, resized, found.classes.tolist())

    return draw


def _masked(files: RunFiles, name: str, product: str) -> Drawer:
    shards = files.shards("train" if product == "instances" else "val")
    opened = lru_cache(OPEN)(InstanceStore)

    def draw(record: ImageRecord, small: np.ndarray) -> np.ndarray | None:
        path = files.folder(name) / product / f"{shards[record.id]}.h5"
        return _objects(small, opened(path)[record.id]) if path.exists() else None

    return draw


def _objects(small: np.ndarray, found: Instances) -> np.ndarray:
    sure = np.flatnonzero(found.scores >= SHOWN)
    kept = Instances.of(
        found.size, found.classes[sure], found.boxes[sure], found.masks[sure], ignored=found.ignored[sure]
    )
    return _drawn(small, found.size, kept, kept.classes.tolist(), kept.boxes)


def _drawn(
    small: np.ndarray, size: tuple[int, int], found: Instances, classes: Sequence[int], boxes: np.ndarray
) -> np.ndarray:
    """Objects of an image of a size (H, W) over its small photo, and boxes of the same or of other objects."""
    scale = np.array([small.shape[1] / size[1], small.shape[0] / size[0]] * 2)
    masks, ignored = _resized(found.masks, small.shape[:2]), _resized(found.ignored, small.shape[:2])
    drawn = overlays.objects_overlay(small, masks, found.classes.tolist(), ignored)
    return overlays.boxes_overlay(drawn, boxes * scale, classes)


def _resized(masks: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    planes = [overlays.resized_labels(mask.astype(np.uint8), (size[0], size[1])) > 0 for mask in masks]
    return np.stack(planes) if planes else np.zeros((0, *size), dtype=bool)
