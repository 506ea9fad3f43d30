"""Predict the label masks of one shard of images with a trained segmentation network."""

from __future__ import annotations

import logging
from pathlib import Path

from wsss_core.data.decode import read_image
from wsss_core.data.table import check_classes, read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.pace import Clock
from wsss_core.segment.predict import PredictSettings, load_segmenter, predict_labels
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.cut import Cut, write_about
from wsss_core.store.masks import mask_name, write_mask

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, model: Path, predictions: Path, execution: Execution) -> None:
    """Write the mask of every image of a shard.

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
    network = load_segmenter(model, execution.torch_device())
    check_classes(model, network.class_names, images.class_names)
    clock = Clock("image", len(images.records))
    with atomic_folder(predictions) as folder:
        for number, record in enumerate(images.records, 1):
            labels = predict_labels(network, read_image(Path(record.path)), settings)
            write_mask(folder / mask_name(record.id), labels)
            pace = clock.pace(number, last=number == len(images.records))
            if pace:
                log.info("%s", pace)
        write_about(folder, _cut(settings))


def _cut(settings: PredictSettings) -> Cut:
    crf = "" if settings.crf is None else f"{settings.crf.iterations} iterations, image: {settings.crf.image}"
    scales = " ".join(map(str, settings.scales))
    return Cut("none", crf=crf, notes=("most probable label", f"flip: {settings.flip}", f"scales: {scales}"))
