"""Stage: dense CRF posteriors of one shard, from which AffinityNet's labels are made."""

from __future__ import annotations

from pathlib import Path

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.refine.psa_labels import LabelSettings, crf_posteriors
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import open_seeds, read_image_of
from wsss_core.stages.step import read_step
from wsss_core.store.posteriors import POSTERIORS, Posteriors
from wsss_core.store.shards import build, fingerprint


def run(*, config: Path, manifest: Path, maps: Path, labels: Path, cache: Path, execution: Execution) -> None:
    """Write the posterior shard of one seed shard.

    Labels average posteriors over cells whose place depends on the random crop, so posteriors are kept at full
    resolution.

    Parameters
    ----------
    config
        The step's JSON, settings of `LabelSettings`.
    maps
        Seed shard.
    labels
        HDF5 file of posteriors.
    cache
        File of finished records; an image is computed again only if it, its maps or the settings changed.
    """
    execution.torch_device()
    step = read_step(config)
    settings = from_mapping(LabelSettings, step.settings)
    table = read_manifest(manifest)
    store = open_seeds(maps, table)
    records = {record.id: record for record in table.records}

    def compute(image_id: str) -> Posteriors:
        seed = store[image_id]
        return crf_posteriors(read_image_of(records[image_id], seed), seed.full(), seed.classes, settings)

    build(
        labels,
        POSTERIORS,
        {r.id: fingerprint(step.digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        {"method": step.method, "settings": dict(step.settings), "class_names": list(table.class_names)},
        cache=cache,
    )
