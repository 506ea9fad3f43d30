"""True masks as scores take them, where a data set was not annotated for all classes."""

from __future__ import annotations

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.data.true_masks import read_true_mask


def true_labels(record: ImageRecord, n_labels: int) -> np.ndarray:
    """The true mask of an image, uint8 [H, W], its background ignored (255) if it may hold classes that the image's
    data set was not annotated for; errors as for `read_true_mask`.
    """
    labels = read_true_mask(record, n_labels)
    return np.where(labels == 0, np.uint8(IGNORE), labels) if record.unknown else labels
