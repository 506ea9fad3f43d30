"""Make confident labels of one shard of images from seed maps, for the network of a refinement to learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.execution import Execution
from wsss_core.jobs.from_maps import build_from_maps
from wsss_core.jobs.step import read_step
from wsss_core.refine import LabelMaker
from wsss_core.store.seeds import SeedMaps


def run(*, config: Path, manifest: Path, maps: Path, labels: Path, cache: Path, execution: Execution) -> None:
    """Write the labels of a shard.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.refine.LabelMaker`.
    manifest
        Manifest of the shard.
    maps
        Seed shard.
    labels
        HDF5 file of labels to write.
    cache
        File of finished records; an image is computed again only if it, its maps or the settings changed.

    Raises
    ------
    UserError
        If an image cannot be read, or the seed shard lacks it.
    """
    step = read_step(config)
    method: LabelMaker = step.plug

    def make(seed: SeedMaps, read: Callable[[], np.ndarray]) -> Any:
        return method.labels(read(), seed, step.settings)

    build_from_maps(labels, method.KIND, step, make, manifest=manifest, maps=maps, cache=cache)
