"""Walk the seed maps of one shard at random, where the network of a refinement lets them pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import ImageRecord, read_manifest
from wsss_core.execution import Execution, in_precision
from wsss_core.jobs.inputs import file_digest, open_records
from wsss_core.jobs.step import read_step
from wsss_core.jobs.together import batches, read_ahead, view_pixels
from wsss_core.jobs.walk_network import open_walk_network
from wsss_core.refine import Walk
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build_batched, fingerprint


def run(
    *, config: Path, manifest: Path, maps: Path, model: Path, scores: Path, cache: Path, execution: Execution
) -> None:
    """Write the score shard of one seed shard; on a GPU, images of one size walk together.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.refine.Walk`.
    manifest
        Manifest of the shard.
    maps
        Seed shard.
    model
        Checkpoint of the refinement's network.
    scores
        HDF5 file of scores to write.
    cache
        File of finished records; an image is walked again only if it, its maps, the network or the settings changed.

    Raises
    ------
    UserError
        If an image or the network cannot be read, or they are not for the same classes.
    """
    step = read_step(config)
    method: Walk = step.plug
    table = read_manifest(manifest)
    store = open_records(maps, table, SEEDS)
    device = execution.torch_device()
    network = open_walk_network(model, method.NETWORK, table.class_names, device)
    walk = in_precision(execution, network, partial(method.walk, network))
    records = {record.id: record for record in table.records}
    model_digest = file_digest(model)

    def read(record: ImageRecord) -> tuple[np.ndarray, SeedMaps]:
        seed = store[record.id]
        return read_image_of(record, seed.size), seed

    def compute(ids: Sequence[str]) -> Iterator[tuple[str, ScoreMaps]]:
        groups = batches([records[image_id] for image_id in ids], view_pixels(device))
        for batch, pairs in read_ahead(groups, read, execution.threads):
            images, seeds = zip(*pairs, strict=True)
            yield from zip((record.id for record in batch), _walked(images, seeds), strict=True)

    def _walked(images: Sequence[np.ndarray], seeds: Sequence[SeedMaps]) -> Iterator[ScoreMaps]:
        tagged = [k for k, seed in enumerate(seeds) if seed.classes]
        found = (
            iter(walk([images[k] for k in tagged], [seeds[k] for k in tagged], step.settings)) if tagged else iter(())
        )
        for seed in seeds:
            yield next(found) if seed.classes else method.nothing(seed.size)

    build_batched(
        scores,
        SCORES,
        {r.id: fingerprint(step.digest, model_digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        {"method": step.method, "settings": asdict(step.settings), "class_names": list(table.class_names)},
        cache=cache,
    )
