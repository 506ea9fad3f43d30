"""Second round of training: undecided pixels of the masks take the predictions of the first network.

RIB (NeurIPS 2021), VOC without saliency: masks with undecided pixels between two thresholds train a first network;
its predictions fill only those pixels; a second network is trained from scratch on all pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsss_core.segment.predict import PredictSettings
from wsss_core.settings import setting
from wsss_core.store.masks import IGNORE


@dataclass(frozen=True)
class FillSettings:
    """Filling of undecided pixels (255) with a network's predictions."""

    restrict_to_tags: bool = setting(True, "only predict the classes of the image's tags, and background")
    predict: PredictSettings = setting(PredictSettings, "prediction with the network")


def fill_undecided(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[int], restrict_to_tags: bool
) -> np.ndarray:
    """Replace 255 by the most probable label.

    Parameters
    ----------
    labels
        uint8 [H, W].
    probabilities
        [L, H, W], background first.
    classes
        The image's tags, 0-based.
    restrict_to_tags
        Whether only background and these classes may be chosen.

    Returns
    -------
    uint8 [H, W] without 255.
    """
    allowed = np.array([0, *(c + 1 for c in classes)]) if restrict_to_tags else np.arange(len(probabilities))
    predicted = allowed[probabilities[allowed].argmax(0)]
    return np.where(labels == IGNORE, predicted, labels).astype(np.uint8)
