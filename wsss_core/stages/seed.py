"""Stage: seed maps of one shard."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from wsss_core.stages.step import read_step
from wsss_core.store.seeds import SeedMaps, write_record
from wsss_core.store.shards import build_batched, fingerprint

MOST_PIXELS = 2**24
"""Pixels of views in one forward pass on a GPU: eleven pairs of 1000x750. More keep no GPU busier."""

BYTES_PER_PIXEL = 2048
"""Memory of a forward pass for each pixel of its views: room for eight maps of 64 float32 channels at full resolution.
A ResNet has so many at half resolution at most."""

AHEAD = 4
"""Images that are decoded before they are needed, at least."""


def run(
    *, config: Path, classifier: Path, manifest: Path, table: Path, maps: Path, cache: Path, execution: Execution
) -> None:
    """Write the seed maps of the images of a shard; an image without classes gets an empty record.

    Methods that offer it work on several images of one size at a time where there is a GPU (see `wsss_core.seeds`);
    images are decoded in the background.

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
    method = importlib.import_module(f"wsss_core.seeds.{step.method}")
    shard = read_manifest(manifest)
    device = execution.torch_device()
    network = open_classifier(classifier, shard.class_names, device)
    settings = from_mapping(method.SETTINGS, step.settings)
    pixels = view_pixels(device) if hasattr(method, "batch_maker") else 0
    inputs = Inputs(network, read_table(table).split("train"), step.seed, step.stage, pixels)
    make = method.batch_maker(settings, inputs) if pixels else _one_by_one(method.maker(settings, inputs))
    make = _in_precision(execution, network, make)
    records = {record.id: record for record in shard.records}
    classifier_digest = file_digest(classifier)

    def compute(ids: Sequence[str]) -> Iterator[tuple[str, SeedMaps]]:
        pending = [records[image_id] for image_id in ids]
        yield from ((record.id, SeedMaps((), {}, record.size)) for record in pending if not record.classes)
        tagged = [record for record in pending if record.classes]
        for batch, images in read_ahead(batches(tagged, pixels), execution.threads):
            yield from zip([record.id for record in batch], make(batch, images), strict=True)

    build_batched(
        maps,
        "seeds",
        {r.id: fingerprint(step.digest, r.digest, r.classes, classifier_digest) for r in shard.records},
        compute,
        write_record,
        {
            "method": step.method,
            "settings": dict(step.settings),
            "versions": {"wsss": __version__, "torch": torch.__version__},
            "class_names": list(shard.class_names),
            "seed": step.seed,
        },
        cache=cache,
    )


def view_pixels(device: torch.device) -> int:
    """Most pixels of views in one forward pass, for half of a GPU's free memory; 0 on a CPU, for no batches."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MOST_PIXELS, free // 2 // BYTES_PER_PIXEL))


def batches(records: Sequence[ImageRecord], pixels: int) -> list[list[ImageRecord]]:
    """Records in lists of one image size, of at most `pixels` pixels or of one image; each alone if `pixels` is 0.

    Sizes come in the order in which they first occur, and the images of a size in theirs.
    """
    if not pixels:
        return [[record] for record in records]
    by_size: dict[tuple[int, int], list[ImageRecord]] = {}
    for record in records:
        by_size.setdefault(record.size, []).append(record)
    found = []
    for (height, width), same in by_size.items():
        count = max(1, pixels // (height * width))
        found += [same[start : start + count] for start in range(0, len(same), count)]
    return found


def read_ahead(
    groups: Iterable[list[ImageRecord]], threads: int = 1
) -> Iterator[tuple[list[ImageRecord], list[np.ndarray]]]:
    """Each group with its decoded images, in order, while threads decode the groups that follow it.

    At least `AHEAD` images, and no more groups than hold so many, wait in memory. An image that cannot be read raises
    its UserError in its turn.
    """
    pool = ThreadPoolExecutor(max(1, threads))
    waiting: deque = deque()
    try:
        for group in groups:
            waiting.append((group, [pool.submit(_read, record) for record in group]))
            while sum(len(later) for later, _ in waiting) - len(waiting[0][0]) >= AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(group: list[ImageRecord], futures: list) -> tuple[list[ImageRecord], list[np.ndarray]]:
    return group, [future.result() for future in futures]


def _read(record: ImageRecord) -> np.ndarray:
    image = read_record(record)
    if image.shape[:2] != record.size:
        raise UserError(f"{record.path}: image {record.id!r} is {image.shape[:2]}, the table says {record.size}")
    return image


Maker = Callable[[Sequence[ImageRecord], Sequence[np.ndarray]], list[SeedMaps]]
"""From images of one size to their maps."""


def _in_precision(execution: Execution, network: nn.Module, make: Maker) -> Maker:
    """The maker in the execution's precision.

    For bfloat16, weights lie with their channels last; not if there are depthwise convolutions, whose gradients are
    slower that way on a CPU than float32.
    """
    depthwise = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in network.modules())
    if execution.precision == "mixed" and not depthwise:
        network.to(memory_format=torch.channels_last)

    def made(records: Sequence[ImageRecord], images: Sequence[np.ndarray]) -> list[SeedMaps]:
        with execution.autocast(weights_change=True):
            return make(records, images)

    return made


def _one_by_one(make: Callable[[ImageRecord, np.ndarray], SeedMaps]) -> Maker:
    """A maker of single images as a maker of batches."""
    return lambda records, images: [make(record, image) for record, image in zip(records, images, strict=True)]
