"""Second round of training: undecided pixels of the masks take the predictions of the first network.

RIB (NeurIPS 2021), VOC without saliency: masks with undecided pixels between two thresholds train a first network;
its predictions fill only those pixels; a second network is trained from scratch on all pixels.

The paper (A.1) fills them with what the network predicts, whatever the tags say. By default the classes that the image
does not hold are left out here, as its tags are known and a class that is absent is always wrong;
`FillSettings.restrict_to_tags: false` is the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.decoded import read_record
from wsss_core.data.table import ImageRecord, check_classes
from wsss_core.refine import MaskInputs, MaskMaker
from wsss_core.segment.predict import PredictSettings, load_segmenter, predict_probabilities
from wsss_core.settings import setting


@dataclass(frozen=True)
class FillSettings:
    """Filling of undecided pixels (255) with a network's predictions."""

    restrict_to_tags: bool = setting(
        True, "only predict the classes of the image's tags, and background; false: all classes, as RIB does (A.1)"
    )
    predict: PredictSettings = setting(PredictSettings, "prediction with the network")


def maker(settings: FillSettings, inputs: MaskInputs) -> MaskMaker:
    """The masks to start from, their undecided pixels filled with the network's predictions; none are left.

    Raises
    ------
    UserError
        If the network cannot be read or is for other classes; making masks: if an image or its mask cannot be read.
    """
    masks, cut, model = inputs.masks, inputs.cut, inputs.model
    assert masks is not None and cut is not None and model is not None  # its rule gives them
    network = load_segmenter(model, inputs.device)
    check_classes(model, network.class_names, inputs.class_names)

    def filled(record: ImageRecord) -> np.ndarray:
        labels = masks(record)
        if not (labels == IGNORE).any():
            return labels
        probabilities = predict_probabilities(network, read_record(record), settings.predict)
        return fill_undecided(labels, probabilities, record.classes, settings.restrict_to_tags)

    uncut = replace(cut, rule="none", threshold=None, band=None, from_maps=False)
    return MaskMaker(
        uncut.noting("undecided pixels hold a network's predictions"), lambda records: [filled(r) for r in records]
    )


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
