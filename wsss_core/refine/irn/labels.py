"""Confident labels for training the inter-pixel relation network: foreground, background, undecided.

Ahn et al., CVPR 2019: seeds are thresholded twice, once so high that the foreground is sure and once so low that
the background is, and each label map is refined by a dense CRF. The published thresholds are numbers for all images;
they can also lie around Otsu's threshold of each image, which follows the maps of any network and needs no masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.kernels.dense_crf import dense_crf, unary_from_labels
from wsss_core.refine import around_otsu, highest_label, mask_values
from wsss_core.settings import setting
from wsss_core.store.labels import LABELS, LabelMap
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class LabelsSettings:
    """Confident labels from seed maps; the thresholds are those of RIB (IRN .30/.05, AdvCAM .35/.15, W-OoD .30/.15)."""

    foreground: float = setting(0.35, "threshold on maps above which a pixel is foreground", minimum=0, maximum=1)
    background: float = setting(0.17, "threshold on maps below which a pixel is background", minimum=0, maximum=1)
    around_otsu: float | None = setting(
        None,
        "foreground above Otsu's threshold of the image's own maps plus this, background below it minus this, such as "
        "0.1; replaces the two thresholds",
        minimum=0,
        maximum=1,
    )
    confidence: float = setting(
        0.7, "probability that a label is right, for the CRF", exclusiveMinimum=0, exclusiveMaximum=1
    )
    gaussian: tuple[float, float] = setting(
        (3.0, 3.0), "spatial CRF kernel: standard deviation in pixels, weight", positive=1, items={"minimum": 0}
    )
    bilateral: tuple[float, float, float] = setting(
        (50.0, 5.0, 10.0),
        "bilateral CRF kernel: standard deviation in pixels, standard deviation in grey levels, weight",
        positive=2,
        items={"minimum": 0},
    )
    iterations: int = setting(10, "mean-field iterations", minimum=0)


KIND = LABELS


def labels(image: np.ndarray, maps: SeedMaps, settings: LabelsSettings) -> LabelMap:
    """`confident_labels` from the seed maps of an image, as a record of a shard."""
    return LabelMap(confident_labels(image, maps.full(), maps.classes, settings))


def confident_labels(image: np.ndarray, maps: Tensor, classes: Sequence[int], settings: LabelsSettings) -> np.ndarray:
    """Confident labels of one image.

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
    uint8 [H, W]: c + 1 where the high threshold finds class c, 0 where both find background, 255 elsewhere.
    """
    if not classes:
        return np.zeros(image.shape[:2], dtype=np.uint8)
    background, foreground = settings.background, settings.foreground
    if settings.around_otsu is not None:
        background, foreground = around_otsu(maps, settings.around_otsu)
    unaries = [
        unary_from_labels(highest_label(maps, threshold), len(classes) + 1, settings.confidence)
        for threshold in (foreground, background)
    ]
    posteriors = dense_crf(
        image,
        torch.stack(unaries),
        gaussian=settings.gaussian,
        bilateral=settings.bilateral,
        iterations=settings.iterations,
    )
    sure, possible = posteriors.argmax(1).cpu()
    found = mask_values(sure, classes)
    found[((sure == 0) & (possible != 0)).numpy()] = IGNORE
    return found
