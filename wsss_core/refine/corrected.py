"""Label masks that people have corrected take the place of those that were made.

The loop: masks leave for an annotation tool (`wsss export`), somebody mends some of them there, and they come back into
a folder (`wsss import`, or PNGs as they are). All that is built on this stage learns from the mended ones; where there
is none, from the mask as it was made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_core.data.folders import walk
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.refine import MaskInputs, MaskMaker
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.masks import read_mask, tried_names

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CorrectedSettings:
    """Masks corrected by hand."""

    folder: str = setting(
        REQUIRED,
        "folder of corrected masks: palette or grey PNGs of the images' sizes, with 0 for background, c + 1 for class "
        "c and 255 for undecided, named after the image's id or its file; images without one keep the mask they have",
    )


def maker(settings: CorrectedSettings, inputs: MaskInputs) -> MaskMaker:
    """The masks to start from, but for images that have a corrected one.

    Raises
    ------
    UserError
        If the folder is missing or holds no PNG; making masks: if a corrected mask is unreadable, in colour, of another
        size than its image, or holds a label that there is not.
    """
    folder = Path(settings.folder)
    if not folder.is_dir():
        raise UserError(f"corrected masks {folder}: is not a folder")
    files = [entry.name for entry in walk(folder)]
    if not any(name.endswith(".png") for name in files):
        there = f"{len(files)} files, such as {files[0]}" if files else "nothing"
        raise UserError(f"corrected masks {folder}: holds no PNG (.png) but {there}")
    masks, cut = inputs.masks, inputs.cut
    assert masks is not None and cut is not None  # the registry demands them
    n_labels = len(inputs.class_names) + 1

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        return [one(record) for record in records]

    def one(record: ImageRecord) -> np.ndarray:
        corrected = corrected_mask(folder, record)
        if corrected is None:
            return masks(record)
        log.info("%s: corrected by hand, %s", record.id, corrected)
        return read_mask(corrected, record.size, n_labels)

    return MaskMaker(cut.noting("some masks are corrected by hand"), make)


def corrected_mask(folder: Path, record: ImageRecord) -> Path | None:
    """The corrected mask of an image, if there is one, under any of its `tried_names`."""
    names = tried_names(record.id, record.path)
    return next((folder / name for name in names if (folder / name).is_file()), None)
