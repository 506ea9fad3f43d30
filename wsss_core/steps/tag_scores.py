"""Try a classifier on the tags: how well it tells the classes apart, and whether its maps hold anything."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from wsss_core.classify.tag_scores import Tried, by_domain, folds_of, judge, tag_scores, try_image
from wsss_core.data.augment import normalise, resize, scaled_size, tags_of
from wsss_core.data.decoded import read_record
from wsss_core.data.table import read_table
from wsss_core.evaluate.health import write_health
from wsss_core.evaluate.predicted import write_predicted
from wsss_core.execution import Execution
from wsss_core.jobs.classifier import open_classifier
from wsss_core.jobs.step import read_step
from wsss_core.pace import Clock

log = logging.getLogger(__name__)

MOST_SIDE = 512
"""Longer side of images in pixels, to which larger ones are reduced: whole photos of a camera would take gigabytes."""


def run(
    *,
    config: Path,
    table: Path,
    classifier: Path,
    history: Path | None,
    scores: Path,
    predicted: Path,
    execution: Execution,
) -> None:
    """Write what the classifier makes of the images of the role "train", of large ones by smaller copies.

    Parameters
    ----------
    config
        Settings file of the step.
    table
        Image table.
    classifier
        Checkpoint of the classifier.
    history
        CSV of its training, whose last row says how many steps it took; None if it was trained elsewhere.
    scores
        JSON to write: signs of every class, and findings; see `wsss_core.classify.tag_scores`.
    predicted
        CSV to write: of every image the class of the highest logit, among those that its data set was annotated for.

    Raises
    ------
    UserError
        If an image cannot be read, or the classifier is for other classes.
    """
    step = read_step(config)
    images = read_table(table)
    records, device = images.split("train"), execution.torch_device()
    network = open_classifier(classifier, images.class_names, device)
    rows, clock = [], Clock("image", len(records), 0)
    for number, record in enumerate(records, 1):
        image = read_record(record)
        small = resize(image, scaled_size(image.shape[:2], min(1.0, MOST_SIDE / max(image.shape[:2]))))
        pixels = torch.from_numpy(normalise(small))[None].to(device)
        rows.append([part.float().cpu().numpy() for part in try_image(network, pixels)])
        pace = clock.pace(number, last=number == len(records))
        if pace:
            log.info("%s", pace)
    tried = Tried(*(np.stack(part) for part in zip(*rows, strict=True)))
    labels = tags_of(records, len(images.class_names)).numpy()
    folds = folds_of([record.id for record in records], step.settings.folds)
    found = tag_scores(tried, labels, images.class_names, folds)
    findings = judge(step.stage, found, _advice(history, len(records)))
    for finding in findings:
        log.warning("%s", finding.line())
    content = {"classes": found, "stop": step.settings.stop}
    if images.domains:
        domains = np.array([record.domain for record in records])
        content["domains"] = by_domain(tried, labels, images.class_names, domains)
    guesses = np.where(np.isnan(labels), -np.inf, tried.logits).argmax(1)
    write_predicted(predicted, {r.id: int(c) for r, c in zip(records, guesses, strict=True)}, images.class_names)
    write_health(scores, content, findings)


def _advice(history: Path | None, count: int) -> str:
    """What to do about a classifier that does not tell the classes of so many photos apart."""
    if history is None:
        return (
            "It was trained elsewhere: see that its outputs are the classes in this order (classes), and that it was "
            "trained on such photos"
        )
    steps = int(history.read_text(encoding="utf-8").splitlines()[-1].partition(",")[0])
    return (
        f"It took {steps} steps on {count} photos: train longer (epochs), at another rate (learning_rate), from "
        "a file of ImageNet weights (weights), or keep more of these (frozen_stages)"
    )
