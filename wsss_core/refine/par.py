"""Label masks by pixel-adaptive refinement of seed maps: PAR, which AFA, ToCo and others have in place of a dense CRF.

The threshold and the maps are planes of scores; their softmax flows to pixels of like colour
(`wsss_core.kernels.pixel_adaptive`), and the strongest plane wins. As published, this is done at half the photo's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import ImageRecord
from wsss_core.kernels.pixel_adaptive import affinities, refine
from wsss_core.refine import MaskInputs, MaskMaker, Threshold, cut_at, mask_values, threshold_of
from wsss_core.settings import setting


@dataclass(frozen=True)
class ParSettings:
    """Pixel-adaptive refinement of seed maps; defaults as published."""

    threshold: Threshold = setting(
        0.3,
        "background threshold on maps in [0, 1]; otsu: that of each image's own maps, no masks used; score: what the "
        "seed's score rule chose; oracle: the best value in hindsight, which uses the masks",
        minimum=0,
        maximum=1,
    )
    dilations: tuple[int, ...] = setting(
        (1, 2, 4, 8, 12, 24), "distances of the neighbours, in pixels", minItems=1, items={"minimum": 1}
    )
    iterations: int = setting(10, "times that scores flow on", minimum=0)
    colour: float = setting(
        0.3, "below how many standard deviations of the neighbours colours are alike (w_1)", exclusiveMinimum=0
    )
    position: float = setting(0.01, "what nearness counts beside colour (w_2)", minimum=0)
    shrink: int = setting(2, "the photo is worked on at one part of so many of its sides", minimum=1)


def maker(settings: ParSettings, inputs: MaskInputs) -> MaskMaker:
    """Masks by pixel-adaptive refinement.

    Raises
    ------
    UserError
        If the threshold asked for is not known; making masks: if an image cannot be read.
    """
    described = f"pixel-adaptive refinement ({settings.iterations} iterations)"
    cut = replace(cut_at(settings.threshold, inputs.chosen), notes=(described,))

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        return [one(record) for record in records]

    def one(record: ImageRecord) -> np.ndarray:
        maps = inputs.maps[record.id]
        image, full = read_image_of(record, maps.size), maps.full()
        return par_mask(image, full.to(inputs.device), maps.classes, threshold_of(cut, full), settings)

    return MaskMaker(cut, make)


def par_mask(
    image: np.ndarray, maps: Tensor, classes: Sequence[int], threshold: float, settings: ParSettings
) -> np.ndarray:
    """Label mask of one image.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    maps
        Seed maps at full resolution, [K, H, W], each class scaled to [0, 1]. Those on a GPU are refined there.
    classes
        The K present classes, 0-based; with none, all is background.
    threshold
        Background threshold.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c.

    Examples
    --------
    >>> image = np.zeros((40, 60, 3), dtype=np.uint8)
    >>> image[:, 30:] = 255
    >>> maps = torch.zeros(1, 40, 60)
    >>> maps[:, :, 26:] = 0.8
    >>> par_mask(image, maps, [6], 0.3, ParSettings())[20, 26:34].tolist()
    [0, 0, 0, 0, 7, 7, 7, 7]
    """
    size = image.shape[:2]
    if not classes:
        return np.zeros(size, dtype=np.uint8)
    planes = torch.cat([torch.full_like(maps[:1], threshold), maps]).softmax(0)
    colours = torch.from_numpy(image).to(maps.device).permute(2, 0, 1).to(maps.dtype)
    small = tuple(max(1, side // settings.shrink) for side in size)
    weights = affinities(_resized(colours, small), settings.dilations, settings.colour, settings.position)
    refined = refine(_resized(planes, small), weights, settings.dilations, settings.iterations)
    return mask_values(_resized(refined, size).argmax(0).cpu(), classes)


def _resized(planes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Planes [L, h, w] at another size, bilinear."""
    if tuple(planes.shape[1:]) == tuple(size):
        return planes
    return F.interpolate(planes[None], tuple(size), mode="bilinear", align_corners=False)[0]
