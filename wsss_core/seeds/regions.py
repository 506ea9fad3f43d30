"""Regions: the maps of a seed, averaged within regions of like colour, so that they end where things do.

The regions are those of Felzenszwalb & Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 2004
(scikit-image's), once for each of several scales: a large scale prefers large regions. A class's map is replaced by its
mean over each region; these maps and the map itself are averaged. No training, no ground truth, and no randomness.

Snapping class maps to superpixels is old in the field; the mean over several scales is this project's own, measured in
docs/methods/regions.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from skimage.segmentation import felzenszwalb
from torch import Tensor

from wsss_core.constants import EPSILON
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps

STEPS = 4096
"""Maps are kept in steps of one part of so many, far finer than any threshold: files are a quarter as large then."""


@dataclass(frozen=True)
class RegionsSettings:
    """Averaging of a seed's maps within regions of the photo."""

    scales: tuple[float, ...] = setting(
        (0.3, 0.6, 1.2, 2.4, 3.6),
        "scales of the segmentations, as multiples of the photo's longer side in pixels: 96 to 1152 for 320 pixels",
        minItems=1,
        items={"type": "number", "exclusiveMinimum": 0},
    )
    sigma: float = setting(0.8, "standard deviation in pixels of the blur before segmenting", minimum=0)
    smallest: float = setting(
        0.0003, "smallest region, as a part of the photo's pixels", exclusiveMinimum=0, exclusiveMaximum=1
    )


def refined(image: np.ndarray, maps: SeedMaps, settings: RegionsSettings) -> SeedMaps:
    """The maps of an image, averaged within its regions, as one map at full resolution.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    maps
        Maps of the image with at least one class.

    Returns
    -------
    Maps of the same classes, at scale 1. They have the size that `SeedMaps.full` resizes to, multiples of 16, so that
    it cuts them to [H, W] and changes nothing else.

    Examples
    --------
    A map that is highest on a part of the dark square spreads over all of it, and not beyond:

    >>> image = np.full((48, 48, 3), 200, np.uint8)
    >>> image[16:40, 16:40] = 20
    >>> seed = torch.zeros(1, 48, 48)
    >>> seed[:, 20:30, 20:30] = 1
    >>> found = refined(image, SeedMaps((0,), {1.0: seed}, (48, 48)), RegionsSettings(scales=(1.0,))).full()[0]
    >>> bool(found[36, 36] > 0.1), float(found[8, 8])
    (True, 0.0)
    """
    averaged = (within_regions(maps.full(), segmentations(image, settings)) * STEPS).round() / STEPS
    height, width = image.shape[:2]
    padded = torch.nn.functional.pad(averaged[None], (0, -width % 16, 0, -height % 16), mode="replicate")[0]
    return SeedMaps(maps.classes, {1.0: padded}, maps.size)


def segmentations(image: np.ndarray, settings: RegionsSettings) -> list[np.ndarray]:
    """Number of the region of every pixel, int64 [H, W], at each scale.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    smallest = max(1, round(settings.smallest * height * width))
    return [
        felzenszwalb(image, scale=scale * max(height, width), sigma=settings.sigma, min_size=smallest, channel_axis=-1)
        for scale in settings.scales
    ]


def within_regions(maps: Tensor, regions: list[np.ndarray]) -> Tensor:
    """Mean of the maps and of their means over each region; every class divided by its maximum + 1e-5.

    Parameters
    ----------
    maps
        [K, H, W], non-negative.
    regions
        As `segmentations` gives them.

    Returns
    -------
    float32 [K, H, W].
    """
    values = maps.double().cpu().numpy()
    total = values.copy()
    for numbers in regions:
        pixels = np.bincount(numbers.ravel())
        for one, sums in zip(values, total, strict=True):
            sums += (np.bincount(numbers.ravel(), weights=one.ravel()) / pixels)[numbers]
    highest = total.max((1, 2), keepdims=True)
    return torch.from_numpy((total / (highest + EPSILON)).astype(np.float32))
