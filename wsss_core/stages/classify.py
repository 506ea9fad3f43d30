"""Stage: train a classifier on image tags."""

from __future__ import annotations

import importlib
import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from wsss_core import keyed, training
from wsss_core.classify import Inputs
from wsss_core.classify.kept import kept
from wsss_core.data.table import read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.backbones import load_weights
from wsss_core.settings import from_mapping
from wsss_core.stages.classifier import open_classifier
from wsss_core.stages.inputs import file_digest
from wsss_core.stages.step import read_step
from wsss_core.stages.training_files import images_to_train_on, write_trained
from wsss_core.store.shards import fingerprint

log = logging.getLogger(__name__)

KIND = "classifier"
"""Kind of the checkpoints."""


def run(
    *,
    config: Path,
    table: Path,
    init: Path | None,
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
        The step's JSON; its method is a module of `wsss_core.classify`.
    table
        `images.csv`.
    init
        Checkpoint of the classifier that the objective starts from, if it starts from one.
    ood
        Image table of images that hold none of the classes, if the objective uses any.
    model, history
        The trained network and the CSV of its training.
    state
        File to resume from after a kill; one beside it, ``<name>.images.pt``, holds what the objective computed of the
        images before training. Both are removed at the end.

    Raises
    ------
    UserError
        If there is nothing to train on, or the weight file does not fit.
    """
    step = read_step(config)
    objective = importlib.import_module(f"wsss_core.classify.{step.method}")
    settings = from_mapping(objective.SETTINGS, step.settings)
    images, records = images_to_train_on(table)
    if not any(record.classes for record in records):
        raise UserError(f"{table}: no image of the role 'train' has a class")
    weight_file = getattr(settings, "weights", None)
    weights = load_weights(Path(weight_file)) if weight_file else None
    start = open_classifier(init, images.class_names, execution.torch_device()) if init else None
    photos = read_table(ood).records if ood else ()
    mark = fingerprint(
        step.digest,
        [(r.digest, r.classes) for r in records],
        [r.digest for r in photos],
        [file_digest(Path(path)) for path in (weight_file, init) if path],
    )
    computed = state.with_suffix(".images.pt")
    once = partial(kept, computed, mark)
    inputs = Inputs(images, weights, step.seed, step.key, start, photos, once)
    torch.manual_seed(keyed.integer(step.seed, step.key, "initial weights"))
    plan = objective.plan(settings, inputs)
    plan.network.train()
    log.info("%d images, %d classes, %d steps", len(records), len(images.class_names), len(plan.batches))
    rows = training.fit(
        plan.network,
        plan.batches,
        plan.loss,
        plan.optimizer,
        plan.rate,
        seed=keyed.integer(step.seed, step.key),
        execution=execution,
        state=state,
        fingerprint=mark,
    )
    meta = {
        "backbone": plan.network.backbone.name,
        "architecture": plan.network.architecture,
        "architecture_settings": plan.network.architecture_settings,
        "class_names": list(images.class_names),
        "method": step.method,
        "settings": asdict(settings),
        "seed": step.seed,
    }
    write_trained(model, history, state, KIND, plan.network, meta, rows)
    computed.unlink(missing_ok=True)
