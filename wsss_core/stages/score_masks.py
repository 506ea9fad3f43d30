"""Stage: score label masks (pseudo-masks of the training images, or a network's predictions)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.table import read_manifest
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import IGNORE, confusion, metrics
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.sweep import MaskScoreSettings, is_held_out
from wsss_core.evaluate.tables import label_names, write_evaluation
from wsss_core.execution import Execution
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import mask_files
from wsss_core.stages.step import read_step
from wsss_core.store.cut import Cut, read_about
from wsss_core.store.masks import read_mask

log = logging.getLogger(__name__)


def run(
    *, config: Path, manifests: Sequence[Path], masks: Sequence[Path], evaluation: Path, execution: Execution
) -> None:
    """Score masks against the true ones.

    Predictions of a segmentation network are scored on the images that play the role "val", pseudo-masks on those
    that play the role "score"; images without a mask are left out, and so are those that chose the masks' threshold.

    Parameters
    ----------
    config
        The step's JSON, settings of `MaskScoreSettings`; its stage says which role is scored.
    masks
        Folders of PNGs named by `mask_name`.
    evaluation
        CSV of the scores; only its header if there is nothing to score.

    Raises
    ------
    UserError
        If a mask is missing, of another size, or holds a label out of range; or a folder does not say how its masks
        were made, or says otherwise than the others.
    """
    step = read_step(config)
    settings = from_mapping(MaskScoreSettings, step.settings)
    role = "val" if step.stage.startswith("segmentations/") else "score"
    tables = [read_manifest(path) for path in manifests]
    class_names = tables[0].class_names if tables else ()
    n_labels = len(class_names) + 1
    with_mask = [r for table in tables for r in table.records if role in r.splits and r.mask]
    records = [r for r in with_mask if not is_held_out(r.id, step.held_out)]
    cut = _cut(masks)
    files = mask_files(masks, [record.id for record in records], "masks to score")
    total = np.zeros((n_labels, n_labels), dtype=np.int64)
    undecided = 0
    for record in records:
        target = read_mask(Path(record.mask), record.size, n_labels)
        prediction = read_mask(files[record.id], record.size, n_labels)
        open_pixels = (prediction == IGNORE) & (target != IGNORE)
        undecided += int(open_pixels.sum())
        if settings.ignored == "skip":
            target = np.where(open_pixels, IGNORE, target)
        total += confusion(np.where(prediction == IGNORE, 0, prediction), target, n_labels)
    scores = metrics(total) if records else None
    header = ScoreHeader(
        split=role,
        images=len(records),
        choosing=len(with_mask) - len(records),
        ignored_in_prediction=settings.ignored,
        undecided=undecided,
        cut=cut,
    )
    write_evaluation(evaluation, header, label_names(class_names), scores)
    log.info("%d images%s", len(records), f": mIoU {scores.mean('iou'):.4f}" if scores else ", no masks to score")


def _cut(masks: Sequence[Path]) -> Cut:
    """How the masks of all shards were made; without any, nothing was cut."""
    cuts = {read_about(folder): folder for folder in masks}
    if len(cuts) > 1:
        raise UserError(f"masks of {' and '.join(map(str, cuts.values()))} were not made alike: make them again")
    return next(iter(cuts), Cut("none"))
