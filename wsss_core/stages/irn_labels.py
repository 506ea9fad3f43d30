"""Stage: confident labels of one shard, on which the boundary network is trained."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.refine.irn_labels import LabelSettings, confident_labels
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import open_seeds, read_image_of
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.masks import mask_name, write_mask

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, maps: Path, labels: Path, execution: Execution) -> None:
    """Write one label PNG per image of the shard.

    Parameters
    ----------
    config
        The step's JSON, settings of `LabelSettings`.
    maps
        Seed shard.
    labels
        Folder of PNGs named by `mask_name`; 255 is undecided.
    """
    execution.torch_device()
    settings = from_mapping(LabelSettings, read_step(config).settings)
    table = read_manifest(manifest)
    store = open_seeds(maps, table)
    began = time.monotonic()
    with atomic_folder(labels) as folder:
        for record in table.records:
            seed = store[record.id]
            values = confident_labels(read_image_of(record, seed), seed.full(), seed.classes, settings)
            write_mask(folder / mask_name(record.id), values)
    log.info("%d label maps, %.1f s", len(table.records), time.monotonic() - began)
