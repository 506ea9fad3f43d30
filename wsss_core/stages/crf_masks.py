"""Stage: label masks of one shard by a dense CRF on its seed maps."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.refine import resolve_threshold
from wsss_core.refine.crf import CrfSettings, crf_mask
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import open_seeds, read_image_of, read_threshold, threshold_words
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.masks import mask_name, write_about, write_mask

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, maps: Path, threshold: Path | None, masks: Path, execution: Execution) -> None:
    """Write one mask per image of the shard.

    Parameters
    ----------
    config
        The step's JSON, settings of `CrfSettings`.
    maps
        Seed shard.
    threshold
        Threshold file of the seed's scores; only needed if the setting asks for it.
    masks
        Folder of PNGs named by `mask_name`.
    """
    execution.torch_device()
    settings = from_mapping(CrfSettings, read_step(config).settings)
    chosen = read_threshold(threshold)
    value = resolve_threshold(settings.threshold, chosen)
    table = read_manifest(manifest)
    store = open_seeds(maps, table)
    began = time.monotonic()
    with atomic_folder(masks) as folder:
        for record in table.records:
            seed = store[record.id]
            labels = crf_mask(read_image_of(record, seed), seed.full(), seed.classes, value, settings)
            write_mask(folder / mask_name(record.id), labels)
        write_about(
            folder,
            crf=f"yes, {settings.iterations} iterations, unary: {settings.unary}",
            threshold=threshold_words(settings.threshold, value, chosen),
        )
    log.info("%d masks at threshold %.3f, %.1f s", len(table.records), value, time.monotonic() - began)
