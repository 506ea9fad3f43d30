"""Make the masks of single objects of one shard of images from their class tags, by displacements and a random walk."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution, in_precision
from wsss_core.jobs.inputs import file_digest, open_records
from wsss_core.jobs.step import read_step
from wsss_core.jobs.walk_network import open_walk_network
from wsss_core.models.irn import IrnNetwork
from wsss_core.refine.irn import instances as method
from wsss_core.refine.irn.walk import predict_relations
from wsss_core.store.instances import INSTANCES, Instances
from wsss_core.store.seeds import SEEDS
from wsss_core.store.shards import build, fingerprint


def run(
    *, config: Path, manifest: Path, maps: Path, model: Path, instances: Path, cache: Path, execution: Execution
) -> None:
    """Write the objects of the images of a shard.

    Parameters
    ----------
    config
        Settings file of the step.
    manifest
        Manifest of the shard.
    maps
        Seed shard.
    model
        Checkpoint of an IRN refinement's network.
    instances
        HDF5 file of instances to write.
    cache
        File of finished records.

    Raises
    ------
    UserError
        If an image or the network cannot be read, or they are not for the same classes.
    """
    step = read_step(config)
    settings: method.InstancesSettings = step.settings
    shard = read_manifest(manifest)
    store = open_records(maps, shard, SEEDS)
    device = execution.torch_device()
    network = open_walk_network(model, IrnNetwork, shard.class_names, device)
    predict = in_precision(execution, network, partial(predict_relations, network))
    records, model_digest = {record.id: record for record in shard.records}, file_digest(model)

    def compute(image_id: str) -> Instances:
        seed = store[image_id]
        if not seed.classes:
            return Instances.of(seed.size)
        image = read_image_of(records[image_id], seed.size)
        boundaries, displacements = predict([image], settings.pad_to, device)
        maps = seed.strided().to(device)
        return method.instances(displacements[0], boundaries[0], maps, seed.classes, seed.size, settings)

    build(
        instances,
        INSTANCES,
        {r.id: fingerprint(step.digest, model_digest, r.digest, store.fingerprint(r.id)) for r in shard.records},
        compute,
        {"method": step.method, "settings": asdict(step.settings), "class_names": list(shard.class_names)},
        cache=cache,
    )
