"""Stage: undecided pixels of one shard's masks take the predictions of a trained network."""

from __future__ import annotations

import logging
from pathlib import Path

from wsss_core.data.decode import read_image
from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.refine.fill import FillSettings, fill_undecided
from wsss_core.segment.predict import load_segmenter, predict_probabilities
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import check_classes
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.cut import Cut, read_about, write_about
from wsss_core.store.masks import IGNORE, mask_name, read_mask, write_mask

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, masks: Path, model: Path, filled: Path, execution: Execution) -> None:
    """Write one filled mask per image of the shard.

    Parameters
    ----------
    config
        The step's JSON, settings of `FillSettings`.
    masks
        Folder of PNGs with undecided pixels (255).
    model
        Checkpoint of the network trained on them.
    filled
        Folder of PNGs without 255.
    """
    settings = from_mapping(FillSettings, read_step(config).settings)
    table = read_manifest(manifest)
    network = load_segmenter(model, execution.torch_device())
    check_classes(model, network.class_names, table.class_names)
    changed = total = 0
    with atomic_folder(filled) as folder:
        for record in table.records:
            labels = read_mask(masks / mask_name(record.id), record.size, len(table.class_names) + 1)
            undecided = int((labels == IGNORE).sum())
            if undecided:
                probabilities = predict_probabilities(network, read_image(Path(record.path)), settings.predict)
                labels = fill_undecided(labels, probabilities, record.classes, settings.restrict_to_tags)
            write_mask(folder / mask_name(record.id), labels)
            changed, total = changed + undecided, total + labels.size
        before = read_about(masks)
        cut = Cut("none", crf=before.crf, notes=before.notes)
        write_about(folder, cut.noting("undecided pixels hold a network's predictions"))
    log.info("%d masks, %.1f %% of the pixels filled", len(table.records), 100 * changed / max(1, total))
