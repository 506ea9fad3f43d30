"""Make confident labels of one shard of images from seed maps, for the network of a refinement to learn."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import open_maps
from wsss_core.jobs.step import read_step
from wsss_core.refine import LabelMaker
from wsss_core.store.seeds import SEEDS
from wsss_core.store.shards import build, fingerprint


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
    table = read_manifest(manifest)
    store = open_maps(maps, table, SEEDS)
    records = {record.id: record for record in table.records}

    def compute(image_id: str) -> Any:
        seed = store[image_id]
        return method.labels(read_image_of(records[image_id], seed.size), seed, step.settings)

    build(
        labels,
        method.KIND,
        {r.id: fingerprint(step.digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        {"method": step.method, "settings": asdict(step.settings), "class_names": list(table.class_names)},
        cache=cache,
    )
