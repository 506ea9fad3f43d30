"""Make the masks of the objects in the boxes of one shard of images."""

from __future__ import annotations

from pathlib import Path

from wsss_core.boxes import ObjectMethod
from wsss_core.data.boxes import plain
from wsss_core.data.decoded import read_record
from wsss_core.data.listing import folder_digest
from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import open_records
from wsss_core.jobs.step import read_step
from wsss_core.store.attributions import ATTRIBUTIONS, Attributions
from wsss_core.store.instances import INSTANCES, Instances
from wsss_core.store.shards import RecordStore, build, fingerprint


def run(
    *, config: Path, manifest: Path, attributions: Path | None, instances: Path, cache: Path, execution: Execution
) -> None:
    """Write the masks of the objects of every image of a shard.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.boxes.ObjectMethod`.
    manifest
        Manifest of the shard.
    attributions
        Shard of attributions, for methods that start from them.
    instances
        HDF5 file of instances to write.
    cache
        File of finished records; a record is made again only if its image, boxes, attributions, the settings or the
        network changed.

    Raises
    ------
    UserError
        If an image or its attributions cannot be read, or a network that the settings name cannot be loaded.
    """
    step = read_step(config)
    method: ObjectMethod = step.plug
    shard = read_manifest(manifest)
    records = {record.id: record for record in shard.records}
    store = None if attributions is None else open_records(attributions, shard, ATTRIBUTIONS)
    make = method.maker(step.settings, execution.torch_device())
    weights = getattr(step.settings, "weights", None)
    network = () if weights is None else (folder_digest(Path(weights)),)

    def compute(image_id: str) -> Instances:
        record = records[image_id]
        return make(read_record(record), record.boxes, None if store is None else store[image_id])

    build(
        instances,
        INSTANCES,
        {
            r.id: fingerprint(step.digest, r.digest, plain(r.boxes), _upstream(store, r.id), *network)
            for r in shard.records
        },
        compute,
        {"method": step.method, "class_names": list(shard.class_names)},
        cache=cache,
    )


def _upstream(store: RecordStore[Attributions] | None, image_id: str) -> str:
    return "" if store is None else store.fingerprint(image_id)
