"""Signs of how good label masks are, from the masks and the tags alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage.measure import label as connected

from wsss_core.constants import IGNORE
from wsss_core.evaluate.confusion import confusion, metrics
from wsss_core.evaluate.health import Finding, mean_of, rounded

EMPTY, LOST, FULL = 0.5, 0.3, 0.8
"""Beyond these it is warned: share of photos with tags whose mask is all background, share of tags that no pixel has,
and share of a photo that a class covers where it is tagged, on average."""

SMALL = 0.001
"""Part of the photo below which a piece is not counted."""


@dataclass(frozen=True)
class MaskSigns:
    """What masks look like.

    Attributes
    ----------
    images
        Photos with tags.
    empty
        Share of these whose mask holds no class.
    kept
        Share of the tags that some pixel of the photo's mask has.
    coverage, pieces
        Of every class: its share of the pixels, and its connected pieces, as means over the photos with the tag; None
        for a class without photos.
    agreement
        Mean IoU with the stage that these masks were made from; None where it has none.
    """

    images: int
    empty: float
    kept: float
    coverage: tuple[float | None, ...]
    pieces: tuple[float | None, ...]
    agreement: float | None = None

    def content(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As a health file holds them."""
        named = {
            name: {"coverage": rounded(coverage), "pieces": rounded(pieces)}
            for name, coverage, pieces in zip(class_names, self.coverage, self.pieces, strict=True)
        }
        return {
            "images": self.images,
            "empty": rounded(self.empty),
            "kept": rounded(self.kept),
            "agreement": rounded(self.agreement),
            "classes": named,
        }


def mask_signs(
    masks: Iterable[tuple[np.ndarray, Sequence[int], np.ndarray | None]], n_classes: int
) -> MaskSigns | None:
    """Signs of masks.

    Parameters
    ----------
    masks
        For each photo its mask, uint8 [H, W] (0 background, c + 1 class c, 255 undecided), its tags (0-based), and the
        mask of the stage before, or None.

    Returns
    -------
    The signs; None if no photo has a tag.

    Examples
    --------
    >>> mask = np.zeros((10, 10), dtype=np.uint8)
    >>> mask[:2, :5] = 1
    >>> signs = mask_signs([(mask, (0,), None), (mask, (0, 1), None)], 2)
    >>> signs.empty, signs.kept.__round__(2), signs.coverage, signs.pieces
    (0.0, 0.67, (0.1, 0.0), (1.0, 0.0))
    """
    coverage: list[list[float]] = [[] for _ in range(n_classes)]
    pieces: list[list[float]] = [[] for _ in range(n_classes)]
    empty, total, compared = 0, np.zeros((n_classes + 1, n_classes + 1), dtype=np.int64), False
    images = 0
    for mask, tags, before in masks:
        if not tags:
            continue
        images += 1
        empty += not np.isin(mask, [c + 1 for c in tags]).any()
        for c in tags:
            own = mask == c + 1
            coverage[c].append(float(own.mean()))
            sizes = np.bincount(connected(own, connectivity=2).ravel())[1:]
            pieces[c].append(float((sizes >= SMALL * mask.size).sum()))
        if before is not None:
            compared = True
            total += confusion(np.where(mask == IGNORE, 0, mask), before, n_classes + 1)
    if not images:
        return None
    tagged = [value for values in coverage for value in values]
    return MaskSigns(
        images,
        empty / images,
        float(np.mean([value > 0 for value in tagged])),
        tuple(mean_of(values) for values in coverage),
        tuple(mean_of(values) for values in pieces),
        float(metrics(total).mean("iou")) if compared else None,
    )


def confidence(maps: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the strongest class map where a class was found; 0 where none was.

    Parameters
    ----------
    maps
        float [K, H, W], each class scaled to [0, 1].
    labels
        uint8 [H, W]: 0 background, 255 undecided, otherwise a class.

    Examples
    --------
    >>> confidence(np.array([[[0.2, 0.8]], [[0.1, 0.9]]]), np.array([[0, 2]], dtype=np.uint8))
    0.9
    """
    found = (labels != 0) & (labels != IGNORE)
    return float(maps.max(0)[found].mean()) if len(maps) and found.any() else 0.0


def judge(stage: str, signs: MaskSigns, class_names: Sequence[str]) -> list[Finding]:
    """What is wrong with the masks of a stage."""
    found = []
    if signs.empty > EMPTY:
        text = (
            f"{signs.empty:.0%} of the masks are empty. Lower the stage's threshold, or take each photo's own "
            "(threshold: otsu, of a seed score: {rule: otsu}); if that does not help, look at the classifier"
        )
        return [Finding("warning", stage, "empty", signs.empty, EMPTY, text)]
    none = [name for name, share in zip(class_names, signs.coverage, strict=True) if share == 0]
    if none:
        text = f"no mask holds {', '.join(none)}, though photos have the tag"
        found.append(Finding("warning", stage, "coverage", 0.0, 0.0, text))
    if 1 - signs.kept > LOST:
        text = f"{1 - signs.kept:.0%} of the tags are in no pixel of their photo's mask: the threshold may be too high"
        found.append(Finding("warning", stage, "kept", signs.kept, 1 - LOST, text))
    for name, share in zip(class_names, signs.coverage, strict=True):
        if share is not None and share > FULL:
            text = (
                f"{name} covers {share:.0%} of its photos on average: the threshold may be too low, or the photos show "
                "nothing else, so that nothing tells the class from what is around it"
            )
            found.append(Finding("warning", stage, "coverage", share, FULL, text))
    return found
