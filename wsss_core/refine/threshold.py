"""Label masks cut from scores in [0, 1] by a background threshold, or by two with undecided pixels between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from wsss_core.refine import highest_label, mask_values
from wsss_core.settings import setting
from wsss_core.store.masks import IGNORE


@dataclass(frozen=True)
class MaskSettings:
    """Label masks from walked scores, which are scaled to [0, 1] over all classes of an image together."""

    threshold: float | Literal["score", "oracle"] = setting(
        0.27,
        "background threshold (RIB .27; IRN and AdvCAM .25, W-OoD .22; RIB on COCO .22; after `psa` .5); score: the "
        "value that the score rule of the walk chose; oracle: the best value in hindsight, which uses the masks",
        minimum=0,
        maximum=1,
    )
    band: tuple[float, float] | None = setting(
        None,
        "(low, high): background below low, foreground above high, undecided (255) between; replaces the threshold. "
        "(0.2, 0.3) is RIB's choice for retraining",
        ascending=True,
        items={"minimum": 0, "maximum": 1},
    )


def score_mask(
    scores: Tensor, classes: Sequence[int], threshold: float, band: tuple[float, float] | None
) -> np.ndarray:
    """Label mask from full-resolution scores.

    Parameters
    ----------
    scores
        [K, H, W] in [0, 1].
    classes
        The K present classes, 0-based; with none, all is background.
    threshold
        Background threshold, used without a band.
    band
        See `MaskSettings.band`.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c, 255 undecided.
    """
    if not classes:
        return np.zeros(scores.shape[1:], dtype=np.uint8)
    if band is None:
        return mask_values(highest_label(scores, threshold), classes)
    low, high = band
    labels = mask_values(highest_label(scores, high), classes)
    strongest = scores.amax(0).numpy()
    labels[(strongest >= low) & (strongest <= high)] = IGNORE
    return labels
