"""What the random walks of all networks share: a shard of seed maps in, a shard of scores out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.models.backbones import Backbone, backbone
from wsss_core.stages.inputs import check_classes, file_digest, open_seeds, read_image_of
from wsss_core.stages.step import StepConfig
from wsss_core.store.checkpoints import load_network
from wsss_core.store.scores import ScoreMaps, write_record
from wsss_core.store.seeds import SeedMaps
from wsss_core.store.shards import build, fingerprint


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
    walk: Callable[[nn.Module, np.ndarray, SeedMaps], ScoreMaps],
    execution: Execution,
) -> None:
    """Write the score shard of one seed shard.

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
        From the network in evaluation mode, an image, uint8 [H, W, 3], and its seed maps to scores.
    """
    table = read_manifest(manifest)
    store = open_seeds(maps, table)
    state, meta = load_network(model, kind)
    check_classes(model, meta["class_names"], table.class_names)
    network = architecture(backbone(meta["backbone"]))
    network.load_state_dict(state)
    network.to(execution.torch_device()).eval()
    records = {record.id: record for record in table.records}
    model_digest = file_digest(model)

    def compute(image_id: str) -> ScoreMaps:
        seed = store[image_id]
        return walk(network, read_image_of(records[image_id], seed), seed)

    build(
        scores,
        "scores",
        {r.id: fingerprint(step.digest, model_digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        write_record,
        {"method": step.method, "settings": dict(step.settings), "class_names": list(table.class_names)},
        cache=cache,
    )
