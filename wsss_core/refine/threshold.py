"""Label masks cut from scores in [0, 1] by a background threshold, or by two with undecided pixels between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.refine import (
    MaskInputs,
    MaskMaker,
    Threshold,
    cut_at,
    highest_label,
    mask_values,
    threshold_of,
    without_classes,
)
from wsss_core.settings import setting
from wsss_core.store.cut import Cut


@dataclass(frozen=True)
class ThresholdSettings:
    """Label masks from walked scores, which are scaled to [0, 1] over all classes of an image together."""

    threshold: Threshold = setting(
        0.27,
        "background threshold (RIB .27; IRN and AdvCAM .25, W-OoD .22; RIB on COCO .22; after `psa` .5); otsu: that of "
        "each image's own scores, no masks used; score: what the score rule of the walk chose; oracle: the best value "
        "in hindsight, which uses the masks",
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


def maker(settings: ThresholdSettings, inputs: MaskInputs) -> MaskMaker:
    """Masks cut from the maps at the threshold, or the two, of the settings.

    Raises
    ------
    UserError
        If the threshold asked for is not known.
    """
    cut = cut_at(settings.threshold, inputs.chosen) if settings.band is None else Cut("band", band=settings.band)

    def mask(record: ImageRecord) -> np.ndarray:
        maps = inputs.maps[record.id]
        scores = maps.full()
        threshold = threshold_of(cut, scores) if cut.band is None else 0.0
        return score_mask(scores, maps.classes, threshold, cut.band)

    return MaskMaker(cut, lambda records: [mask(record) for record in records])


def score_mask(
    scores: Tensor, classes: Sequence[int], threshold: float, band: tuple[float, float] | None
) -> np.ndarray:
    """Label mask from full-resolution scores.

    Parameters
    ----------
    scores
        [K, H, W] in [0, 1].
    classes
        The K present classes, 0-based; with none, see `wsss_core.refine.without_classes`.
    threshold
        Background threshold, used without a band; `wsss_core.refine.NO_BACKGROUND`: the strongest class everywhere.
    band
        See `ThresholdSettings.band`.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c, 255 undecided.
    """
    if not classes:
        return without_classes((scores.shape[1], scores.shape[2]), threshold)
    if band is None:
        return mask_values(highest_label(scores, threshold), classes)
    low, high = band
    labels = mask_values(highest_label(scores, high), classes)
    strongest = scores.amax(0).numpy()
    labels[(strongest >= low) & (strongest <= high)] = IGNORE
    return labels
