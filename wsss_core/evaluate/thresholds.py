"""The background threshold of maps: scored at every value, and chosen by a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import Metrics, metrics
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.evaluate.sweep import ScoresSettings, is_held_out, sweep

Pairs = Callable[[Sequence[str]], Iterable[tuple[Any, Any]]]
"""From image ids to the maps and the true mask of each, as `sweep` takes them."""


def divided(image_ids: Sequence[str], settings: ScoresSettings) -> tuple[list[str], list[str]]:
    """The images that choose the threshold apart from those that are scored, and those; under rule heldout alone.

    Raises
    ------
    UserError
        If rule heldout leaves no image on one side.
    """
    if settings.rule != "heldout":
        return [], list(image_ids)
    choosing = [image_id for image_id in image_ids if is_held_out(image_id, settings.heldout_fraction)]
    scored = [image_id for image_id in image_ids if not is_held_out(image_id, settings.heldout_fraction)]
    if not (choosing and scored):
        raise UserError(
            f"rule heldout: a fraction of {settings.heldout_fraction} of {len(image_ids)} images with masks leaves "
            f"{len(choosing)} to choose the threshold on and {len(scored)} to evaluate; change heldout_fraction"
        )
    return choosing, scored


@dataclass(frozen=True)
class ThresholdScores:
    """Scores of maps at every threshold, and as the rule cuts them.

    Attributes
    ----------
    levels
        The T thresholds, ascending.
    scores
        At every threshold.
    best
        Place of the threshold that is best in hindsight.
    chosen
        The threshold that the rule chose, one of the levels; None under rule otsu, where every image has its own.
    at_chosen
        Scores of all images cut by the rule.
    """

    levels: tuple[float, ...]
    scores: Metrics
    best: int
    chosen: float | None
    at_chosen: Metrics

    def miou(self, place: int) -> float:
        """Mean IoU at a threshold, to six places."""
        return round(float(self.scores.mean("iou")[place]), 6)


def score_thresholds(
    pairs: Pairs, choosing: Sequence[str], scored: Sequence[str], settings: ScoresSettings, n_labels: int
) -> ThresholdScores:
    """Score maps at every threshold, and as the rule of the settings cuts them.

    Parameters
    ----------
    choosing, scored
        As `divided` gives them.
    n_labels
        Number of labels with background.
    """
    if settings.rule == "none":
        matrices = sweep(pairs(scored), [-np.inf], n_labels)
        return ThresholdScores((), metrics(matrices), 0, None, metrics(matrices[0]))
    levels = settings.thresholds()
    matrices = sweep(pairs(scored), levels, n_labels)
    scores = metrics(matrices)
    best = int(scores.mean("iou").argmax())
    if settings.rule == "otsu":
        return ThresholdScores(levels, scores, best, None, metrics(_each_at_its_own(pairs(scored), n_labels)))
    place = {
        "fixed": lambda: levels.index(settings.threshold),
        "oracle": lambda: best,
        "heldout": lambda: int(metrics(sweep(pairs(choosing), levels, n_labels)).mean("iou").argmax()),
    }[settings.rule]()
    return ThresholdScores(levels, scores, best, levels[place], metrics(matrices[place]))


def _each_at_its_own(seeds_and_targets: Iterable[tuple[Any, Any]], n_labels: int) -> np.ndarray:
    """Confusion matrix [L, L] of images that are each cut at Otsu's threshold of their maps."""
    total = np.zeros((n_labels, n_labels), dtype=np.int64)
    for maps, target in seeds_and_targets:
        total += sweep([(maps, target)], [otsu_threshold(maps.full())], n_labels)[0]
    return total
