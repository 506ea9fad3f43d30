"""GrabCut in each box: foreground and background told apart by colour alone.

Rother, Kolmogorov & Blake, "GrabCut: Interactive Foreground Extraction using Iterated Graph Cuts", SIGGRAPH 2004, in
OpenCV's implementation. All that lies outside the box is background; inside, two mixtures of colours and the edges
decide. A box with or without which too few pixels are left, and one in which nothing was found, is filled, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wsss_core.boxes import ObjectMaker, told_apart
from wsss_core.boxes.geometry import pixels
from wsss_core.data.boxes import Box
from wsss_core.settings import setting
from wsss_core.store.attributions import Attributions
from wsss_core.store.instances import Instances

COLOURS = 5
"""Gaussians in each mixture of OpenCV's, and so the fewest pixels that it takes."""


@dataclass(frozen=True)
class GrabCutSettings:
    """GrabCut in each box."""

    iterations: int = setting(5, "iterations of colours and cut", minimum=1)


def maker(settings: GrabCutSettings, device: torch.device) -> ObjectMaker:
    """What cuts the objects of an image out of their boxes; ``filled`` in the statistics counts filled boxes."""

    def make(image: np.ndarray, boxes: Sequence[Box], attributions: Attributions | None) -> Instances:
        objects = told_apart(boxes)
        size = image.shape[:2]
        masks = np.zeros((len(objects), *size), dtype=bool)
        filled = 0
        for mask, box in zip(masks, objects, strict=True):
            place = pixels(box.corners, size)
            mask[:] = grabcut(image, place, settings)
            if not mask.any():
                mask[place] = True
                filled += 1
        corners = [box.corners for box in objects]
        return Instances.of(size, [box.label for box in objects], corners, masks, statistics={"filled": filled})

    return make


def grabcut(image: np.ndarray, place: tuple[slice, slice], settings: GrabCutSettings) -> np.ndarray:
    """Foreground of an image, uint8 [H, W, 3], in a box of its pixels: bool [H, W], none where colours are too few.

    Examples
    --------
    >>> image = np.full((40, 40, 3), 200, np.uint8)
    >>> image[12:28, 12:28] = (200, 30, 30)
    >>> found = grabcut(image, (slice(8, 32), slice(8, 32)), GrabCutSettings())
    >>> bool(found[12:28, 12:28].all()), int(found.sum())
    (True, 256)
    """
    import cv2

    labels: np.ndarray = np.full(image.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    labels[place] = cv2.GC_PR_FGD
    held = labels[place].size
    if min(held, labels.size - held) < COLOURS:
        return np.zeros(labels.shape, dtype=bool)
    cv2.setRNGSeed(0)  # the mixtures start from random centres
    backward = np.ascontiguousarray(image[..., ::-1])
    behind, before = np.zeros((2, 1, 13 * COLOURS))  # the mixtures, which nothing else uses
    cv2.grabCut(backward, labels, (0, 0, 0, 0), behind, before, settings.iterations, cv2.GC_INIT_WITH_MASK)
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
