"""Stage: pixels of one shard's masks that disagree with saliency masks become undecided."""

from __future__ import annotations

import logging
from pathlib import Path

from wsss_core.data.table import read_manifest
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.refine.saliency import SaliencySettings, keep_agreeing, read_salient
from wsss_core.settings import from_mapping
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.cut import read_about, write_about
from wsss_core.store.masks import IGNORE, mask_name, read_mask, write_mask

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, masks: Path, agreeing: Path, execution: Execution) -> None:
    """Write one mask per image of the shard.

    Parameters
    ----------
    config
        The step's JSON, settings of `SaliencySettings`.
    masks
        Folder of PNGs named by `mask_name`.
    agreeing
        Folder of the same masks, 255 where the saliency mask disagrees.

    Raises
    ------
    UserError
        If the saliency folder or the mask of an image is missing, or a mask is of another size than its image.
    """
    execution.torch_device()
    settings = from_mapping(SaliencySettings, read_step(config).settings)
    source = Path(settings.folder)
    if not source.is_dir():
        raise UserError(f"saliency folder {source}: is not a folder")
    table = read_manifest(manifest)
    changed = total = 0
    with atomic_folder(agreeing) as folder:
        for record in table.records:
            labels = read_mask(masks / mask_name(record.id), record.size, len(table.class_names) + 1)
            kept = keep_agreeing(labels, read_salient(source, record, settings.threshold))
            write_mask(folder / mask_name(record.id), kept)
            changed, total = changed + int(((kept == IGNORE) & (labels != IGNORE)).sum()), total + labels.size
        note = f"pixels that disagree with saliency masks (salient from {settings.threshold}) are undecided"
        write_about(folder, read_about(masks).noting(note))
    log.info(
        "%d masks, %.1f %% of the pixels disagree with the saliency", len(table.records), 100 * changed / max(1, total)
    )
