"""Take in the class activation maps of one shard of images that another program has made."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import file_digest
from wsss_core.jobs.step import read_step
from wsss_core.seeds import MapSource
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build, fingerprint

log = logging.getLogger(__name__)


def run(*, config: Path, manifest: Path, maps: Path, cache: Path, execution: Execution) -> None:
    """Write the maps of a shard; an image without classes gets an empty record.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.seeds.MapSource`.
    manifest
        Manifest of the shard.
    maps
        HDF5 file of seed maps to write.
    cache
        File of finished records; a record is made again only if its files, its tags or the settings changed.

    Raises
    ------
    UserError
        If maps of an image are missing, cannot be read or are no maps.
    """
    step = read_step(config)
    source: MapSource = step.plug
    shard = read_manifest(manifest)
    names, records = shard.class_names, {record.id: record for record in shard.records}

    def compute(image_id: str) -> SeedMaps:
        record = records[image_id]
        return source.maps(step.settings, record, names) if record.classes else SeedMaps((), {}, record.size)

    digests = {
        record.id: [file_digest(path) for path in source.files(step.settings, record, names)] if record.classes else []
        for record in shard.records
    }
    build(
        maps,
        SEEDS,
        {r.id: fingerprint(step.digest, r.size, r.classes, digests[r.id]) for r in shard.records},
        compute,
        {"method": step.method, "settings": asdict(step.settings), "class_names": list(names), "seed": step.seed},
        cache=cache,
    )
    log.info("maps of %d images, from %d files", len(records), sum(map(len, digests.values())))
