"""SAM or SAM 2 in each box: the mask that the network makes of the box as its prompt.

Networks: `wsss_core.models.sam`. A mask is cut to its box. A box in which nothing was found is filled, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from wsss_core.boxes import ObjectMaker, told_apart
from wsss_core.boxes.geometry import pixels
from wsss_core.data.boxes import Box
from wsss_core.models.sam import Prompts, Sam
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.attributions import Attributions
from wsss_core.store.instances import Instances


@dataclass(frozen=True, kw_only=True)
class SamSettings:
    """SAM or SAM 2 in each box."""

    weights: str = setting(
        REQUIRED, "folder of a SAM or SAM 2 checkpoint as transformers saves it, on this machine; nothing is fetched"
    )
    candidates: Literal[1, 3] = setting(
        1, "masks that the network makes of a box, of which the one of highest predicted IoU is taken"
    )
    at_once: int = setting(16, "most boxes that pass the decoder together; bounds memory", minimum=1)


def maker(settings: SamSettings, device: torch.device) -> ObjectMaker:
    """What makes the masks of the objects in the boxes of an image; ``filled`` in the statistics counts filled boxes.

    The scores of the objects are the IoU that the network predicts; 1 for a filled box would be no prediction, so it
    has 0.

    Raises
    ------
    UserError
        If transformers is not installed or the checkpoint cannot be loaded.
    """
    network = Sam(Path(settings.weights), device)

    def make(image: np.ndarray, boxes: Sequence[Box], attributions: Attributions | None) -> Instances:
        objects, size = told_apart(boxes), image.shape[:2]
        corners = [box.corners for box in objects]
        prompts = Prompts(boxes=torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
        found, scores = network.masks(image, prompts, settings.candidates, settings.at_once)
        filled = 0
        for number, box in enumerate(objects):
            place = pixels(box.corners, size)
            inside = np.zeros(size, dtype=bool)
            inside[place] = found[number][place]
            if not inside.any():
                inside[place], scores[number] = True, 0
                filled += 1
            found[number] = inside
        labels = [box.label for box in objects]
        return Instances.of(size, labels, corners, found, scores=scores, statistics={"filled": filled})

    return make
