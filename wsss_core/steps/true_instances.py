"""Take the true masks of the objects of one shard of images."""

from __future__ import annotations

from pathlib import Path

from wsss_core.boxes.truth import objects_of, require_truth
from wsss_core.data.boxes import plain
from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.store.instances import INSTANCES
from wsss_core.store.shards import build, fingerprint


def run(*, config: Path, manifest: Path, instances: Path, cache: Path, execution: Execution) -> None:
    """Write the true objects of the images of a shard.

    Parameters
    ----------
    config
        Settings file of the step.
    manifest
        Manifest of the shard.
    instances
        HDF5 file of instances to write.
    cache
        File of finished records.

    Raises
    ------
    UserError
        If an image that holds a class has no true masks of single objects.
    """
    step = read_step(config)
    shard = read_manifest(manifest)
    require_truth(step.stage, shard.records)
    records = {record.id: record for record in shard.records}
    build(
        instances,
        INSTANCES,
        {r.id: fingerprint(step.digest, r.instances_digest, r.mask_digest, plain(r.boxes)) for r in shard.records},
        lambda image_id: objects_of(records[image_id]),
        {"method": step.method, "class_names": list(shard.class_names)},
        cache=cache,
    )
