"""Stage: label masks of one shard by a dense CRF on its seed maps."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from wsss_core.data.table import ImageRecord, read_manifest
from wsss_core.execution import Execution
from wsss_core.kernels.dense_crf import PIXELS, parts
from wsss_core.refine import cut_at
from wsss_core.refine.crf import CrfSettings, crf_masks
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import open_seeds, read_image_of, read_threshold
from wsss_core.stages.processes import in_processes
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.cut import write_about
from wsss_core.store.masks import mask_name, write_mask
from wsss_core.store.seeds import SeedStore

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, maps: Path, threshold: Path | None, masks: Path, execution: Execution) -> None:
    """Write one mask per image of the shard.

    On a GPU, the images of some million pixels are refined together. On a CPU, each is refined by one thread, and
    ``execution.threads`` of them at a time, in as many processes; the masks are the same bytes for any number.

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
    device = execution.torch_device()
    settings = from_mapping(CrfSettings, read_step(config).settings)
    cut = cut_at(settings.threshold, read_threshold(threshold))
    cut = replace(cut, crf=f"{settings.iterations} iterations, unary: {settings.unary}")
    table = read_manifest(manifest)
    store = open_seeds(maps, table)
    groups = parts(table.records, lambda record: record.height * record.width, pixels_together(device))
    began = time.monotonic()
    with atomic_folder(masks) as folder:
        if device.type == "cuda" or min(execution.threads, len(groups)) <= 1:
            for records in groups:
                write_masks(store, records, folder, cut.threshold, settings, device)
        else:
            work = partial(_in_worker, maps, folder, cut.threshold, settings)
            for _ in in_processes(execution.threads, work, groups):
                pass
        write_about(folder, cut)
    seconds = time.monotonic() - began
    log.info("%d masks at threshold %.3f on %s, %.1f s", len(table.records), cut.threshold, device.type, seconds)


def pixels_together(device: torch.device) -> int:
    """Pixels of the images that are refined together; 0 for one image at a time."""
    return PIXELS if device.type == "cuda" else 0


def write_masks(
    store: SeedStore,
    records: Sequence[ImageRecord],
    folder: Path,
    threshold: float,
    settings: CrfSettings,
    device: torch.device,
) -> None:
    """Refine the seed maps of some images together and write their masks into a folder."""
    seeds = [store[record.id] for record in records]
    images = [read_image_of(record, seed) for record, seed in zip(records, seeds, strict=True)]
    full = [seed.full().to(device) for seed in seeds]
    masks = crf_masks(images, full, [seed.classes for seed in seeds], threshold, settings)
    for record, labels in zip(records, masks, strict=True):
        write_mask(folder / mask_name(record.id), labels)


def _in_worker(
    maps: Path, folder: Path, threshold: float, settings: CrfSettings, records: Sequence[ImageRecord]
) -> None:
    write_masks(_opened(maps), records, folder, threshold, settings, torch.device("cpu"))


@cache
def _opened(maps: Path) -> SeedStore:
    """The seed shard, opened once by each process."""
    return SeedStore(maps)
