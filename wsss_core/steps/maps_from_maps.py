"""Refine the class activation maps of one shard of images, without training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import open_maps
from wsss_core.jobs.step import read_step
from wsss_core.seeds import MapRefinement
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build, fingerprint


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
    table = read_manifest(manifest)
    store = open_maps(start, table, SEEDS)
    records = {record.id: record for record in table.records}

    def compute(image_id: str) -> SeedMaps:
        found = store[image_id]
        if not found.classes:
            return found
        return method.refined(read_image_of(records[image_id], found.size), found, step.settings)

    build(
        maps,
        SEEDS,
        {r.id: fingerprint(step.digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        {
            "method": step.method,
            "settings": asdict(step.settings),
            "class_names": list(table.class_names),
            "seed": step.seed,
        },
        cache=cache,
    )
