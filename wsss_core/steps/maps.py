"""Compute the class activation maps of one shard of images by a seed method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from wsss_core import __version__
from wsss_core.data.decoded import read_record
from wsss_core.data.table import ImageRecord, read_manifest, read_table
from wsss_core.errors import UserError
from wsss_core.evaluate.health import require_no_stop
from wsss_core.execution import Execution, in_precision
from wsss_core.jobs.classifier import open_classifier
from wsss_core.jobs.inputs import file_digest
from wsss_core.jobs.processes import in_processes
from wsss_core.jobs.step import StepConfig, read_step
from wsss_core.jobs.together import batches, read_ahead, view_pixels
from wsss_core.seeds import BatchedSeedMethod, Inputs, SeedMethod
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build_batched, fingerprint

Maker = Callable[[Sequence[ImageRecord], Sequence[np.ndarray]], list[SeedMaps]]
"""From images of one size to their maps."""


def run(
    *,
    config: Path,
    classifier: Path,
    health: Path | None,
    manifest: Path,
    table: Path,
    maps: Path,
    cache: Path,
    execution: Execution,
) -> None:
    """Write the seed maps of the images of a shard; an image without classes gets an empty record.

    On a GPU, methods that offer it work on several images of one size at a time (see `wsss_core.seeds`), and others on
    ``execution.images_at_once`` images, each in a process of its own. Images are decoded in the background.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.seeds.SeedMethod`.
    classifier
        Checkpoint of the classifier.
    health
        What the step tag_scores found of the classifier. If it does not tell the classes apart, no maps are made.
    manifest
        Manifest of the shard.
    table
        Image table, from which methods such as RIB draw other images of the role "train".
    maps
        HDF5 file of seed maps to write.
    cache
        File of finished records; a record is computed again only if its image, the classifier or the settings
        changed.

    Raises
    ------
    UserError
        If an image cannot be read (naming it), or the classifier is for other classes or cannot tell them apart.
    """
    if health is not None:
        require_no_stop(health)
    step = read_step(config)
    shard = read_manifest(manifest)
    task = Task(config, classifier, shard.class_names, table, execution)
    records = {record.id: record for record in shard.records}
    classifier_digest = file_digest(classifier)

    def compute(ids: Sequence[str]) -> Iterator[tuple[str, SeedMaps]]:
        pending = [records[image_id] for image_id in ids]
        yield from ((record.id, SeedMaps((), {}, record.size)) for record in pending if not record.classes)
        yield from _computed(task, [record for record in pending if record.classes])

    build_batched(
        maps,
        SEEDS,
        {r.id: fingerprint(step.digest, r.digest, r.classes, classifier_digest) for r in shard.records},
        compute,
        {
            "method": step.method,
            "settings": asdict(step.settings),
            "versions": {"wsss": __version__, "torch": torch.__version__},
            "class_names": list(shard.class_names),
            "seed": step.seed,
        },
        cache=cache,
    )


@dataclass(frozen=True)
class Task:
    """What every process that computes maps of a shard is told."""

    config: Path
    classifier: Path
    class_names: tuple[str, ...]
    table: Path
    execution: Execution

    def step(self) -> StepConfig:
        """The step's settings."""
        return read_step(self.config)

    def maker(self) -> tuple[Maker, int]:
        """What makes maps, with the classifier on its device, and the most pixels that it takes at a time.

        Where that is 0 it takes one image.
        """
        step = self.step()
        method: SeedMethod = step.plug
        device = self.execution.torch_device()
        network = open_classifier(self.classifier, self.class_names, device)
        pixels = view_pixels(device) if isinstance(method, BatchedSeedMethod) else 0
        inputs = Inputs(
            network,
            read_table(self.table).split("train"),
            step.seed,
            step.key,
            pixels=pixels,
            processes=images_at_once(self.execution),
            threads=self.execution.threads,
        )
        if isinstance(method, BatchedSeedMethod) and pixels:
            make = method.batch_maker(step.settings, inputs)
        else:
            make = _one_by_one(method.maker(step.settings, inputs))
        return in_precision(self.execution, network, make), pixels


def images_at_once(execution: Execution) -> int:
    """Processes that share a GPU for a method that takes one image at a time; 1 on a CPU."""
    return execution.images_at_once if execution.torch_device().type == "cuda" else 1


def _computed(task: Task, records: Sequence[ImageRecord]) -> Iterator[tuple[str, SeedMaps]]:
    """Maps of images with classes, with the ids."""
    count = min(images_at_once(task.execution), len(records))
    if count > 1 and not isinstance(task.step().plug, BatchedSeedMethod):
        made = in_processes(count, partial(_in_worker, task), records, threads=task.execution.threads)
        yield from zip([record.id for record in records], made, strict=True)
        return
    make, pixels = task.maker()
    for batch, images in read_ahead(batches(records, pixels), _read, task.execution.threads):
        yield from zip([record.id for record in batch], make(batch, images), strict=True)


def _in_worker(task: Task, record: ImageRecord) -> SeedMaps:
    make, _ = _opened(task)
    return make([record], [_read(record)])[0].cpu()


@cache
def _opened(task: Task) -> tuple[Maker, int]:
    """The method with its classifier, opened once by each process."""
    return task.maker()


def _read(record: ImageRecord) -> np.ndarray:
    image = read_record(record)
    if image.shape[:2] != record.size:
        raise UserError(f"{record.path}: image {record.id!r} is {image.shape[:2]}, the table says {record.size}")
    return image


def _one_by_one(make: Callable[[ImageRecord, np.ndarray], SeedMaps]) -> Maker:
    """A maker of single images as a maker of batches."""
    return lambda records, images: [make(record, image) for record, image in zip(records, images, strict=True)]
