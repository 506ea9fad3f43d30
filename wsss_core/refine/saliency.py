"""Label masks that disagree with a saliency mask become undecided.

RIB (NeurIPS 2021) with saliency supervision: a pixel is ignored if its pseudo-label is foreground where nothing is
salient, or background where something is. The saliency masks come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.refine import MaskInputs, MaskMaker
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.masks import read_mask, tried_names


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


def maker(settings: SaliencySettings, inputs: MaskInputs) -> MaskMaker:
    """The masks to start from, 255 where the saliency mask disagrees.

    Raises
    ------
    UserError
        If the saliency folder is missing; making masks: if a mask is missing or of another size than its image.
    """
    folder = Path(settings.folder)
    if not folder.is_dir():
        raise UserError(f"saliency folder {folder}: is not a folder")

    masks, cut = inputs.masks, inputs.cut
    assert masks is not None and cut is not None  # the registry demands them

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        return [keep_agreeing(masks(r), read_salient(folder, r, settings.threshold)) for r in records]

    note = f"pixels that disagree with saliency masks (salient from {settings.threshold}) are undecided"
    return MaskMaker(cut.noting(note), make)


def saliency_file(folder: Path, record: ImageRecord) -> Path:
    """The saliency mask of an image, under the first of its `tried_names` that there is.

    Raises
    ------
    UserError
        If none of these exists.
    """
    names = tried_names(record.id, record.path)
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
