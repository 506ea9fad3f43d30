"""Label masks that disagree with a saliency mask become undecided.

RIB (NeurIPS 2021) with saliency supervision: a pixel is ignored if its pseudo-label is foreground where nothing is
salient, or background where something is. The saliency masks come from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.masks import IGNORE, mask_name, read_mask


@dataclass(frozen=True, kw_only=True)
class SaliencySettings:
    """Agreement of label masks with saliency masks."""

    folder: str = setting(
        REQUIRED,
        "folder of the saliency masks: grey PNGs of the images' sizes, named after the image's id or its file",
    )
    threshold: int = setting(
        1,
        "a pixel is salient from this grey level on; 1 suits masks of 0 and 1 or 0 and 255, 128 saliency maps",
        minimum=1,
        maximum=255,
    )


def saliency_file(folder: Path, record: ImageRecord) -> Path:
    """The saliency mask of an image.

    Tried in this order: the id escaped as in this program's own masks, the id with its suffix replaced, in subfolders
    if it has any, and the name of the image file.

    Raises
    ------
    UserError
        If none of these exists.
    """
    names = [mask_name(record.id), f"{record.id}.png", str(Path(record.id).with_suffix(".png"))]
    names = list(dict.fromkeys([*names, f"{Path(record.path).stem}.png"]))
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"saliency folder {folder}: no mask of image {record.id!r}; looked for {', '.join(names)}")


def read_salient(folder: Path, record: ImageRecord, threshold: int) -> np.ndarray:
    """Which pixels of an image are salient, bool [H, W].

    Raises
    ------
    UserError
        If the mask is missing, unreadable, in colour, or not of the image's size.
    """
    return read_mask(saliency_file(folder, record), record.size, n_labels=256) >= threshold


def keep_agreeing(labels: np.ndarray, salient: np.ndarray) -> np.ndarray:
    """Labels where foreground is salient and background is not, 255 elsewhere.

    Parameters
    ----------
    labels
        uint8 [H, W]: 0 background, 255 undecided, anything else a class.
    salient
        bool [H, W].

    Returns
    -------
    uint8 [H, W].

    Examples
    --------
    >>> keep_agreeing(np.array([[0, 0, 3, 3, 255]], np.uint8), np.array([[False, True, False, True, True]])).tolist()
    [[0, 255, 255, 3, 255]]
    """
    return np.where((labels != 0) == salient, labels, IGNORE).astype(np.uint8)
