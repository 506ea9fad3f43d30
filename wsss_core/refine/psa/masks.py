"""Scores and masks of PSA's walk: a class competes with a background score, so 0.5 is the published decision.

The published code takes the argmax over background and classes. Scores are stored as shares f / (f + b) of a class
against the background (`store.scores`), so that argmax is the threshold 0.5, and other thresholds, bands and curves
work as they do for the other walks.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsss_core.evaluate.sweep import ScoresSettings as MapScoresSettings
from wsss_core.refine import MaskInputs, MaskMaker, Threshold, threshold
from wsss_core.settings import setting


@dataclass(frozen=True)
class ScoresSettings(MapScoresSettings):
    """How the shares are scored; 0.5 is the published decision."""

    threshold: float = setting(0.5, "threshold on shares in [0, 1] under rule fixed", minimum=0, exclusiveMaximum=1)
    sweep_to: float = setting(0.99, "highest threshold of the curve", exclusiveMinimum=0, maximum=1)


@dataclass(frozen=True)
class MasksSettings(threshold.ThresholdSettings):
    """Label masks from the walked shares of classes against the background."""

    threshold: Threshold = setting(
        0.5,
        "threshold on the share f / (f + b) of a class's score f against the background's b; 0.5 takes the highest of "
        "classes and background, as published; otsu: that of each image's own shares, no masks used; score: what the "
        "score rule of this stage chose; oracle: the best value in hindsight, which uses the masks",
        minimum=0,
        maximum=1,
    )
    band: tuple[float, float] | None = setting(
        None,
        "(low, high): background below low, foreground above high, undecided (255) between; replaces the threshold",
        ascending=True,
        items={"minimum": 0, "maximum": 1},
    )


def maker(settings: MasksSettings, inputs: MaskInputs) -> MaskMaker:
    """`wsss_core.refine.threshold.maker`, of shares."""
    return threshold.maker(settings, inputs)
