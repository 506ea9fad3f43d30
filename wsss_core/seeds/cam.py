"""Class activation maps at several scales with flips (Zhou et al., CVPR 2016; as IRN computes them)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds import Inputs
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class CamSettings:
    """Plain class activation maps."""

    scales: tuple[float, ...] = setting(
        (1.0, 0.5, 1.5, 2.0),
        "image scales whose maps are summed, each with its mirror image",
        minItems=1,
    )


SETTINGS = CamSettings


def maker(settings: CamSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the stage calls it."""
    return lambda record, image: cam_seed(inputs.network, image, record.classes, settings)


@torch.no_grad()
def cam_seed(network: CamNetwork, image: np.ndarray, classes: Sequence[int], settings: CamSettings) -> SeedMaps:
    """Class activation maps of one image.

    Parameters
    ----------
    network
        Trained classifier.
    image
        uint8 [H, W, 3], RGB.
    classes
        The K present classes, 0-based.

    Returns
    -------
    One map [K, h_s, w_s] a scale, on the network's device.
    """
    maps = {scale: flip_sum(network.maps(view_pair(network, image, scale), classes)) for scale in settings.scales}
    return SeedMaps(tuple(classes), maps, image.shape[:2])


def view_pair(network: CamNetwork, image: np.ndarray, scale: float) -> Tensor:
    """The image at a scale and its mirror image, normalised [2, 3, H_s, W_s], on the network's device."""
    return torch.from_numpy(scaled_pair(image, scale)).to(network.classifier.weight.device)


def flip_sum(maps: Tensor) -> Tensor:
    """O_s = ReLU(A)[0] + flip(ReLU(A)[1]) of logit maps A [2, K, h, w] of a view pair: [K, h, w]."""
    positive = maps.relu()
    return positive[0] + positive[1].flip(-1)
