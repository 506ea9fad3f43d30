"""Stage: random walk of one shard's seed maps on predicted boundaries."""

from __future__ import annotations

from pathlib import Path

from wsss_core.execution import Execution
from wsss_core.models.irn import KIND, IrnNetwork
from wsss_core.refine.walk import WalkSettings, no_scores, walk_scores
from wsss_core.settings import from_mapping
from wsss_core.stages.step import read_step
from wsss_core.stages.walk_shard import walk_shard


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
    walk_shard(
        step,
        manifest,
        maps,
        model,
        scores,
        cache,
        kind=KIND,
        architecture=IrnNetwork,
        walk=lambda network, images, seeds: walk_scores(network, images, seeds, settings),
        nothing=no_scores,
        execution=execution,
    )
