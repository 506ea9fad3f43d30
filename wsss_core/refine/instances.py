"""Label masks from the masks of single objects, for semantic segmentation from boxes.

`wsss_core.boxes.merge` does the work. Boxes are exhaustive: what lies outside of all of them is background. But where
an image has a tag that none of its objects has, not all boxes were drawn, and what is no object is undecided.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsss_core.boxes.merge import MergeSettings, merged
from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.refine import MaskInputs, MaskMaker
from wsss_core.store.cut import Cut
from wsss_core.store.instances import Instances


def maker(settings: MergeSettings, inputs: MaskInputs) -> MaskMaker:
    """What merges the objects of each image."""

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        return [labels_of(inputs.instances[record.id], record.classes, settings) for record in records]

    return MaskMaker(Cut("none", notes=(f"objects in other boxes: {settings.contained}",)), make)


def labels_of(objects: Instances, tags: Sequence[int], settings: MergeSettings) -> np.ndarray:
    """Label map, uint8 [H, W], of an image's objects.

    Parameters
    ----------
    tags
        Classes that the image holds, 0-based.
    """
    labels = merged(objects, settings)
    if set(tags) - set(objects.classes.tolist()):
        labels[labels == 0] = IGNORE
    return labels
