"""Seeds of SEAM: its refined activation maps at several scales with flips (Wang et al., CVPR 2020).

For every scale, with R the maps that the pixel correlation module makes (`wsss_core.models.seam`)::

    O_s = R(x_s) + flip(R(flip x_s)),    M_s = O_s - min O_s

Refined maps are means over all cells of an image, so they hardly reach 0; the minimum is taken off as in the authors'
code. That code

* enlarges R to the scaled image, corner to corner, and then to the original image before it adds the scales up; here
  grids are stored, and resized once when they are read;
* takes the minimum off the sum of all scales; here, where the sum is made when maps are read, off each scale. The sum
  of the minima is never above the minimum of the sum, so the same or less is taken off;
* takes off another 1e-5, which leaves values slightly below 0.

Present classes compete with all others where the correlation starts, as in that code, and absent ones are dropped
behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.table import ImageRecord
from wsss_core.models.seam import SeamNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import flip_sum, view_pair
from wsss_core.seeds.demands import check_objective
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class SeamSettings:
    """Refined maps of a SEAM classifier; defaults as published."""

    scales: tuple[float, ...] = setting(
        (0.5, 1.0, 1.5, 2.0),
        "image scales whose maps are summed, each with its mirror image",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )


def maker(settings: SeamSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the step calls it.

    Raises
    ------
    UserError
        If the classifier is not one of SEAM.
    """
    network = check_objective(inputs.network, SeamNetwork)
    return lambda record, image: seam_seed(network, image, record.classes, settings)


@torch.no_grad()
def seam_seed(network: SeamNetwork, image: np.ndarray, classes: Sequence[int], settings: SeamSettings) -> SeedMaps:
    """Refined maps of one image.

    Parameters
    ----------
    network
        Trained with the objective seam, in evaluation mode.
    image
        uint8 [H, W, 3], RGB.
    classes
        The K present classes, 0-based.

    Returns
    -------
    One map [K, h_s, w_s] a scale, its minimum 0, on the network's device.
    """
    maps = {}
    for scale in settings.scales:
        _, refined = network.activations(view_pair(network, image, scale))
        maps[scale] = above_minimum(flip_sum(refined[:, [c + 1 for c in classes]]))
    return SeedMaps(tuple(classes), maps, image.shape[:2], stride=network.stride)


def above_minimum(maps: Tensor) -> Tensor:
    """Each map [K, h, w] minus its minimum."""
    return maps - maps.amin((1, 2), keepdim=True)
