"""Score the boxes that a detector finds in the images that no training sees."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.constants import MEAN_ROW
from wsss_core.data.decoded import read_record
from wsss_core.data.table import ImageRecord, check_classes, read_manifests
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.instances import COLUMNS, Judged, judge_boxes, object_rows
from wsss_core.evaluate.tables import write_rows
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.models.detector import Detector, open_detector
from wsss_core.pace import Clock
from wsss_core.store.instances import Instances

log = logging.getLogger(__name__)


def run(*, config: Path, manifests: Sequence[Path], model: Path, scores: Path, execution: Execution) -> None:
    """Score the boxes found in the images of the role "val", against those of the data set.

    Parameters
    ----------
    config
        Settings file of the step.
    manifests
        Manifests of all shards.
    model
        Checkpoint of the detector.
    scores
        CSV to write: a row a class, and their mean.

    Raises
    ------
    UserError
        If an image cannot be read, or the detector knows other classes.
    """
    read_step(config)
    table = read_manifests(manifests)
    detector = open_detector(model, execution.torch_device())
    check_classes(model, detector.class_names, table.class_names)
    records = [record for record in table.split("val") if record.boxes]
    clock = Clock("image", len(records))
    judged = []
    for number, record in enumerate(records, start=1):
        judged.append(judge_boxes(_found(detector, record), _given(record)))
        pace = clock.pace(number, last=number == len(records))
        if pace:
            log.info("%s", pace)
    rows = object_rows(Judged.together(judged), table.class_names)
    write_rows(scores, ScoreHeader("val", len(judged)), COLUMNS, rows if judged else {})
    mean = rows[MEAN_ROW]
    log.info("%d images, %d boxes: AP %.4f, AP50 %.4f", len(judged), mean["objects"], mean["ap"], mean["ap50"])


def _given(record: ImageRecord) -> Instances:
    crowd = [box.crowd for box in record.boxes]
    return _boxed([box.label for box in record.boxes], [box.corners for box in record.boxes], None, crowd)


def _found(detector: Detector, record: ImageRecord) -> Instances:
    found = detector.detect(read_record(record))
    return _boxed(found.classes.cpu().numpy(), found.boxes.cpu().numpy(), found.scores.cpu().numpy())


def _boxed(classes: Any, boxes: Any, scores: Any = None, crowd: Any = None) -> Instances:
    """Objects of which the boxes alone are known: their masks have no pixels."""
    return Instances.of((0, 0), classes, boxes, np.zeros((len(classes), 0, 0), dtype=bool), scores, crowd=crowd)
