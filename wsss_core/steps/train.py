"""Train a network: a classifier, the network of a refinement, or a segmentation network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from wsss_core import keyed, training
from wsss_core.constants import IMAGENET
from wsss_core.data.table import read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs import events
from wsss_core.jobs.classifier import open_classifier
from wsss_core.jobs.inputs import file_digest
from wsss_core.jobs.kept import kept
from wsss_core.jobs.step import read_step
from wsss_core.models import imagenet
from wsss_core.models.backbones import load_weights
from wsss_core.models.cam import CamNetwork
from wsss_core.store.atomic import atomic_path
from wsss_core.store.checkpoints import save_network
from wsss_core.store.shards import fingerprint

log = logging.getLogger(__name__)


def run(
    *,
    config: Path,
    table: Path,
    classifier: Path | None,
    labels: Sequence[Path],
    truth: Sequence[Path] = (),
    ood: Path | None,
    model: Path,
    state: Path,
    history: Path,
    execution: Execution,
) -> None:
    """Train on the images of the role "train".

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.training.Objective`.
    table
        Image table.
    classifier
        Checkpoint of the classifier that the training starts from, or that the stage is built upon.
    labels
        What is learned beside tags: folders of label masks, or shards of labels.
    truth
        Folders of true masks, if the objective learns from some beside the labels.
    ood
        Image table of images that hold none of the classes, if the objective uses any.
    model
        Checkpoint to write.
    state
        File to resume from after a kill; one beside it, ``<name>.images.pt``, holds what the objective computed of the
        images before training. Both are removed at the end.
    history
        CSV to write: the loss of every twentieth step. With `execution.tensorboard` event files are written too, into
        the folder ``events`` beside it.

    Raises
    ------
    UserError
        If there is nothing to train on, or the initial weights do not fit; with more, see the objective.
    """
    step = read_step(config)
    images = read_table(table)
    records = images.split("train")
    if not records:
        raise UserError(f"{table}: no image plays the role 'train'")
    photos = read_table(ood).records if ood else ()
    start = open_classifier(classifier, images.class_names, execution.torch_device()) if classifier else None
    weight_file = _weight_file(step.settings, start)
    initial = load_weights(weight_file) if weight_file else None
    computed = state.with_suffix(".images.pt")
    mark = fingerprint(
        step.digest,
        [(r.digest, r.classes, r.unknown) for r in records],
        [r.digest for r in photos],
        [file_digest(path) for path in (weight_file, classifier) if path],
    )
    inputs = training.Inputs(
        images,
        initial,
        step.seed,
        step.key,
        start,
        labels,
        truth,
        photos,
        partial(kept, computed, mark),
    )
    objective: training.Objective = step.plug
    torch.manual_seed(keyed.integer(step.seed, step.key, "initial weights"))
    plan = objective.plan(step.settings, inputs)
    plan.network.train()
    log.info("%d images, %d classes, %d steps", len(records), len(images.class_names), len(plan.batches))
    watch = events.Events(history.with_name("events"), plan.network) if execution.tensorboard else None
    try:
        rows = training.fit(
            plan.network,
            plan.batches,
            plan.loss,
            plan.optimizer,
            plan.rate,
            seed=keyed.integer(step.seed, step.key),
            execution=execution,
            state=state,
            fingerprint=fingerprint(mark, plan.labels_digest),
            watch=watch,
        )
    except UserError as error:
        raise UserError(f"{step.stage}: {error}") from error
    plan.finish()
    meta = {
        **plan.network.about,
        "class_names": list(images.class_names),
        "method": step.method,
        "settings": asdict(step.settings),
        "seed": step.seed,
    }
    save_network(model, plan.network.kind, plan.network.state_dict(), meta)
    with atomic_path(history) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    for path in (state, computed):  # last: a kill before loses nothing
        path.unlink(missing_ok=True)


def _weight_file(settings: Any, start: CamNetwork | None) -> Path | None:
    """The file of initial weights that the settings name, if they name one."""
    weights = getattr(settings, "weights", None)
    if weights in (None, "classifier"):
        return None
    if weights != IMAGENET:
        return Path(weights)
    return imagenet.require_cached(settings.backbone or (start.backbone.name if start else ""))
