"""Files that several test files start from, and a training that is killed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss_core import training
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.models.cam import CamNetwork
from wsss_core.segment.batches import SegmentationBatches
from wsss_core.steps import masks
from wsss_core.store import checkpoints, seeds, shards
from wsss_core.store.seeds import SeedMaps


def write_scene(
    folder: Path, class_names: Sequence[str], records: Sequence[ImageRecord], maps: Mapping[str, SeedMaps]
) -> ImageTable:
    """Write ``images.csv``, ``shard.json``, ``seeds.h5`` and ``classifier.pt``, an untrained small classifier."""
    table = ImageTable(tuple(class_names), tuple(records))
    write_table(folder / "images.csv", table)
    write_manifest(folder / "shard.json", class_names, records)
    shards.build(
        folder / "seeds.h5",
        seeds.SEEDS,
        {name: f"fingerprint {name}" for name in maps},
        maps.__getitem__,
        {"class_names": list(class_names)},
        cache=folder / "seeds.cache.h5",
    )
    torch.manual_seed(0)
    write_classifier(folder / "classifier.pt", cam_network("small", len(class_names)), class_names)
    return table


def write_classifier(path: Path, network: CamNetwork, class_names: Sequence[str]) -> Path:
    """Write the checkpoint of a classifier, as the step `train` does."""
    meta = network.about | {"class_names": list(class_names), "settings": {}}
    checkpoints.save_network(path, network.kind, network.state_dict(), meta)
    return path


def write_step(path: Path, stage: str, method: str, step: str, settings: Any, *, seed: int = 0, **more: Any) -> Path:
    """Write the settings file of a step, from a settings object or a mapping."""
    content = {"stage": stage, "key": stage, "method": method, "step": step, "seed": seed}
    values = asdict(settings) if is_dataclass(settings) else dict(settings)
    path.write_text(json.dumps(content | {"settings": values} | more))
    return path


def make_masks(
    folder: Path, method: str, settings: Any, *, name: str = "masks", execution: Execution | None = None, **given: Path
) -> Path:
    """Make the masks of ``shard.json`` by a refinement, on the CPU, in a folder of the name.

    Parameters
    ----------
    given
        What they are made from, as for `wsss_core.steps.masks.run`; the others are absent.
    """
    masks.run(
        config=write_step(folder / f"{name}.json", "refinements/x", method, "masks", settings),
        manifest=folder / "shard.json",
        masks=folder / name,
        execution=execution or Execution(device="cpu"),
        **dict.fromkeys(("maps", "scores", "start", "model", "instances", "otherwise", "threshold")) | given,
    )
    return folder / name


class Killed(Exception):
    """Stands for a kill."""


def kill_segmentation_at(step: int, monkeypatch: pytest.MonkeyPatch, train) -> list[int]:
    """Kill `train` when it asks for the batch of a step, its state saved at every step before.

    Returns
    -------
    A list that the steps of the trainings that follow are added to.
    """
    original, fit = SegmentationBatches.__getitem__, training.fit

    def killed(self, k):
        if k == step:
            raise Killed
        return original(self, k)

    monkeypatch.setattr(training, "fit", lambda *args, **options: fit(*args, **options, save_seconds=0))
    monkeypatch.setattr(SegmentationBatches, "__getitem__", killed)
    with pytest.raises(Killed):
        train()
    steps: list[int] = []
    monkeypatch.setattr(SegmentationBatches, "__getitem__", lambda self, k: (steps.append(k), original(self, k))[1])
    return steps
