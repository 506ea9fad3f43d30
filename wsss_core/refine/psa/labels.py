"""Confident labels for training AffinityNet, from two dense CRFs with more and with less background.

Ahn & Kwak, CVPR 2018: the background score (1 - highest seed map) ** alpha competes with the maps. With a low alpha it
is strong, and what stays foreground is sure; with a high alpha it is weak, and what stays background is sure.

Background and map are level where m = (1 - m) ** alpha: an alpha stands for a threshold m, 4 for 0.28 and 32 for 0.08.
The published exponents are numbers for all images; they can also stand for thresholds around Otsu's of each image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.kernels.dense_crf import dense_crf, unary_from_probabilities
from wsss_core.refine import around_otsu, mask_values
from wsss_core.settings import setting
from wsss_core.store.posteriors import POSTERIORS, Posteriors
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class LabelsSettings:
    """Posteriors of two dense CRFs, from which confident labels are made in training."""

    alpha_low: float = setting(
        4.0, "exponent of the background score (1 - highest map) that decides what is foreground", exclusiveMinimum=0
    )
    alpha_high: float = setting(
        32.0,
        "exponent that decides what is background (32 in the published code; 24 in the paper and in SEAM)",
        exclusiveMinimum=0,
    )
    around_otsu: float | None = setting(
        None,
        "background score and highest map are level at Otsu's threshold of the image's own maps plus this, to decide "
        "what is foreground, and minus this, to decide what is background, such as 0.1; replaces the two exponents",
        minimum=0,
        maximum=1,
    )
    gaussian: tuple[float, float] = setting(
        (3.0, 3.0), "spatial CRF kernel: standard deviation in pixels, weight", positive=1, items={"minimum": 0}
    )
    bilateral: tuple[float, float, float] = setting(
        (80.0, 13.0, 10.0),
        "bilateral CRF kernel: standard deviation in pixels, standard deviation in grey levels, weight",
        positive=2,
        items={"minimum": 0},
    )
    iterations: int = setting(10, "mean-field iterations", minimum=0)


KIND = POSTERIORS


def labels(image: np.ndarray, maps: SeedMaps, settings: LabelsSettings) -> Posteriors:
    """`crf_posteriors` from the seed maps of an image.

    Labels average posteriors over cells whose place depends on the random crop, so posteriors are kept at full
    resolution.
    """
    return crf_posteriors(image, maps.full(), maps.classes, settings)


def background_score(maps: Tensor, alpha: float) -> Tensor:
    """(1 - highest map) ** alpha.

    Parameters
    ----------
    maps
        Seed maps [K, H, W] in [0, 1], K >= 1.

    Returns
    -------
    [1, H, W] in [0, 1].
    """
    return (1 - maps.amax(0, keepdim=True)) ** alpha


def exponent_at(level: float) -> float:
    """The exponent alpha with which the background score of a map is level with the map at a value.

    Parameters
    ----------
    level
        The value. From 1 on the exponent is 0: the background wins everywhere; up to 0 it is infinite: the background
        wins where there is no map at all.

    Examples
    --------
    >>> round(exponent_at(0.25), 2), 0.75 ** exponent_at(0.25)
    (4.82, 0.25)
    >>> exponent_at(1), exponent_at(0)
    (0.0, inf)
    """
    if level >= 1:
        return 0.0
    return math.log(level) / math.log1p(-level) if level > 0 else math.inf


def crf_posteriors(image: np.ndarray, maps: Tensor, classes: Sequence[int], settings: LabelsSettings) -> Posteriors:
    """Posteriors of one image with the low and with the high exponent.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    maps
        Seed maps at full resolution, [K, H, W], each class scaled to [0, 1].
    classes
        The K present classes, 0-based; with none, all is background.

    Returns
    -------
    Values [2, K + 1, H, W], those of the low exponent first.
    """
    classes = tuple(classes)
    if not classes:
        return Posteriors((), np.full((2, 1, *image.shape[:2]), 255, dtype=np.uint8))
    alphas = settings.alpha_low, settings.alpha_high
    if settings.around_otsu is not None:
        background, foreground = around_otsu(maps, settings.around_otsu)
        alphas = exponent_at(foreground), exponent_at(background)
    scores = [torch.cat([background_score(maps, alpha), maps]) for alpha in alphas]
    posteriors = dense_crf(
        image,
        unary_from_probabilities(torch.stack(scores)),
        gaussian=settings.gaussian,
        bilateral=settings.bilateral,
        iterations=settings.iterations,
    )
    return Posteriors(classes, (255 * posteriors).round().to(torch.uint8).cpu().numpy())


def confident_labels(values: np.ndarray, classes: Sequence[int], stride: int) -> np.ndarray:
    """Labels of the cells of a grid, from posteriors averaged over each cell.

    Parameters
    ----------
    values
        Posteriors [2, K + 1, H, W] as in `crf_posteriors`, non-negative in any unit; 0 outside the image.
    classes
        The K classes, 0-based.
    stride
        Side of a cell in pixels; it divides H and W.

    Returns
    -------
    uint8 [H / stride, W / stride]: 0 where the high exponent finds background, elsewhere c + 1 where the low one finds
    class c, 255 where neither is so and outside the image.
    """
    passes, planes, height, width = values.shape
    cells = values.reshape(passes, planes, height // stride, stride, width // stride, stride)
    sums = cells.sum((3, 5), dtype=np.float64 if values.dtype.kind == "f" else np.int64)
    low, high = sums.argmax(1)
    found = mask_values(low, classes)
    found[low == 0] = IGNORE
    found[high == 0] = 0
    found[sums.max((0, 1)) == 0] = IGNORE
    return found
