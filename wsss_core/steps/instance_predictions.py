"""Predict the objects of one shard of images with a trained instance network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from wsss_core.data.decoded import read_record
from wsss_core.data.table import check_classes, read_manifest
from wsss_core.execution import Execution, in_precision
from wsss_core.instances.mask_rcnn import predict
from wsss_core.jobs.inputs import file_digest
from wsss_core.jobs.step import read_step
from wsss_core.models.mask_rcnn import open_instance_network
from wsss_core.store.instances import INSTANCES
from wsss_core.store.shards import build, fingerprint


def run(*, config: Path, manifest: Path, model: Path, predictions: Path, cache: Path, execution: Execution) -> None:
    """Write the objects that a network finds in the images of a shard.

    Parameters
    ----------
    config
        Settings file of the step.
    manifest
        Manifest of the shard.
    model
        Checkpoint of the network.
    predictions
        HDF5 file of instances to write.
    cache
        File of finished records.

    Raises
    ------
    UserError
        If an image cannot be read, or the network knows other classes.
    """
    step = read_step(config)
    shard = read_manifest(manifest)
    network = open_instance_network(model, execution.torch_device())
    check_classes(model, network.class_names, shard.class_names)
    found = in_precision(execution, network, predict)
    records, model_digest = {record.id: record for record in shard.records}, file_digest(model)
    build(
        predictions,
        INSTANCES,
        {r.id: fingerprint(step.digest, r.digest, model_digest) for r in shard.records},
        lambda image_id: found(network, read_record(records[image_id]), step.settings),
        {"method": step.method, "settings": asdict(step.settings), "class_names": list(shard.class_names)},
        cache=cache,
    )
