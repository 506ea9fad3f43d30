"""Label masks from two sources, the better one first: what makes one training of tags, boxes and true masks.

Per pixel the first source decides, where it does; where it is undecided (255) the second does. Sources that are mixed
may be mixes themselves: true masks before masks from boxes before masks from tags. A source that knows nothing of an
image is undecided in all of it: a stage of true masks where the image was not drawn, label maps of objects where the
image has tags and no box (outside of all boxes of an image that has them, background is certain).

J. Lee's dissertation, section 6.2, names training on data sets of several levels of supervision as future work; this is
our proposal for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.refine import MaskInputs, MaskMaker
from wsss_core.store.cut import Cut


@dataclass(frozen=True)
class MixedSettings:
    """Masks of one source before those of another, which have no settings."""


def maker(settings: MixedSettings, inputs: MaskInputs) -> MaskMaker:
    """What mixes the masks of each image."""
    first, second = inputs.masks, inputs.otherwise
    assert first is not None and second is not None  # the step has both

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        return [mixed(first(record), second(record)) for record in records]

    return MaskMaker(Cut("none", notes=("the first source where it is decided, else the second",)), make)


def mixed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Labels, uint8 [H, W], of the first source, and of the second where the first is undecided.

    Examples
    --------
    >>> mixed(np.array([[3, 255, 255]]), np.array([[1, 2, 255]])).tolist()
    [[3, 2, 255]]
    """
    return np.where(first == IGNORE, second, first)
