"""What the trainings of the refinements' networks share: a network on a backbone learns from confident labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wsss_core import keyed, training
from wsss_core.data.decoded import Decoded
from wsss_core.data.table import ImageRecord, ImageTable
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.backbones import Backbone
from wsss_core.refine.batches import SampleBatches
from wsss_core.stages.backbone_network import BackboneSettings, network_on_backbone
from wsss_core.stages.step import StepConfig
from wsss_core.stages.training_files import write_trained
from wsss_core.store.masks import IGNORE
from wsss_core.store.shards import fingerprint

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")


class TrainingSettings(BackboneSettings, Protocol):
    """Settings that a training on labels reads."""

    batch_size: int
    epochs: int


def check_shares(counts: np.ndarray, *, no_background: str, no_foreground: str) -> None:
    """Log what part of the labels is background, foreground and undecided.

    Parameters
    ----------
    counts
        Number of each label 0..255.
    no_background, no_foreground
        What to change if there is none, for the message.

    Raises
    ------
    UserError
        If there is no background or no foreground, so that no pair is of different labels.
    """
    background, foreground, undecided = counts[0], counts[1:IGNORE].sum(), counts[IGNORE]
    log.info(
        "labels: %.1f %% background, %.1f %% foreground, %.1f %% undecided",
        *(100 * part / counts.sum() for part in (background, foreground, undecided)),
    )
    if background == 0:
        raise UserError(f"the confident labels hold no background: {no_background}")
    if foreground == 0:
        raise UserError(f"the confident labels hold no foreground: {no_foreground}")


def kept(names: Sequence[str], load: Callable[[str], Loaded]) -> Callable[[str], Loaded]:
    """`load`, its results kept in memory as far as the budget of `Decoded` goes."""
    decoded, places = Decoded(names, load), {name: place for place, name in enumerate(names)}
    return lambda name: decoded[places[name]]


def train_on_labels(
    step: StepConfig,
    settings: TrainingSettings,
    images: ImageTable,
    records: Mapping[str, ImageRecord],
    classifier: Path | None,
    model: Path,
    state: Path,
    history: Path,
    *,
    kind: str,
    architecture: Callable[[Backbone], nn.Module],
    sample: Callable[[str, np.random.Generator], tuple[np.ndarray, np.ndarray]],
    labels_digest: str,
    loss: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]],
    optimizer: Callable[[Any, Any], torch.optim.Optimizer],
    finish: Callable[[Any], None] = lambda network: None,
    execution: Execution,
) -> None:
    """Train a network and write it with the CSV of its training.

    Parameters
    ----------
    settings
        Settings of the step `network`.
    records
        Images to train on, by id.
    classifier
        Checkpoint of the upstream classifier, for its backbone's name and weights.
    model, history
        The trained network, of the given kind, and the CSV.
    state
        File to resume from after a kill.
    architecture
        From a backbone to the network.
    sample
        From an image id and a random generator to an image, float32 [3, S, S], and its labels, uint8 [s, s].
    labels_digest
        Digest of the labels of all images; a training that was begun with others is not resumed.
    loss
        From the network and a batch of images and labels to named terms, of which "loss" is minimised.
    optimizer
        From the network and the settings.
    finish
        What is done with the trained network before it is written.
    """
    name, network, initial = network_on_backbone(architecture, settings, step, classifier, images.class_names)
    batches = SampleBatches(
        list(records),
        sample,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=step.seed,
        stage=step.key,
    )
    log.info("%d images, %d steps of %d images", len(records), len(batches), batches.batch_size)
    network.train()
    rows = training.fit(
        network,
        batches,
        lambda batch: loss(network, *batch),
        optimizer(network, settings),
        training.polynomial(len(batches)),
        seed=keyed.integer(step.seed, step.key),
        execution=execution,
        state=state,
        fingerprint=fingerprint(step.digest, [r.digest for r in records.values()], labels_digest, initial),
    )
    finish(network)
    meta = {"backbone": name, "class_names": list(images.class_names), "settings": asdict(settings)}
    write_trained(model, history, state, kind, network, meta, rows)
