"""What steps on a whole run read of its folder: stages in order, the image table, maps and labels of single images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss_core.config import Configuration, Stage
from wsss_core.data.table import ImageRecord, ImageTable, read_manifest, read_table
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import mask_confusion
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.evaluate.tables import label_names
from wsss_core.jobs.inputs import read_threshold
from wsss_core.jobs.shard_names import shard_names
from wsss_core.refine import NO_BACKGROUND, highest_label, mask_values
from wsss_core.registry import METHODS, SCORED_SECTIONS
from wsss_core.report.graph import layers
from wsss_core.store.masks import mask_name, read_mask
from wsss_core.store.seeds import SeedStore

OPEN = 64
"""Seed shards that are open at a time; a process may have no more than some thousand files open."""


KINDS = {
    "classifiers": "classifier",
    "seeds": "seed",
    "refinements": "pseudo-mask",
    "segmentations": "network",
    "detectors": "detector",
    "attributions": "attribution",
    "instances": "object mask",
    "instance_networks": "instance network",
}
"""Section to what one stage of it makes."""


@dataclass(frozen=True)
class RunFiles:
    """A run's folder and configuration."""

    run: Path
    configuration: Configuration

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """All stages: by section, targets first and in their order, then by depth."""
        given = self.configuration.stages
        depth = layers({name: list(stage.upstream.values()) for name, stage in given.items()})
        rank = {name: k for k, name in enumerate(self.configuration.targets)}
        sections = list(METHODS)

        def key(name: str) -> tuple:
            return sections.index(given[name].section), rank.get(name, len(rank)), depth[name], name

        return {name: given[name] for name in sorted(given, key=key)}

    @cached_property
    def series(self) -> dict[str, int]:
        """Number of the colour of every stage whose masks can be scored."""
        names = [name for name, stage in self.stages.items() if stage.section in SCORED_SECTIONS]
        return {name: k for k, name in enumerate(names)}

    def folder(self, name: str) -> Path:
        """Folder of a stage."""
        return self.run / self.stages[name].section / name

    def having(self, section: str, product: str) -> list[str]:
        """Current stages of a section that have made a file or folder; true masks are given and not made."""
        return [
            name
            for name, stage in self.stages.items()
            if stage.section == section
            and name in self.configuration.current
            and not stage.is_truth
            and (self.folder(name) / product).exists()
        ]

    @cached_property
    def table(self) -> ImageTable:
        """All images."""
        return read_table(self.run / "dataset" / "images.csv")

    @cached_property
    def labels(self) -> list[str]:
        """Names of the labels, background first."""
        return label_names(self.table.class_names)

    def shards(self, split: str) -> dict[str, str]:
        """Image id to name of its shard."""
        folder = self.run / "dataset" / "shards" / split
        names = shard_names(self.run, split)
        return {record.id: name for name in names for record in read_manifest(folder / f"{name}.json").records}

    def statistics(self, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(image id, what was recorded about it), of every image whose maps a seed has made."""
        for shard in shard_names(self.run, "train"):
            path = self.folder(name) / "maps" / f"{shard}.h5"
            if path.exists():
                store = SeedStore(path)
                yield from ((image_id, store.statistics(image_id)) for image_id in store)

    def threshold(self, name: str) -> Mapping[str, Any] | None:
        """A stage's threshold file, or None."""
        path = self.folder(name) / "threshold.json"
        return read_threshold(path if path.exists() else None)


class Labels:
    """Reads a stage's maps and labels of single images."""

    def __init__(self, files: RunFiles, shards: Mapping[str, str]) -> None:
        self.files, self.shards = files, shards
        self._opened = lru_cache(maxsize=OPEN)(SeedStore)

    def maps(self, name: str, image_id: str) -> tuple[torch.Tensor, Sequence[int]] | None:
        """[K, H, W] maps in [0, 1] and their classes."""
        path = self.files.folder(name) / "maps" / f"{self.shards[image_id]}.h5"
        if not path.exists():
            return None
        try:
            maps = self._opened(path)[image_id]
        except KeyError:
            return None
        return maps.full(), maps.classes

    def threshold(self, name: str, maps: torch.Tensor) -> float:
        """Background threshold at which an image's maps [K, H, W] of a seed were scored, or would be."""
        settings = self.files.stages[name].settings["scores"]
        if settings["rule"] == "otsu":
            return otsu_threshold(maps)
        if settings["rule"] == "none":
            return NO_BACKGROUND
        chosen = self.files.threshold(name)
        return chosen["value"] if chosen else settings["threshold"]

    def labels(self, name: str, record: ImageRecord) -> np.ndarray | None:
        """uint8 [H, W]."""
        section = self.files.stages[name].section
        if section == "seeds":
            found = self.maps(name, record.id)
            if found is None:
                return None
            maps, classes = found
            return mask_values(highest_label(maps, self.threshold(name, maps)).numpy(), classes)
        product = "predictions" if section == "segmentations" else "masks"
        path = self.files.folder(name) / product / self.shards[record.id] / mask_name(record.id)
        return read_mask(path, record.size, len(self.files.labels)) if path.exists() else None

    def matrix(self, name: str, record: ImageRecord, target: np.ndarray) -> np.ndarray | None:
        """Confusion matrix of one image, undecided pixels treated as in the stage's evaluation."""
        labels = self.labels(name, record)
        if labels is None:
            return None
        evaluation = self.files.stages[name].settings.get("evaluation", {})
        return mask_confusion(labels, target, len(self.files.labels), skip_ignored=evaluation.get("ignored") == "skip")


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file, comment lines skipped; UserError if it lacks a column."""
    with open(path, encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(line for line in handle if not line.startswith("#"))
        missing = set(columns) - set(reader.fieldnames or ())
        if missing and reader.fieldnames:
            raise UserError(f"{path}: has no column {', '.join(sorted(missing))}")
        return list(reader)
