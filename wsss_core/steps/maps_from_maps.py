"""Refine the class activation maps of one shard of images, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsss_core.execution import Execution
from wsss_core.jobs.from_maps import build_from_maps
from wsss_core.jobs.step import read_step
from wsss_core.seeds import MapRefinement
from wsss_core.store.seeds import SEEDS, SeedMaps


def run(*, config: Path, manifest: Path, start: Path, maps: Path, cache: Path, execution: Execution) -> None:
    """Write the refined maps of a shard; an image without classes keeps its empty record.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.seeds.MapRefinement`.
    manifest
        Manifest of the shard.
    start
        Seed shard to start from.
    maps
        HDF5 file of seed maps to write.
    cache
        File of finished records; an image is computed again only if it, its maps or the settings changed.

    Raises
    ------
    UserError
        If an image cannot be read, or the seed shard lacks it.
    """
    step = read_step(config)
    method: MapRefinement = step.plug

    def make(seed: SeedMaps, read: Callable[[], np.ndarray]) -> SeedMaps:
        return method.refined(read(), seed, step.settings) if seed.classes else seed

    build_from_maps(maps, SEEDS, step, make, manifest=manifest, maps=start, cache=cache, seed=step.seed)
