"""Data without a background (``dataset: {background: none}``): which methods work on it, and the settings it decides.

Every pixel of such data is of some class, as in land cover. Label 0 stays reserved and never occurs; class c is c + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wsss_core.config.given import GivenStage
from wsss_core.config.validate import Mistakes

WORKING = {
    "classifiers": ("bce", "mixup_cam", "sc_cam", "pretrained"),
    "seeds": ("cam", "rib", "advcam", "advcam_rib", "grad_cam"),
    "refinements": ("crf", "seed_threshold", "truth"),
}
"""Methods that need no background, by section."""

NONE = "none"
"""The word for no background, in the data set, for thresholds and as a rule of scores."""


def without_background(
    dataset: Mapping[str, Any], stages: Sequence[GivenStage], mistakes: Mistakes
) -> list[GivenStage]:
    """The stages, their thresholds and rules of scores set to ``none`` if the data set has no background.

    Notes methods that make no sense without one, thresholds that contradict it, and the word ``none`` on data that has
    a background.
    """
    if dataset.get("background") != NONE:
        for stage in stages:
            for key, given in _given(stage).items():
                if given == NONE or (isinstance(given, list) and NONE in given):
                    mistakes.add(f"{stage.where}.{key}", "none is for data without a background: dataset.background")
        return list(stages)
    if dataset.get("ood"):
        mistakes.add("dataset.ood", "every photo of data without a background holds a class: leave the lists out")
    return [_without(stage, mistakes) for stage in stages]


def _without(stage: GivenStage, mistakes: Mistakes) -> GivenStage:
    allowed = WORKING.get(stage.section, ())
    if stage.method not in allowed:
        instead = f"use {', '.join(allowed)}" if allowed else "export the masks of a refinement"
        mistakes.add(stage.where, f"{stage.method} needs a background, and dataset.background is none: {instead}")
        return stage
    for key, given in _given(stage).items():
        if given != NONE:
            mistakes.add(f"{stage.where}.{key}", "there is no background to cut off (dataset.background): leave it out")
    settings = dict(stage.settings)
    if stage.section == "seeds" and isinstance(settings.get("score", {}), Mapping):
        settings["score"] = {**settings.get("score", {}), "rule": NONE}
    if "threshold" in stage.schema["properties"] and stage.section == "refinements":
        settings["threshold"] = NONE
    return replace(stage, settings=settings)


def _given(stage: GivenStage) -> dict[str, Any]:
    """What a stage says itself of thresholds and how they are chosen, by key."""
    score = stage.settings.get("score")
    found = {f"score.{key}": score[key] for key in ("rule", "threshold") if isinstance(score, Mapping) and key in score}
    if stage.section == "refinements":
        found |= {k: stage.settings[k] for k in ("threshold", "band") if stage.settings.get(k) is not None}
    return found
