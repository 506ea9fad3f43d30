"""How well a classifier tells the classes apart, from tags alone.

Two numbers a class: the average precision of the tag over the images for training, and over images that the classifier
did not see. The second is cross-validated, so that no image is lost to it: the images are dealt into folds by a hash
of their ids, and for every fold a linear classifier is fitted again on the pooled features of the other folds. The
features themselves have seen all images unless the backbone keeps its weights, so the number flatters a classifier
whose last stages were trained.

A third one is the share of tags whose class activation map is zero everywhere: nothing of these can be found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from wsss_core import keyed
from wsss_core.evaluate.health import Finding, above_chance, expected_precision, mean_of, rounded
from wsss_core.models.cam import CamNetwork
from wsss_core.settings import setting

LEAST = 5
"""Images with the tag, and without, that a class must have to be cross-validated."""

ZERO, TOLD = 0.9, 0.3
"""A classifier stops the run where more than the share ZERO of the tags have a map of zeros, or where its precision on
the images that it was trained on lies less than TOLD of the way from chance to perfect, on average over the classes."""

SOME_ZERO, CLASS_TOLD, UNSEEN = 0.1, 0.3, 0.3
"""Beyond these it is warned: share of maps of zeros, and the same way of one class, and for images that it did not see.
"""


@dataclass(frozen=True)
class TagScoresSettings:
    """How the classifier is tried on the tags."""

    stop: bool = setting(
        True, "whether a classifier that cannot tell the classes apart stops the run before seeds are made of it"
    )
    folds: int = setting(5, "folds of the cross-validation", minimum=2)


@dataclass(frozen=True)
class Tried:
    """What a classifier made of N images.

    Attributes
    ----------
    logits
        float32 [N, C].
    features
        Pooled features, float32 [N, D].
    peaks
        Highest value of each class's logit map, float32 [N, C].
    """

    logits: np.ndarray
    features: np.ndarray
    peaks: np.ndarray


@torch.no_grad()
def try_image(network: CamNetwork, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [C], pooled features [D] and highest values of the logit maps [C] of a normalised image [1, 3, H, W]."""
    features = network.features(pixels)
    maps = network.classify(features)[0].flatten(1)
    return maps.mean(1), features[0].mean((1, 2)), maps.amax(1)


def tag_scores(
    tried: Tried, labels: np.ndarray, class_names: Sequence[str], folds: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Signs of every class.

    Parameters
    ----------
    labels
        float32 [N, C], the tags as `tags_of` gives them; of a class, images of which it is unknown are left out.
    folds
        Fold of every image, int [N].

    Returns
    -------
    Class name to "images" (with the tag), "chance" (average precision of a random order), "precision", "unseen" and
    "zero_maps". Numbers that cannot be told are None: precision where all images have the tag or none has, unseen
    where fewer than 5 have it or lack it.
    """
    found = {}
    for c, name in enumerate(class_names):
        known = ~np.isnan(labels[:, c])
        present = labels[known, c] > 0
        count, told = int(present.sum()), bool(present.any() and not present.all())
        found[name] = {
            "images": count,
            "chance": rounded(expected_precision(count, len(present))) if count else None,
            "precision": rounded(float(average_precision_score(present, tried.logits[known, c]))) if told else None,
            "unseen": rounded(_unseen(tried.features[known], present, folds[known])) if told else None,
            "zero_maps": rounded(float((tried.peaks[known, c][present] <= 0).mean())) if count else None,
        }
    return found


def by_domain(
    tried: Tried, labels: np.ndarray, class_names: Sequence[str], domains: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Name of every data set to its signs: "images", "precision" and "zero_maps", means over the classes where these
    can be told.

    Parameters
    ----------
    domains
        Data set of every image, [N] texts.
    """
    found = {}
    for domain in np.unique(domains):
        own = domains == domain
        part = Tried(tried.logits[own], tried.features[own], tried.peaks[own])
        rows = tag_scores(part, labels[own], class_names, np.zeros(own.sum(), dtype=int)).values()
        means = {key: rounded(mean_of(row[key] for row in rows)) for key in ("precision", "zero_maps")}
        found[str(domain)] = {"images": int(own.sum()), **means}
    return found


def folds_of(ids: Sequence[str], count: int) -> np.ndarray:
    """The fold of every image, by a hash of its id."""
    return np.array([int.from_bytes(keyed.key_bytes("fold", image_id)[:4], "big") % count for image_id in ids])


def judge(stage: str, scores: dict[str, dict[str, Any]], advice: str) -> list[Finding]:
    """What is wrong with a classifier.

    Parameters
    ----------
    advice
        What to change, in words.
    """
    tags = sum(one["images"] for one in scores.values())
    zero = sum(one["zero_maps"] * one["images"] for one in scores.values() if one["images"]) / max(tags, 1)
    ways = {name: _above_chance(one, "precision") for name, one in scores.items()}
    seen, unseen = mean_of(ways.values()), mean_of(_above_chance(one, "unseen") for one in scores.values())
    if zero > ZERO:
        text = f"{zero:.0%} of the tags have a map that is zero everywhere, so their masks would be empty. {advice}"
        return [Finding("stop", stage, "zero_maps", zero, ZERO, text)]
    if seen is not None and seen < TOLD:
        text = "it does not tell the classes apart, not even on the photos for training. "
        if unseen is not None and unseen > UNSEEN:
            text += "Its features do tell them apart, so that it was trained too little or too fast. "
        text += advice
        return [Finding("stop", stage, "precision", seen, TOLD, text)]
    found = []
    if zero > SOME_ZERO:
        text = f"{zero:.0%} of the tags have a map that is zero everywhere, and their masks will be empty. {advice}"
        found.append(Finding("warning", stage, "zero_maps", zero, SOME_ZERO, text))
    untold = [name for name, way in ways.items() if way is not None and way < CLASS_TOLD]
    if untold:
        text = f"it hardly tells {', '.join(untold)} from the rest, even on the photos it was trained on. {advice}"
        worst = min(way for way in ways.values() if way is not None)
        found.append(Finding("warning", stage, "precision", worst, CLASS_TOLD, text))
    if unseen is not None and unseen < UNSEEN:
        text = (
            "it hardly tells the classes apart on photos that it was not fitted on, so it may know these photos by "
            "heart. More photos help, and tags that are right"
        )
        found.append(Finding("warning", stage, "unseen", unseen, UNSEEN, text))
    return found


def _unseen(features: np.ndarray, present: np.ndarray, folds: np.ndarray) -> float | None:
    """Average precision of a tag over images that the linear classifier was not fitted on."""
    if min(present.sum(), (~present).sum()) < LEAST:
        return None
    scores = np.zeros(len(present))
    for fold in np.unique(folds):
        held = folds == fold
        if present[~held].all() or not present[~held].any():
            return None
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        model.fit(features[~held], present[~held])
        scores[held] = model.decision_function(features[held])
    return float(average_precision_score(present, scores))


def _above_chance(signs: dict[str, Any], key: str) -> float | None:
    return None if signs[key] is None else above_chance(signs[key], signs["chance"])
