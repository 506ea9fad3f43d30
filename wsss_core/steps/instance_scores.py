"""Score the masks of single objects, pseudo-masks or a network's predictions, against the true ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from wsss_core.constants import MEAN_ROW
from wsss_core.data.instances import true_instances
from wsss_core.data.table import read_manifest
from wsss_core.evaluate.header import ScoreHeader, scored_split
from wsss_core.evaluate.instances import (
    COLUMNS,
    PSEUDO_COLUMNS,
    Judged,
    judge_masks,
    object_rows,
    paired_ious,
    pseudo_rows,
)
from wsss_core.evaluate.tables import write_rows
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import open_records
from wsss_core.jobs.step import read_step
from wsss_core.store.instances import INSTANCES

log = logging.getLogger(__name__)


def run(
    *, config: Path, manifests: Sequence[Path], instances: Sequence[Path], scores: Path, execution: Execution
) -> None:
    """Score the objects of all images whose true ones are known: those of the role "val", or "score" in training.

    Masks that were made of boxes are also compared with the true mask of the same box.

    Parameters
    ----------
    config
        Settings file of the step.
    manifests
        Manifests of all shards.
    instances
        Their HDF5 files of instances, named alike.
    scores
        CSV to write: a row a class, and their mean.

    Raises
    ------
    UserError
        If a file cannot be read, or was made for other classes.
    """
    step = read_step(config)
    role: Literal["val", "score"] = "val" if step.step.split == "val" else "score"
    files = {Path(path).stem: path for path in instances}
    names: tuple[str, ...] = ()
    seen, judged, classes, areas, own = [], [], [], [], []
    for manifest in manifests:
        table = read_manifest(manifest)
        names = table.class_names
        store = open_records(files[Path(manifest).stem], table, INSTANCES)
        for record in table.split(role):
            if record.instances:
                true, found = true_instances(record), store[record.id]
                seen.append(record)
                judged.append(judge_masks(found, true))
                classes.append(true.classes)
                areas.append(true.masks.sum((1, 2)))
                own.append(paired_ious(found, true))
    rows = object_rows(Judged.together(judged), names)
    columns: tuple[str, ...] = COLUMNS
    if role == "score" and own:
        of_boxes = pseudo_rows(np.concatenate(classes), np.concatenate(areas), np.concatenate(own), names)
        rows = {name: row | of_boxes[name] | {"objects": row["objects"]} for name, row in rows.items()}
        columns = (*COLUMNS, *(column for column in PSEUDO_COLUMNS if column not in COLUMNS))
    split = role if role == "val" else scored_split(seen)
    write_rows(scores, ScoreHeader(split, len(judged)), columns, rows if judged else {})
    mean = rows[MEAN_ROW]
    log.info("%d images, %d objects: AP50 %.4f, ABO %.4f", len(judged), mean["objects"], mean["ap50"], mean["abo"])
