"""Fit the masks of the objects of one shard of images to mask proposals that were made elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from wsss_core.boxes.proposals import ProposalsSettings, proposal_digest, read_proposals, refined
from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import open_records
from wsss_core.jobs.step import read_step
from wsss_core.store.instances import INSTANCES, Instances
from wsss_core.store.shards import build, fingerprint


def run(*, config: Path, manifest: Path, start: Path, instances: Path, cache: Path, execution: Execution) -> None:
    """Write the objects of the images of a shard, their masks fitted.

    Parameters
    ----------
    config
        Settings file of the step.
    manifest
        Manifest of the shard.
    start
        Shard of instances to start from.
    instances
        HDF5 file of instances to write.
    cache
        File of finished records; a record is made again only if its objects, its proposals or the settings changed.

    Raises
    ------
    UserError
        If an image that holds objects has no proposals, or they cannot be read.
    """
    step = read_step(config)
    settings: ProposalsSettings = step.settings
    folder = Path(settings.folder)
    shard = read_manifest(manifest)
    store = open_records(start, shard, INSTANCES)

    def compute(image_id: str) -> Instances:
        objects = store[image_id]
        if not len(objects):
            return objects
        return refined(objects, read_proposals(folder, image_id, objects.size), settings)

    build(
        instances,
        INSTANCES,
        {r.id: fingerprint(step.digest, store.fingerprint(r.id), proposal_digest(folder, r.id)) for r in shard.records},
        compute,
        {"method": step.method, "settings": asdict(settings), "class_names": list(shard.class_names)},
        cache=cache,
    )
