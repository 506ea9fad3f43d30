"""Stage: train a segmentation network on label masks."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from wsss_core import keyed, training
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.backbones import load_weights
from wsss_core.models.deeplab import KIND
from wsss_core.segment import Inputs
from wsss_core.segment.batches import Sample
from wsss_core.settings import from_mapping
from wsss_core.stages.classifier import open_classifier
from wsss_core.stages.inputs import file_digest, mask_files
from wsss_core.stages.step import read_step
from wsss_core.stages.training_files import images_to_train_on, write_trained
from wsss_core.store.masks import IGNORE, read_mask
from wsss_core.store.shards import fingerprint

log = logging.getLogger(__name__)


def run(
    *,
    config: Path,
    table: Path,
    masks: Sequence[Path],
    classifier: Path | None,
    model: Path,
    state: Path,
    history: Path,
    execution: Execution,
) -> None:
    """Train on the images of the role "train" with the masks in `masks`.

    Parameters
    ----------
    config
        The step's JSON; its method is a module of `wsss_core.segment`.
    table
        `images.csv`.
    masks
        Folders of PNGs named by `mask_name`.
    classifier
        Checkpoint of the upstream classifier, needed for ``weights: classifier``.
    model, history
        The trained network and the CSV of its training.
    state
        File to resume from after a kill.

    Raises
    ------
    UserError
        If a mask is missing or wrong, or the masks hold nothing to learn.
    """
    step = read_step(config)
    objective = importlib.import_module(f"wsss_core.segment.{step.method}")
    settings = from_mapping(objective.SETTINGS, step.settings)
    images, records = images_to_train_on(table)
    files = mask_files(masks, [r.id for r in records], "masks to train on")
    samples = [Sample(Path(r.path), files[r.id], r.size, r.classes) for r in records]
    masks_digest = _survey(samples, images.class_names)
    initial = _initial_file(settings.weights, classifier)
    from_classifier = initial is not None and settings.weights == "classifier"
    inputs = Inputs(
        samples,
        images.class_names,
        load_weights(initial) if initial and not from_classifier else None,
        step.seed,
        step.key,
        open_classifier(initial, images.class_names, torch.device("cpu")) if from_classifier else None,
    )
    torch.manual_seed(keyed.integer(step.seed, step.key, "initial weights"))
    plan = objective.plan(settings, inputs)
    plan.network.train()
    rows = training.fit(
        plan.network,
        plan.batches,
        plan.loss,
        plan.optimizer,
        plan.rate,
        seed=keyed.integer(step.seed, step.key),
        execution=execution,
        state=state,
        fingerprint=fingerprint(
            step.digest,
            [(r.digest, r.classes) for r in records],
            masks_digest,
            file_digest(initial) if initial else "random",
        ),
    )
    meta = {
        "network": "deeplab_v2",
        "method": step.method,
        "backbone": settings.backbone,
        "class_names": list(images.class_names),
        "settings": asdict(settings),
    }
    write_trained(model, history, state, KIND, plan.network, meta, rows)


def _survey(samples: Sequence[Sample], class_names: Sequence[str]) -> str:
    """Check every mask before training; the digest of them all."""
    n_labels = len(class_names) + 1
    pixels, digests = np.zeros(256, dtype=np.int64), []
    for sample in samples:
        labels = read_mask(sample.mask, sample.size, n_labels)
        pixels += np.bincount(labels.ravel(), minlength=256)
        digests.append(hashlib.sha256(labels).hexdigest())
    total, ignored, background = pixels.sum(), pixels[IGNORE], pixels[0]
    if ignored == total:
        raise UserError("the masks ignore (255) every pixel of every image: there is nothing to train on")
    if ignored + background == total:
        raise UserError(
            "the masks hold no foreground pixel: the network would learn to predict background only; lower the "
            "background threshold of the stage that made them"
        )
    log.info(
        "%d masks: %.1f %% background, %.1f %% foreground, %.1f %% ignored",
        len(samples),
        *(100 * part / total for part in (background, total - background - ignored, ignored)),
    )
    empty = [name for name, count in zip(class_names, pixels[1:n_labels], strict=True) if count == 0]
    if empty:
        log.warning("no mask holds a pixel of: %s", ", ".join(empty))
    return fingerprint(digests)


def _initial_file(weights: str | None, classifier: Path | None) -> Path | None:
    """The file that training starts from: that of the settings, or the classifier's checkpoint if they ask for it."""
    if weights == "classifier":
        return classifier
    return Path(weights) if weights else None
