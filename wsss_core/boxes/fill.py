"""The box filled: every pixel of a box belongs to its object. What every other mask from boxes must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wsss_core.boxes import ObjectMaker, told_apart
from wsss_core.boxes.geometry import pixels
from wsss_core.data.boxes import Box
from wsss_core.store.attributions import Attributions
from wsss_core.store.instances import Instances


@dataclass(frozen=True)
class FillSettings:
    """Filled boxes, which have no settings."""


def maker(settings: FillSettings, device: torch.device) -> ObjectMaker:
    """What fills the boxes of an image."""

    def make(image: np.ndarray, boxes: Sequence[Box], attributions: Attributions | None) -> Instances:
        objects = told_apart(boxes)
        size = image.shape[:2]
        masks = np.zeros((len(objects), *size), dtype=bool)
        for mask, box in zip(masks, objects, strict=True):
            mask[pixels(box.corners, size)] = True
        return Instances.of(size, [box.label for box in objects], [box.corners for box in objects], masks)

    return make
