"""Stage: label masks of one shard straight from its seed maps."""

from __future__ import annotations

from pathlib import Path

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.stages.inputs import open_seeds
from wsss_core.stages.walk_masks import write_masks


def run(*, config: Path, manifest: Path, maps: Path, threshold: Path | None, masks: Path, execution: Execution) -> None:
    """Write one mask per image of the shard.

    Parameters
    ----------
    config
        The step's JSON, settings of `SeedThresholdSettings`.
    maps
        Seed shard.
    threshold
        Threshold file of the seed's scores; only needed if the setting asks for it.
    masks
        Folder of PNGs named by `mask_name`.

    Raises
    ------
    UserError
        If the threshold is not known, or the shard lacks an image.
    """
    execution.torch_device()
    table = read_manifest(manifest)
    write_masks(config, table, open_seeds(maps, table), threshold, masks)
