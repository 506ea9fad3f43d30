"""The true masks that a data set brings, held against what they were when it was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss_core.data.decode import digest_of
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.store.masks import read_mask


def read_true_mask(record: ImageRecord, n_labels: int) -> np.ndarray:
    """The true mask of an image, uint8 [H, W]: 0 background, c + 1 class c, 255 ignored.

    Parameters
    ----------
    record
        The image; it has a mask.
    n_labels
        Number of labels with background.

    Raises
    ------
    UserError
        As `read_mask`, and if the file is not the one that was there when the data set was read: another run may draw
        masks into the same folder, and scores against two truths cannot be compared.
    """
    path = Path(record.mask)
    labels = read_mask(path, record.size, n_labels)
    if record.mask_digest and digest_of(path.read_bytes()) != record.mask_digest:
        raise UserError(
            f"{path}: the true mask changed since the data set was read; run again, so that it is read anew and all "
            "that was made with it too"
        )
    return labels
