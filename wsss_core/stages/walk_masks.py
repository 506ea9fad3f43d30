"""Stage: label masks of one shard from its walked scores."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from wsss_core.data.table import ImageTable, read_manifest
from wsss_core.execution import Execution
from wsss_core.refine import cut_at
from wsss_core.refine.threshold import MaskSettings, score_mask
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import open_scores, read_threshold
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.cut import Cut, write_about
from wsss_core.store.masks import mask_name, write_mask
from wsss_core.store.scores import ScoreMaps
from wsss_core.store.seeds import SeedMaps

log = logging.getLogger(__name__)


def run(
    *, config: Path, manifest: Path, scores: Path, threshold: Path | None, masks: Path, execution: Execution
) -> None:
    """Write one mask per image of the shard.

    Parameters
    ----------
    config
        The step's JSON, settings of `MaskSettings`.
    scores
        Score shard.
    threshold
        Threshold file of the scores; only needed if the setting asks for it.
    masks
        Folder of PNGs named by `mask_name`.

    Raises
    ------
    UserError
        If the threshold is not known, or the shard lacks an image.
    """
    execution.torch_device()
    table = read_manifest(manifest)
    write_masks(config, table, open_scores(scores, table), threshold, masks)


def write_masks(
    config: Path, table: ImageTable, store: Mapping[str, ScoreMaps | SeedMaps], threshold: Path | None, masks: Path
) -> None:
    """Cut the masks of a shard's images from their scores or seed maps; parameters and errors as for `run`."""
    settings = from_mapping(MaskSettings, read_step(config).settings)
    if settings.band is None:
        cut = cut_at(settings.threshold, read_threshold(threshold))
    else:
        cut = Cut("band", band=settings.band)
    with atomic_folder(masks) as folder:
        for record in table.records:
            maps = store[record.id]
            labels = score_mask(maps.full(), maps.classes, cut.threshold or 0.0, cut.band)
            write_mask(folder / mask_name(record.id), labels)
        write_about(folder, cut)
    log.info("%d masks, threshold %s (%s)", len(table.records), cut.band or cut.threshold, cut.rule)
