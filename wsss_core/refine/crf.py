"""Label masks by a dense CRF on seed maps: the "+CRF" column of the papers, whose settings none of them publishes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss_core.constants import EPSILON
from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import ImageRecord
from wsss_core.kernels.dense_crf import PIXELS, dense_crf_batch, unary_from_labels, unary_from_probabilities
from wsss_core.refine import (
    NO_BACKGROUND,
    MaskInputs,
    MaskMaker,
    Threshold,
    cut_at,
    highest_label,
    mask_values,
    threshold_of,
    without_classes,
)
from wsss_core.settings import setting


@dataclass(frozen=True)
class CrfSettings:
    """Dense CRF on seed maps."""

    threshold: Threshold = setting(
        0.3,
        "background threshold on maps in [0, 1]; none: no background, every pixel has a class (dataset.background); "
        "otsu: that of each image's own maps, no masks used; score: what the seed's score rule chose; oracle: the best "
        "value in hindsight, which uses the masks",
        minimum=0,
        maximum=1,
    )
    unary: Literal["label", "soft"] = setting(
        "label",
        "unary term: label: the thresholded labels, right with probability `confidence`; soft: the threshold and the "
        "maps as probabilities (as in PSA)",
    )
    confidence: float = setting(
        0.7, "probability that a label is right, for unary label", exclusiveMinimum=0, exclusiveMaximum=1
    )
    gaussian: tuple[float, float] = setting(
        (3.0, 3.0), "spatial kernel: standard deviation in pixels, weight", positive=1, items={"minimum": 0}
    )
    bilateral: tuple[float, float, float] = setting(
        (50.0, 5.0, 10.0),
        "bilateral kernel: standard deviation in pixels, standard deviation in grey levels, weight",
        positive=2,
        items={"minimum": 0},
    )
    iterations: int = setting(10, "mean-field iterations", minimum=0)


def maker(settings: CrfSettings, inputs: MaskInputs) -> MaskMaker:
    """Masks by a dense CRF on the maps; a GPU refines the images of some million pixels together.

    Raises
    ------
    UserError
        If the threshold asked for is not known; making masks: if an image cannot be read.
    """
    described = f"{settings.iterations} iterations, unary: {settings.unary}"
    cut = replace(cut_at(settings.threshold, inputs.chosen), crf=described)

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        maps = [inputs.maps[record.id] for record in records]
        images = [read_image_of(record, one.size) for record, one in zip(records, maps, strict=True)]
        full = [one.full() for one in maps]
        thresholds = [threshold_of(cut, one) for one in full]
        classes = [one.classes for one in maps]
        return crf_masks(images, [one.to(inputs.device) for one in full], classes, thresholds, settings)

    return MaskMaker(cut, make, PIXELS if inputs.device.type == "cuda" else 0)


def crf_mask(
    image: np.ndarray, maps: Tensor, classes: Sequence[int], threshold: float, settings: CrfSettings
) -> np.ndarray:
    """Label mask of one image.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    maps
        Seed maps at full resolution, [K, H, W], each class scaled to [0, 1]. Those on a GPU are refined there.
    classes
        The K present classes, 0-based; with none, see `wsss_core.refine.without_classes`.
    threshold
        Background threshold; `wsss_core.refine.NO_BACKGROUND`: the classes alone compete.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c.

    Examples
    --------
    >>> image = np.zeros((20, 30, 3), dtype=np.uint8)
    >>> image[:, 15:] = 255
    >>> maps = torch.zeros(1, 20, 30)
    >>> maps[:, :, 13:] = 0.8
    >>> crf_mask(image, maps, [6], 0.3, CrfSettings())[10, 11:17].tolist()
    [0, 0, 0, 0, 7, 7]
    """
    return crf_masks([image], [maps], [classes], [threshold], settings)[0]


def crf_masks(
    images: Sequence[np.ndarray],
    maps: Sequence[Tensor],
    classes: Sequence[Sequence[int]],
    thresholds: Sequence[float],
    settings: CrfSettings,
) -> list[np.ndarray]:
    """`crf_mask` of several images, each with its threshold, which a GPU refines together."""
    masks = [without_classes(image.shape[:2], at) for image, at in zip(images, thresholds, strict=True)]
    tagged = [number for number, present in enumerate(classes) if present]
    posteriors = dense_crf_batch(
        [images[number] for number in tagged],
        [_unary(maps[number], thresholds[number], settings) for number in tagged],
        gaussian=settings.gaussian,
        bilateral=settings.bilateral,
        iterations=settings.iterations,
    )
    for number, posterior in zip(tagged, posteriors, strict=True):
        first = len(classes[number]) + 1 - len(posterior)  # 1 where no plane of a background was refined
        masks[number] = mask_values(posterior.argmax(0).cpu() + first, classes[number])
    return masks


def _unary(maps: Tensor, threshold: float, settings: CrfSettings) -> Tensor:
    """Energies [K + 1, H, W], background first; [K, H, W] where there is none."""
    if threshold == NO_BACKGROUND:
        return _unary_of_classes(maps, settings)
    if settings.unary == "label":
        return unary_from_labels(highest_label(maps, threshold), len(maps) + 1, settings.confidence)
    return unary_from_probabilities(torch.cat([torch.full_like(maps[:1], threshold), maps]))


def _unary_of_classes(maps: Tensor, settings: CrfSettings) -> Tensor:
    """Energies [K, H, W] of the classes alone; the soft ones sum to one over them where a map is not 0."""
    if settings.unary == "label":
        return unary_from_labels(maps.argmax(0), len(maps), settings.confidence)
    return unary_from_probabilities(maps / maps.sum(0, keepdim=True).clamp_min(EPSILON))
