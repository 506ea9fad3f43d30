"""Stage: train a segmentation network on label masks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from wsss_core import keyed, training
from wsss_core.data.table import read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.backbones import load_weights
from wsss_core.models.deeplab import KIND, DeepLabV2, torchvision_names
from wsss_core.segment.batches import Sample, SegmentationBatches, network_input
from wsss_core.segment.deeplab import DeepLabSettings, build_network, loss_terms, optimizer
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import check_classes, file_digest
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_path
from wsss_core.store.checkpoints import load_network, save_network
from wsss_core.store.masks import IGNORE, mask_name, read_mask
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
        The step's JSON, settings of `DeepLabSettings`.
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
    settings = from_mapping(DeepLabSettings, step.settings)
    images = read_table(table)
    n_labels = len(images.class_names) + 1
    records = images.split("train")
    if not records:
        raise UserError(f"{table}: no image plays the role 'train'")
    samples = [Sample(Path(r.path), _find(masks, r.id), r.size) for r in records]
    masks_digest = _survey(samples, images.class_names)
    torch.manual_seed(keyed.integer(step.seed, step.stage, "initial weights"))
    network = build_network(settings, n_labels)
    initial = _load_initial_weights(network, settings, classifier, images.class_names)
    batches = SegmentationBatches(
        samples,
        n_labels,
        iterations=settings.iterations,
        batch_size=settings.batch_size,
        crop=settings.crop,
        scales=settings.scales,
        seed=step.seed,
        stage=step.stage,
    )
    network.train()
    rows = training.fit(
        network,
        batches,
        lambda batch: loss_terms(network(network_input(batch)), batch["labels"], settings.balanced),
        optimizer(network, settings),
        training.polynomial(settings.iterations, settings.power, settings.decay_every),
        seed=keyed.integer(step.seed, step.stage),
        execution=execution,
        state=state,
        fingerprint=fingerprint(step.digest, [r.digest for r in records], masks_digest, initial),
    )
    meta = {
        "network": "deeplab_v2",
        "backbone": settings.backbone,
        "class_names": list(images.class_names),
        "settings": asdict(settings),
    }
    save_network(model, KIND, network.state_dict(), meta)
    with atomic_path(history) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def _find(folders: Sequence[Path], image_id: str) -> Path:
    for folder in folders:
        path = Path(folder) / mask_name(image_id)
        if path.exists():
            return path
    raise UserError(f"image {image_id!r} has no mask to train on: {mask_name(image_id)} is in none of the folders")


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


def _load_initial_weights(
    network: DeepLabV2, settings: DeepLabSettings, classifier: Path | None, class_names: Sequence[str]
) -> str:
    """Load what the settings ask for into the backbone; the digest of it."""
    if settings.weights is None:
        if settings.backbone != "small":
            log.warning("%s starts from random weights: set `weights` to a file of ImageNet weights", settings.backbone)
        return "random"
    if settings.weights != "classifier":
        state = load_weights(Path(settings.weights))
        network.backbone.load(torchvision_names(state) if settings.variant == "official" else state)
        return file_digest(Path(settings.weights))
    if settings.variant == "official":
        raise UserError("weights: classifier needs variant: paper; the classifier has torchvision's layout")
    if classifier is None:
        raise UserError("weights: classifier, but there is no classifier upstream of these masks")
    content, meta = load_network(classifier, "classifier")
    if meta["backbone"] != settings.backbone:
        raise UserError(
            f"weights: classifier, but {classifier} has the backbone {meta['backbone']}, not {settings.backbone}"
        )
    check_classes(classifier, meta["class_names"], class_names)
    prefix = "backbone."
    network.backbone.load_state_dict({k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)})
    return file_digest(classifier)
