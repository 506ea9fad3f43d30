"""Stage: random walk of one shard's seed maps on predicted boundaries."""

from __future__ import annotations

from pathlib import Path

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.models.backbones import backbone
from wsss_core.models.irn import KIND, IrnNetwork
from wsss_core.refine.walk import WalkSettings, walk_scores
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import check_classes, file_digest, open_seeds, read_image_of
from wsss_core.stages.step import read_step
from wsss_core.store.checkpoints import load_network
from wsss_core.store.scores import ScoreMaps, write_record
from wsss_core.store.shards import build, fingerprint


def run(
    *, config: Path, manifest: Path, maps: Path, model: Path, scores: Path, cache: Path, execution: Execution
) -> None:
    """Write the score shard of one seed shard.

    Parameters
    ----------
    config
        The step's JSON, settings of `WalkSettings`.
    maps
        Seed shard.
    model
        Checkpoint of the boundary network.
    cache
        File of finished records; an image is walked again only if it, its maps, the network or the settings changed.
    """
    step = read_step(config)
    settings = from_mapping(WalkSettings, step.settings)
    table = read_manifest(manifest)
    store = open_seeds(maps, table)
    state, meta = load_network(model, KIND)
    check_classes(model, meta["class_names"], table.class_names)
    network = IrnNetwork(backbone(meta["backbone"]))
    network.load_state_dict(state)
    network.to(execution.torch_device()).eval()
    records = {record.id: record for record in table.records}
    model_digest = file_digest(model)

    def compute(image_id: str) -> ScoreMaps:
        seed = store[image_id]
        return walk_scores(network, read_image_of(records[image_id], seed), seed, settings)

    build(
        scores,
        "scores",
        {r.id: fingerprint(step.digest, model_digest, r.digest, store.fingerprint(r.id)) for r in table.records},
        compute,
        write_record,
        {"method": "irn", "settings": dict(step.settings), "class_names": list(table.class_names)},
        cache=cache,
    )
