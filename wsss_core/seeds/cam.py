"""Class activation maps at several scales with flips (Zhou et al., CVPR 2016; as IRN computes them)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.augment import scaled_size
from wsss_core.data.resampling import pairs, sent, views
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
        items={"exclusiveMinimum": 0},
    )


def maker(settings: CamSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the step calls it for each image."""
    return lambda record, image: cam_seed(inputs.network, image, record.classes, settings)


def batch_maker(
    settings: CamSettings, inputs: Inputs
) -> Callable[[Sequence[ImageRecord], Sequence[np.ndarray]], list[SeedMaps]]:
    """The method as the step calls it for images of one size."""

    def make(records: Sequence[ImageRecord], images: Sequence[np.ndarray]) -> list[SeedMaps]:
        return cam_seeds(inputs.network, images, [record.classes for record in records], settings, inputs.pixels)

    return make


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

    Examples
    --------
    >>> from wsss_core.models import cam_network
    >>> network = cam_network("small", 3).eval()
    >>> image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    >>> maps = cam_seed(network, image, [0, 2], CamSettings(scales=(1.0, 2.0)))
    >>> {scale: tuple(values.shape) for scale, values in maps.maps.items()}
    {1.0: (2, 3, 4), 2.0: (2, 5, 8)}
    >>> maps.full().shape
    torch.Size([2, 40, 60])
    """
    maps = {scale: flip_sum(network.maps(view_pair(network, image, scale), classes)) for scale in settings.scales}
    return SeedMaps(tuple(classes), maps, image.shape[:2], stride=network.stride)


@torch.no_grad()
def cam_seeds(
    network: CamNetwork,
    images: Sequence[np.ndarray],
    classes: Sequence[Sequence[int]],
    settings: CamSettings,
    pixels: int,
) -> list[SeedMaps]:
    """`cam_seed` of images of one size, with many views in a forward pass; the same to rounding.

    Parameters
    ----------
    images
        uint8 [H, W, 3] each, RGB.
    classes
        The present classes of each image. Only theirs of the classifier's weights are applied, to its features alone.
    pixels
        Most pixels of views in one forward pass; a pair of views is never divided.
    """
    found: list[dict[float, Tensor]] = [{} for _ in images]
    there = sent(images, network.classifier.weight.device)
    for scale in settings.scales:
        height, width = scaled_size(images[0].shape[:2], scale)
        count = max(1, pixels // (2 * height * width))
        for start in range(0, len(images), count):
            part = slice(start, start + count)
            features = network.features(pairs(there[part], scale)).split(2)
            for maps, of_pair, present in zip(found[part], features, classes[part], strict=True):
                maps[scale] = flip_sum(network.classify(of_pair, present))
    return [
        SeedMaps(tuple(present), maps, image.shape[:2], stride=network.stride)
        for image, present, maps in zip(images, classes, found, strict=True)
    ]


def view_pair(network: CamNetwork, image: np.ndarray, scale: float) -> Tensor:
    """The image at a scale and its mirror image, normalised [2, 3, H_s, W_s], on the network's device."""
    return views([image], scale, network.classifier.weight.device)


def flip_sum(maps: Tensor) -> Tensor:
    """O_s = ReLU(A)[0] + flip(ReLU(A)[1]) of logit maps A [2, K, h, w] of a view pair: [K, h, w]."""
    positive = maps.relu()
    return positive[0] + positive[1].flip(-1)
