"""From masks of objects to one label map of an image, for a semantic network to learn.

Lee, Yi, Shin & Yoon, "BBAM", CVPR 2021 (Lee's dissertation, section 5.3.4): pixels that objects of two classes claim
are ignored (``contained: ignore``). The published code paints objects whose box lies within another box over what it
has so far (``contained: win``), and last of all ignores what is ignored for any object, also where another claims it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.settings import setting
from wsss_core.store.instances import Instances


@dataclass(frozen=True)
class MergeSettings:
    """Label maps from the masks of objects."""

    contained: Literal["win", "ignore"] = setting(
        "win",
        "an object whose box lies within another's: win: its pixels are its own (published code); ignore: what it "
        "shares with an object of another class is undecided, as for other objects (paper)",
    )


def merged(objects: Instances, settings: MergeSettings) -> np.ndarray:
    """Label map of an image's objects.

    Parameters
    ----------
    objects
        The objects; `Instances.ignored` are the pixels that are undecided for each. Crowds are undecided altogether.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c, 255 undecided.

    Examples
    --------
    >>> masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], bool)
    >>> boxes = [[0, 0, 2, 1], [1, 0, 3, 1]]
    >>> merged(Instances.of((1, 4), [4, 6], boxes, masks), MergeSettings()).tolist()
    [[5, 255, 7, 0]]
    """
    labels = np.zeros(objects.size, dtype=np.uint8)
    claimed = np.zeros(objects.size, dtype=bool)
    single = np.flatnonzero(~objects.crowd)
    for c in np.unique(objects.classes[single]):
        own = objects.masks[single][objects.classes[single] == c].any(0)
        labels[own] = np.where(claimed[own], IGNORE, c + 1)
        claimed |= own
    if settings.contained == "win":
        for number in _contained(objects.boxes[single]):
            labels[objects.masks[single[number]]] = objects.classes[single[number]] + 1
    undecided = objects.ignored[single].any(0)
    undecided |= objects.masks[objects.crowd].any(0) & (labels == 0)
    labels[undecided] = IGNORE
    return labels


def _contained(boxes: np.ndarray) -> list[int]:
    """Numbers of the boxes that lie entirely in another one, which is not the same box, the largest first."""
    low = (boxes[None, :, :2] <= boxes[:, None, :2]).all(2)
    high = (boxes[None, :, 2:] >= boxes[:, None, 2:]).all(2)
    same = (boxes[None] == boxes[:, None]).all(2)
    within = (low & high & ~same).any(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return [int(number) for number in np.argsort(-areas, kind="stable") if within[number]]
