"""A shard of records, each made from one image and its seed maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import read_manifest
from wsss_core.jobs.inputs import open_records
from wsss_core.jobs.step import StepConfig
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import RecordKind, build, fingerprint

Made = TypeVar("Made")


def build_from_maps(
    target: Path,
    kind: RecordKind[Made],
    step: StepConfig,
    make: Callable[[SeedMaps, Callable[[], np.ndarray]], Made],
    *,
    manifest: Path,
    maps: Path,
    cache: Path,
    **attributes: Any,
) -> None:
    """Write a record for every image of a shard.

    Parameters
    ----------
    target
        HDF5 file to write.
    make
        The record from the image's seed maps and a function that reads its pixels, uint8 [H, W, 3].
    manifest
        Manifest of the shard.
    maps
        Seed shard.
    cache
        File of finished records; an image is computed again only if it, its maps or the settings changed.
    attributes
        What the file tells beside method, settings and class names.

    Raises
    ------
    UserError
        If an image cannot be read, or the seed shard lacks it.
    """
    table = read_manifest(manifest)
    store = open_records(maps, table, SEEDS)
    records = {record.id: record for record in table.records}

    def compute(image_id: str) -> Made:
        seed = store[image_id]
        return make(seed, lambda: read_image_of(records[image_id], seed.size))

    build(
        target,
        kind,
        {r.id: fingerprint(step.digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        {
            "method": step.method,
            "settings": asdict(step.settings),
            "class_names": list(table.class_names),
            **attributes,
        },
        cache=cache,
    )
