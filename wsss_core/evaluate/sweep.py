"""Every background threshold in one pass over the maps.

The naive way stacks a plane of the constant t in front of the K class maps, takes the argmax, and reads all maps
again for the next t. But the winner among the classes does not depend on t: keep each pixel's highest class and
how many thresholds lie below its value, count (target, class, number) in a histogram, and the confusion matrix of
every threshold is a sum over one axis. The counts are the same integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wsss_core import keyed
from wsss_core.constants import IGNORE
from wsss_core.settings import setting

Rule = Literal["fixed", "heldout", "oracle", "otsu", "none"]
RULES = (
    "how the background threshold is chosen: fixed: the value `threshold`, no masks used; otsu: Otsu's threshold of "
    "each image's own maps, no masks used; heldout: best mIoU on `heldout_fraction` of the images with masks, "
    "evaluated on the others; oracle: best mIoU on the very masks that are scored (labelled so); none: there "
    "is no background, every pixel has its strongest class (dataset.background)"
)
"""What the rules are, in the words of the settings."""


@dataclass(frozen=True)
class ScoresSettings:
    """How maps are scored and how the background threshold of everything downstream is chosen."""

    rule: Rule = setting("fixed", RULES)
    threshold: float = setting(
        0.25, "background threshold under rule fixed, on maps in [0, 1]", minimum=0, exclusiveMaximum=1
    )
    heldout_fraction: float = setting(
        0.2,
        "part of the scored images that rule heldout chooses on, by a hash of their ids",
        exclusiveMinimum=0,
        exclusiveMaximum=1,
    )
    sweep_from: float = setting(0.01, "lowest threshold of the curve", minimum=0, exclusiveMaximum=1)
    sweep_to: float = setting(0.8, "highest threshold of the curve", exclusiveMinimum=0, maximum=1)
    sweep_step: float = setting(0.01, "step between thresholds of the curve", minimum=0.0001, maximum=1)

    def thresholds(self) -> tuple[float, ...]:
        """Ascending thresholds of the curve, and the fixed one."""
        count = int((self.sweep_to - self.sweep_from) / self.sweep_step + 1e-6) + 1
        grid = np.round(self.sweep_from + self.sweep_step * np.arange(max(count, 0)), 10)
        return tuple(sorted({*grid.tolist(), self.threshold}))


@dataclass(frozen=True)
class EvaluationSettings:
    """How label masks are scored."""

    ignored: Literal["background", "skip"] = setting(
        "background",
        "pixels that a mask leaves undecided (255): counted as predicted background, as in the published IRN code, "
        "or skipped",
    )


def sweep(seeds_and_targets: Iterable[tuple[Any, Any]], thresholds: Sequence[float], n_labels: int) -> Any:
    """Confusion matrices of every background threshold, in one pass over the maps.

    A pixel is background unless the highest class map exceeds the threshold (compared as float32, so a tie goes to
    the background, and a tie of two classes to the first), exactly as the argmax over a constant plane stacked in
    front of the maps.

    Parameters
    ----------
    seeds_and_targets
        Pairs of maps and target. Maps have ``classes`` (0-based) and ``full()`` giving [K, H, W], such as
        `SeedMaps`; with K = 0 every pixel is background. Targets are labels [H, W], 255 skipped.
    thresholds
        T ascending numbers.
    n_labels
        Number of labels L with background.

    Returns
    -------
    int64 [T, L, L], rows target, columns prediction: a tensor on their device if the targets are tensors,
    otherwise an array.

    Raises
    ------
    ValueError
        If the thresholds do not ascend, sizes differ, or a label or class is out of range.
    """
    levels = np.asarray(thresholds, dtype=np.float32)
    if levels.ndim != 1 or np.any(np.diff(levels) < 0):
        raise ValueError("thresholds must be a sequence in ascending order")
    counts = np.zeros((n_labels, n_labels - 1, len(levels) + 1), dtype=np.int64)
    background = np.zeros(n_labels, dtype=np.int64)
    device = None
    for maps, target in seeds_and_targets:
        device = getattr(target, "device", None) if not isinstance(target, np.ndarray) else None
        _add(counts, background, maps, _array(target), levels)
    result = _matrices(counts, background)
    if device is None:
        return result
    import torch

    return torch.from_numpy(result).to(device)


def _add(counts: np.ndarray, background: np.ndarray, maps: Any, target: np.ndarray, levels: np.ndarray) -> None:
    """Add one image: `counts` [L, C, T+1] by (target, highest class, thresholds below it), or `background` [L]."""
    n_labels = len(background)
    classes = list(maps.classes)
    full = _array(maps.full())
    if full.shape != (len(classes), *target.shape):
        raise ValueError(f"maps are {full.shape}, expected {(len(classes), *target.shape)}")
    if any(not 0 <= c < n_labels - 1 for c in classes):
        raise ValueError(f"maps are of the classes {classes}, allowed are 0..{n_labels - 2}")
    counted = target != IGNORE
    labels = target[counted].astype(np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= n_labels):
        raise ValueError(f"target holds a label outside 0..{n_labels - 1}")
    if not classes:
        background += np.bincount(labels, minlength=n_labels)
        return
    highest = full[0]
    winner = np.zeros(target.shape, dtype=np.int64)
    for k, values in enumerate(full[1:], 1):
        winner = np.where(values > highest, k, winner)
        highest = np.maximum(values, highest)
    below = np.searchsorted(levels, highest[counted].astype(np.float32), side="left")
    shape = (n_labels, len(classes), len(levels) + 1)
    cells = (labels * shape[1] + winner[counted]) * shape[2] + below
    counts[:, classes] += np.bincount(cells, minlength=np.prod(shape)).reshape(shape)


def _matrices(counts: np.ndarray, background: np.ndarray) -> np.ndarray:
    """[T, L, L] from the histogram: at threshold i the pixels with more than i thresholds below them are foreground."""
    foreground = counts[:, :, ::-1].cumsum(-1)[:, :, ::-1][:, :, 1:]
    rest = background[:, None] + counts.sum((1, 2))[:, None] - foreground.sum(1)
    return np.concatenate([rest[:, None], foreground], 1).transpose(2, 0, 1).copy()


def _array(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def is_held_out(image_id: str, fraction: float) -> bool:
    """Whether rule heldout chooses its threshold on this image: a hash of the id, the same in every run."""
    return keyed.chance("heldout", image_id) < fraction
