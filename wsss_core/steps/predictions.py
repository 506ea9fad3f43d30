"""Predict the label masks of one shard of images with a trained segmentation network."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from wsss_core.data.decoded import read_record
from wsss_core.data.table import check_classes, read_manifest
from wsss_core.execution import Execution, in_precision
from wsss_core.jobs.step import read_step
from wsss_core.jobs.together import batches, read_ahead, view_pixels
from wsss_core.pace import Clock
from wsss_core.segment.predict import PredictSettings, load_segmenter, predict_labels_of
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.cut import Cut, write_about
from wsss_core.store.masks import mask_name, write_mask

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, model: Path, predictions: Path, execution: Execution) -> None:
    """Write the mask of every image of a shard; on a GPU, images of one size are predicted together.

    Parameters
    ----------
    config
        Settings file of the step.
    manifest
        Manifest of the shard.
    model
        Checkpoint of the network.
    predictions
        Folder of PNGs to write, each named by `mask_name`.

    Raises
    ------
    UserError
        If an image cannot be read, or the network knows other classes.
    """
    settings: PredictSettings = read_step(config).settings
    images = read_manifest(manifest)
    device = execution.torch_device()
    network = load_segmenter(model, device)
    check_classes(model, network.class_names, images.class_names)
    predict = in_precision(execution, network, partial(predict_labels_of, network))
    groups = batches(images.records, view_pixels(device))
    clock, done = Clock("image", len(images.records)), 0
    with atomic_folder(predictions) as folder:
        for records, photos in read_ahead(groups, read_record, execution.threads):
            for record, labels in zip(records, predict(photos, settings), strict=True):
                write_mask(folder / mask_name(record.id), labels)
            done += len(records)
            pace = clock.pace(done, last=done == len(images.records))
            if pace:
                log.info("%s", pace)
        write_about(folder, _cut(settings))


def _cut(settings: PredictSettings) -> Cut:
    crf = "" if settings.crf is None else f"{settings.crf.iterations} iterations, image: {settings.crf.image}"
    scales = " ".join(map(str, settings.scales))
    return Cut("none", crf=crf, notes=("most probable label", f"flip: {settings.flip}", f"scales: {scales}"))
