"""The true masks of the photos: full supervision, as the reference that weak supervision is measured by.

A network that is trained on these masks is the fully supervised row of a paper's table. A share of the images leaves
the others undecided everywhere (255), so that nothing is learned of them: the labelled set of semi-supervised methods.
True masks enter a run by a stage of this method and by no other way; it is not scored, and what is built on it is
scored on other images alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.data.true_masks import read_true_mask
from wsss_core.errors import UserError
from wsss_core.evaluate.labelled import is_labelled
from wsss_core.refine import MaskInputs, MaskMaker
from wsss_core.settings import setting
from wsss_core.store.cut import Cut

WHOLE_SHARD = 2**28
"""Pixels of masks that are read together: a shard's, so that missing ones are counted before any is read."""


@dataclass(frozen=True)
class TruthSettings:
    """True masks as a source of supervision."""

    images: float = setting(
        1.0,
        "share of the images whose masks are taken, drawn by a hash of their ids; those of a smaller share are among "
        "those of a larger one. The masks of the others are undecided everywhere, so that training leaves them out",
        exclusiveMinimum=0,
        maximum=1,
    )
    draw: int = setting(0, "another number draws other images", minimum=0)
    missing: Literal["stop", "undecided"] = setting(
        "stop",
        "where an image that was drawn has no mask: stop, or leave it undecided, so that training leaves it out (for a "
        "data set in which some images have masks and the others tags alone)",
    )


def maker(settings: TruthSettings, inputs: MaskInputs) -> MaskMaker:
    """The masks of the data set, 255 everywhere where an image was not drawn or has none.

    Raises
    ------
    UserError
        Making masks: if one is wrong, or is missing and none may be.
    """
    n_labels = len(inputs.class_names) + 1

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        require_masks(records, settings)
        return [true_mask(record, settings, n_labels) for record in records]

    share = "all images" if settings.images == 1 else f"{100 * settings.images:.10g} % of the images"
    return MaskMaker(Cut("none", notes=(f"true masks of {share}",)), make, WHOLE_SHARD)


def require_masks(records: Sequence[ImageRecord], settings: TruthSettings) -> None:
    """Raise UserError if images that were drawn have no mask, and none may lack one."""
    drawn = [record for record in records if is_labelled(record.id, settings.images, settings.draw)]
    without = [record.id for record in drawn if not record.mask]
    if without and settings.missing == "stop":
        raise UserError(
            f"true masks: {len(without)} of {len(drawn)} images to learn from have no mask, such as "
            f"{', '.join(map(repr, without[:3]))}: add their masks to the data set, or set missing: undecided to leave "
            "these images out"
        )


def true_mask(record: ImageRecord, settings: TruthSettings, n_labels: int) -> np.ndarray:
    """The mask of an image, uint8 [H, W], 255 everywhere if it was not drawn or has none; UserError if it is wrong."""
    if not record.mask or not is_labelled(record.id, settings.images, settings.draw):
        return np.full(record.size, IGNORE, np.uint8)
    return read_true_mask(record, n_labels)
