"""Stage: seed maps of one shard."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from wsss_core import __version__
from wsss_core.data.decoded import read_record
from wsss_core.data.table import ImageRecord, read_manifest, read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.seeds import Inputs
from wsss_core.settings import from_mapping
from wsss_core.stages.classifier import open_classifier
from wsss_core.stages.inputs import file_digest
from wsss_core.stages.processes import in_processes
from wsss_core.stages.step import read_step
from wsss_core.stages.together import batches, read_ahead, view_pixels
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build_batched, fingerprint

Maker = Callable[[Sequence[ImageRecord], Sequence[np.ndarray]], list[SeedMaps]]
"""From images of one size to their maps."""

Made = TypeVar("Made")


def run(
    *, config: Path, classifier: Path, manifest: Path, table: Path, maps: Path, cache: Path, execution: Execution
) -> None:
    """Write the seed maps of the images of a shard; an image without classes gets an empty record.

    On a GPU, methods that offer it work on several images of one size at a time (see `wsss_core.seeds`), and others on
    ``execution.images_at_once`` images, each in a process of its own. Images are decoded in the background.

    Parameters
    ----------
    config
        The step's JSON; its method is a module of `wsss_core.seeds`.
    classifier
        Checkpoint of the classifier.
    table
        `images.csv`, from which methods such as RIB draw other images of the role "train".
    cache
        File of finished records; a record is computed again only if its image, the classifier or the settings
        changed.

    Raises
    ------
    UserError
        If an image cannot be read (naming it), or the classifier is for other classes.
    """
    step = read_step(config)
    shard = read_manifest(manifest)
    given = Given(config, classifier, shard.class_names, table, execution)
    records = {record.id: record for record in shard.records}
    classifier_digest = file_digest(classifier)

    def compute(ids: Sequence[str]) -> Iterator[tuple[str, SeedMaps]]:
        pending = [records[image_id] for image_id in ids]
        yield from ((record.id, SeedMaps((), {}, record.size)) for record in pending if not record.classes)
        yield from _computed(given, [record for record in pending if record.classes])

    build_batched(
        maps,
        SEEDS,
        {r.id: fingerprint(step.digest, r.digest, r.classes, classifier_digest) for r in shard.records},
        compute,
        {
            "method": step.method,
            "settings": dict(step.settings),
            "versions": {"wsss": __version__, "torch": torch.__version__},
            "class_names": list(shard.class_names),
            "seed": step.seed,
        },
        cache=cache,
    )


@dataclass(frozen=True)
class Given:
    """What every process that computes maps of a shard is told."""

    config: Path
    classifier: Path
    class_names: tuple[str, ...]
    table: Path
    execution: Execution

    def method(self) -> ModuleType:
        """The module of the method."""
        return importlib.import_module(f"wsss_core.seeds.{read_step(self.config).method}")

    def maker(self) -> tuple[Maker, int]:
        """What makes maps, with the classifier on its device, and the most pixels that it takes at a time.

        Where that is 0 it takes one image.
        """
        step, method = read_step(self.config), self.method()
        device = self.execution.torch_device()
        network = open_classifier(self.classifier, self.class_names, device)
        settings = from_mapping(method.SETTINGS, step.settings)
        pixels = view_pixels(device) if hasattr(method, "batch_maker") else 0
        records = read_table(self.table).split("train")
        inputs = Inputs(
            network,
            records,
            step.seed,
            step.key,
            pixels=pixels,
            processes=images_at_once(self.execution),
            threads=self.execution.threads,
        )
        make = method.batch_maker(settings, inputs) if pixels else _one_by_one(method.maker(settings, inputs))
        return in_precision(self.execution, network, make), pixels


def images_at_once(execution: Execution) -> int:
    """Processes that share a GPU for a method that takes one image at a time; 1 on a CPU."""
    return execution.images_at_once if execution.torch_device().type == "cuda" else 1


def _computed(given: Given, records: Sequence[ImageRecord]) -> Iterator[tuple[str, SeedMaps]]:
    """Maps of images with classes, with the ids."""
    count = min(images_at_once(given.execution), len(records))
    if count > 1 and not hasattr(given.method(), "batch_maker"):
        made = in_processes(count, partial(_in_worker, given), records, threads=given.execution.threads)
        yield from zip([record.id for record in records], made, strict=True)
        return
    make, pixels = given.maker()
    for batch, images in read_ahead(batches(records, pixels), _read, given.execution.threads):
        yield from zip([record.id for record in batch], make(batch, images), strict=True)


def _in_worker(given: Given, record: ImageRecord) -> SeedMaps:
    make, _ = _opened(given)
    return make([record], [_read(record)])[0].cpu()


@cache
def _opened(given: Given) -> tuple[Maker, int]:
    """The method with its classifier, opened once by each process."""
    return given.maker()


def _read(record: ImageRecord) -> np.ndarray:
    image = read_record(record)
    if image.shape[:2] != record.size:
        raise UserError(f"{record.path}: image {record.id!r} is {image.shape[:2]}, the table says {record.size}")
    return image


def in_precision(execution: Execution, network: nn.Module, make: Callable[..., Made]) -> Callable[..., Made]:
    """What a seed method does with a network, in the execution's precision.

    For bfloat16, weights lie with their channels last; not if there are depthwise convolutions, whose gradients are
    slower that way on a CPU than float32.
    """
    depthwise = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in network.modules())
    if execution.precision == "mixed" and not depthwise:
        network.to(memory_format=torch.channels_last)

    def made(*inputs: Any) -> Made:
        with execution.autocast(next(network.parameters()).device.type, weights_change=True):
            return make(*inputs)

    return made


def _one_by_one(make: Callable[[ImageRecord, np.ndarray], SeedMaps]) -> Maker:
    """A maker of single images as a maker of batches."""
    return lambda records, images: [make(record, image) for record, image in zip(records, images, strict=True)]
