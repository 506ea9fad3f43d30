"""Files that several test files start from, and a training that is killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from wsss_core import training
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.models.backbones import backbone
from wsss_core.segment.batches import SegmentationBatches
from wsss_core.store import checkpoints, seeds, shards
from wsss_core.store.seeds import SeedMaps


def write_scene(
    folder: Path, class_names: Sequence[str], records: Sequence[ImageRecord], maps: Mapping[str, SeedMaps]
) -> ImageTable:
    """Write ``images.csv``, ``shard.json``, ``seeds.h5`` and ``classifier.pt``, the small backbone without a head."""
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
    state = {f"backbone.{k}": v for k, v in backbone("small").state_dict().items()}
    meta = {"backbone": "small", "class_names": list(class_names), "settings": {}}
    checkpoints.save_network(folder / "classifier.pt", "classifier", state, meta)
    return table


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
