"""The background threshold of maps: scored at every value, and chosen by a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import Metrics, metrics
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
    """Scores of maps at every threshold.

    Attributes
    ----------
    levels
        The T thresholds, ascending.
    scores
        At every threshold.
    chosen, best
        Places of the threshold that the rule chose and of the best in hindsight.
    at_chosen
        Scores at the chosen threshold.
    """

    levels: tuple[float, ...]
    scores: Metrics
    chosen: int
    best: int
    at_chosen: Metrics

    def miou(self, place: int) -> float:
        """Mean IoU at a threshold, to six places."""
        return round(float(self.scores.mean("iou")[place]), 6)


def score_thresholds(
    pairs: Pairs, choosing: Sequence[str], scored: Sequence[str], settings: ScoresSettings, n_labels: int
) -> ThresholdScores:
    """Score maps at every threshold, and choose one by the rule of the settings.

    Parameters
    ----------
    choosing, scored
        As `divided` gives them.
    n_labels
        Number of labels with background.
    """
    levels = settings.thresholds()
    matrices = sweep(pairs(scored), levels, n_labels)
    scores = metrics(matrices)
    best = int(scores.mean("iou").argmax())
    chosen = {
        "fixed": lambda: levels.index(settings.threshold),
        "oracle": lambda: best,
        "heldout": lambda: int(metrics(sweep(pairs(choosing), levels, n_labels)).mean("iou").argmax()),
    }[settings.rule]()
    return ThresholdScores(levels, scores, chosen, best, metrics(matrices[chosen]))
