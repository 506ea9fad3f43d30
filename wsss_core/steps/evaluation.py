"""Score the label masks of a refinement, or the predictions of a network, against the true masks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.missing import true_labels
from wsss_core.data.table import read_manifests
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import mask_confusion, metrics
from wsss_core.evaluate.header import ScoreHeader, scored_split
from wsss_core.evaluate.labelled import is_labelled
from wsss_core.evaluate.sweep import EvaluationSettings, is_held_out
from wsss_core.evaluate.tables import label_names, write_domains, write_evaluation
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.store.cut import Cut, read_about
from wsss_core.store.masks import mask_files, read_mask

log = logging.getLogger(__name__)


def run(
    *,
    config: Path,
    manifests: Sequence[Path],
    masks: Sequence[Path],
    evaluation: Path,
    domains: Path,
    execution: Execution,
) -> None:
    """Score masks.

    Predictions of a segmentation network are scored on the images that play the role "val", pseudo-masks on those
    that play the role "score"; images without a mask are left out, and so are those that chose the threshold of these
    masks or of those that a network learned, and those whose true masks were learned from.

    Parameters
    ----------
    config
        Settings file of the step.
    manifests
        Manifests of all shards.
    masks
        Folders of PNGs, each named by `mask_name`.
    evaluation
        CSV of the scores to write; only its header if there is nothing to score.
    domains
        CSV of the scores of each data set to write, where there are several.

    Raises
    ------
    UserError
        If a mask is missing, of another size, or holds a label out of range, or the masks of two shards were not made
        alike.
    """
    step = read_step(config)
    settings: EvaluationSettings = step.settings
    role: Literal["val", "score"] = "val" if step.step.split == "val" else "score"
    table = read_manifests(manifests)
    n_labels = len(table.class_names) + 1
    all_with_mask = [r for r in table.split(role) if r.mask]
    with_mask = [r for r in all_with_mask if not any(is_labelled(r.id, *drawn) for drawn in step.labelled)]
    records = [r for r in with_mask if "score" not in r.splits or not is_held_out(r.id, step.held_out)]
    cut = _cut(masks)
    files = mask_files(masks, [record.id for record in records], "masks to score")
    total, undecided = np.zeros((n_labels, n_labels), dtype=np.int64), 0
    by_domain = {domain: np.zeros_like(total) for domain in table.domains}
    for record in records:
        target = true_labels(record, n_labels)
        prediction = read_mask(files[record.id], record.size, n_labels)
        undecided += int(((prediction == IGNORE) & (target != IGNORE)).sum())
        matrix = mask_confusion(prediction, target, n_labels, skip_ignored=settings.ignored == "skip")
        total += matrix
        if record.domain:
            by_domain[record.domain] += matrix
    scores = metrics(total) if records else None
    header = ScoreHeader(
        split=role if role == "val" else scored_split(all_with_mask),
        images=len(records),
        choosing=len(with_mask) - len(records),
        learned=len(all_with_mask) - len(with_mask),
        ignored_in_prediction=settings.ignored,
        undecided=undecided,
        cut=cut,
    )
    write_evaluation(evaluation, header, label_names(table.class_names), scores)
    found = {domain: metrics(matrix) for domain, matrix in by_domain.items() if matrix.any()}
    write_domains(domains, header, label_names(table.class_names), found)
    log.info("%d images%s", len(records), f": mIoU {scores.mean('iou'):.4f}" if scores else ", no masks to score")


def _cut(masks: Sequence[Path]) -> Cut:
    """How the masks of all shards were made; without any, nothing was cut."""
    cuts = {read_about(folder): folder for folder in masks}
    if len(cuts) > 1:
        raise UserError(f"masks of {' and '.join(map(str, cuts.values()))} were not made alike: make them again")
    return next(iter(cuts), Cut("none"))
