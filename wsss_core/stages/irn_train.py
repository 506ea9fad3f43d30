"""Stage: train the boundary network on confident labels."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from wsss_core import keyed, training
from wsss_core.data.augment import normalise, top_left_crop
from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord, read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.irn import KIND, IrnNetwork
from wsss_core.refine.batches import SampleBatches
from wsss_core.refine.irn import (
    NetworkSettings,
    estimate_mean_shift,
    optimizer,
    relation_loss,
    relation_sample,
)
from wsss_core.settings import from_mapping
from wsss_core.stages.backbone_network import network_on_backbone
from wsss_core.stages.inputs import file_digest
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_path
from wsss_core.store.checkpoints import save_network
from wsss_core.store.masks import IGNORE, mask_name, read_mask
from wsss_core.store.shards import fingerprint

log = logging.getLogger(__name__)

CACHE_BYTES = 1_000_000_000
"""Data sets whose decoded images and labels need less are kept in memory."""


def run(
    *,
    config: Path,
    table: Path,
    labels: Sequence[Path],
    classifier: Path | None,
    model: Path,
    state: Path,
    history: Path,
    execution: Execution,
) -> None:
    """Train on the images of the role "train" with the confident labels in `labels`.

    Parameters
    ----------
    config
        The step's JSON, settings of `NetworkSettings`.
    table
        `images.csv`.
    labels
        Folders of PNGs named by `mask_name`; 255 is undecided.
    classifier
        Checkpoint of the upstream classifier, for its backbone's name and weights.
    model, history
        The trained network and the CSV of its training.
    state
        File to resume from after a kill.

    Raises
    ------
    UserError
        If a label map is missing or wrong, the labels hold no pair to learn from, the crops are smaller than the
        pairs, or the weights do not fit.
    """
    step = read_step(config)
    settings = from_mapping(NetworkSettings, step.settings)
    least = 16 * (1 + (settings.radius - 1) // 2)
    if settings.crop < least:
        raise UserError(f"network.crop: {settings.crop} holds no pairs of radius {settings.radius}; at least {least}")
    images = read_table(table)
    records = {record.id: record for record in images.split("train")}
    if not records:
        raise UserError(f"{table}: no image plays the role 'train'")
    files = _label_files(labels, list(records))
    labels_digest = _survey(files, records, len(images.class_names) + 1)
    name, network, initial = network_on_backbone(IrnNetwork, settings, step, classifier, images.class_names)
    load = _loader(records, files, execution.workers)
    batches = SampleBatches(
        list(records),
        lambda name, rng: relation_sample(*load(name), settings, rng),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=step.seed,
        stage=step.stage,
    )
    log.info("%d images, %d steps of %d images", len(records), len(batches), batches.batch_size)
    network.train()
    rows = training.fit(
        network,
        batches,
        lambda batch: relation_loss(*network(batch[0]), batch[1], settings.radius),
        optimizer(network, settings),
        training.polynomial(len(batches)),
        seed=keyed.integer(step.seed, step.stage),
        execution=execution,
        state=state,
        fingerprint=fingerprint(step.digest, [r.digest for r in records.values()], labels_digest, initial),
    )
    estimate_mean_shift(network, _corners(records, load, settings.crop, batches.batch_size))
    meta = {"backbone": name, "class_names": list(images.class_names), "settings": asdict(settings)}
    save_network(model, KIND, network.state_dict(), meta)
    with atomic_path(history) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def _label_files(folders: Sequence[Path], image_ids: Sequence[str]) -> dict[str, Path]:
    found = {path.name: path for folder in folders for path in Path(folder).glob("*.png")}
    missing = [image_id for image_id in image_ids if mask_name(image_id) not in found]
    if missing:
        raise UserError(f"{len(missing)} images have no confident labels, such as {missing[0]!r}")
    return {image_id: found[mask_name(image_id)] for image_id in image_ids}


def _survey(files: dict[str, Path], records: dict[str, ImageRecord], n_labels: int) -> str:
    """Check every label map before training; the digest of them all."""
    pixels, digests = np.zeros(256, dtype=np.int64), []
    for image_id, path in files.items():
        pixels += np.bincount(read_mask(path, records[image_id].size, n_labels).ravel(), minlength=256)
        digests.append(file_digest(path))
    shares = pixels[0], pixels[1:IGNORE].sum(), pixels[IGNORE]
    log.info(
        "labels: %.1f %% background, %.1f %% foreground, %.1f %% undecided", *(100 * n / pixels.sum() for n in shares)
    )
    if shares[0] == 0 or shares[1] == 0:
        kind = "background" if shares[0] == 0 else "foreground"
        raise UserError(f"the confident labels hold no {kind}: change labels.foreground or labels.background")
    return fingerprint(digests)


def _loader(
    records: dict[str, ImageRecord], files: dict[str, Path], workers: int
) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    def load(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        return read_image(Path(records[image_id].path)), read_mask(files[image_id], records[image_id].size)

    total = sum(4 * record.height * record.width for record in records.values())
    return functools.cache(load) if total * max(1, workers) < CACHE_BYTES else load


def _corners(
    records: dict[str, ImageRecord], load: Callable[[str], tuple[np.ndarray, np.ndarray]], crop: int, batch_size: int
) -> Iterator[Tensor]:
    names = list(records)
    for first in range(0, len(names) - batch_size + 1, batch_size):
        chosen = names[first : first + batch_size]
        corners = [top_left_crop(normalise(load(name)[0]), None, crop)[0] for name in chosen]
        yield torch.from_numpy(np.stack(corners))
