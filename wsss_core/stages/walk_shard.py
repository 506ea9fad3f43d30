"""What the random walks of all networks share: a shard of seed maps in, a shard of scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from wsss_core.data.table import ImageRecord, read_manifest
from wsss_core.execution import Execution
from wsss_core.models.backbones import Backbone, backbone
from wsss_core.stages.inputs import check_classes, file_digest, open_seeds, read_image_of
from wsss_core.stages.step import StepConfig
from wsss_core.stages.together import batches, read_ahead, view_pixels
from wsss_core.store.checkpoints import load_network
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SeedMaps
from wsss_core.store.shards import build_batched, fingerprint


def walk_shard(
    step: StepConfig,
    manifest: Path,
    maps: Path,
    model: Path,
    scores: Path,
    cache: Path,
    *,
    kind: str,
    architecture: Callable[[Backbone], nn.Module],
    walk: Callable[[nn.Module, Sequence[np.ndarray], Sequence[SeedMaps]], list[ScoreMaps]],
    nothing: Callable[[tuple[int, int]], ScoreMaps],
    execution: Execution,
) -> None:
    """Write the score shard of one seed shard; on a GPU, images of one size walk together.

    Parameters
    ----------
    maps
        Seed shard.
    model
        Checkpoint of the network, of the given kind.
    cache
        File of finished records; an image is walked again only if it, its maps, the network or the settings changed.
    architecture
        From a backbone to the network.
    walk
        From the network in evaluation mode, images of one size, uint8 [H, W, 3], and their seed maps to scores.
    nothing
        From the size of an image without classes to its scores.
    """
    table = read_manifest(manifest)
    store = open_seeds(maps, table)
    state, meta = load_network(model, kind)
    check_classes(model, meta["class_names"], table.class_names)
    network = architecture(backbone(meta["backbone"]))
    network.load_state_dict(state)
    device = execution.torch_device()
    network.to(device).eval()
    records = {record.id: record for record in table.records}
    model_digest = file_digest(model)

    def read(record: ImageRecord) -> tuple[np.ndarray, SeedMaps]:
        seed = store[record.id]
        return read_image_of(record, seed), seed

    def compute(ids: Sequence[str]) -> Iterator[tuple[str, ScoreMaps]]:
        groups = batches([records[image_id] for image_id in ids], view_pixels(device))
        for batch, pairs in read_ahead(groups, read, execution.threads):
            tagged = [(image, seed) for image, seed in pairs if seed.classes]
            walked = iter(walk(network, *zip(*tagged, strict=True)) if tagged else ())
            for record, (_, seed) in zip(batch, pairs, strict=True):
                yield record.id, next(walked) if seed.classes else nothing(record.size)

    build_batched(
        scores,
        SCORES,
        {r.id: fingerprint(step.digest, model_digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        {"method": step.method, "settings": dict(step.settings), "class_names": list(table.class_names)},
        cache=cache,
    )
