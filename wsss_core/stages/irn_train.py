"""Stage: train the boundary network on confident labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.augment import normalise, top_left_crop
from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.irn import KIND, IrnNetwork
from wsss_core.refine.irn import (
    NetworkSettings,
    estimate_mean_shift,
    optimizer,
    relation_loss,
    relation_sample,
)
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import file_digest, mask_files
from wsss_core.stages.label_training import check_shares, kept, train_on_labels
from wsss_core.stages.step import read_step
from wsss_core.stages.training_files import images_to_train_on
from wsss_core.store.masks import read_mask
from wsss_core.store.shards import fingerprint


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
    images, train = images_to_train_on(table)
    records = {record.id: record for record in train}
    files = mask_files(labels, list(records), "confident labels")
    labels_digest = _survey(files, records, len(images.class_names) + 1)
    load = _loader(records, files)
    batch_size = min(settings.batch_size, len(records))
    train_on_labels(
        step,
        settings,
        images,
        records,
        classifier,
        model,
        state,
        history,
        kind=KIND,
        architecture=IrnNetwork,
        sample=lambda name, rng: relation_sample(*load(name), settings, rng),
        labels_digest=labels_digest,
        loss=lambda network, photos, targets: relation_loss(*network(photos), targets, settings.radius),
        optimizer=optimizer,
        finish=lambda network: estimate_mean_shift(network, _corners(records, load, settings.crop, batch_size)),
        execution=execution,
    )


def _survey(files: dict[str, Path], records: dict[str, ImageRecord], n_labels: int) -> str:
    """Check every label map before training; the digest of them all."""
    pixels, digests = np.zeros(256, dtype=np.int64), []
    for image_id, path in files.items():
        pixels += np.bincount(read_mask(path, records[image_id].size, n_labels).ravel(), minlength=256)
        digests.append(file_digest(path))
    check_shares(pixels, no_background="raise labels.background", no_foreground="lower labels.foreground")
    return fingerprint(digests)


def _loader(records: dict[str, ImageRecord], files: dict[str, Path]) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    def load(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        return read_image(Path(records[image_id].path)), read_mask(files[image_id], records[image_id].size)

    return kept(list(records), load)


def _corners(
    records: dict[str, ImageRecord], load: Callable[[str], tuple[np.ndarray, np.ndarray]], crop: int, batch_size: int
) -> Iterator[Tensor]:
    names = list(records)
    for first in range(0, len(names) - batch_size + 1, batch_size):
        chosen = names[first : first + batch_size]
        corners = [top_left_crop(normalise(load(name)[0]), None, crop)[0] for name in chosen]
        yield torch.from_numpy(np.stack(corners))
