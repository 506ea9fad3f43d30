"""BBAM as a plain loop, one object at a time: the reference for the engine in `wsss_core.boxes.bbam`.

`as_published` is how the published code asks its detector: at every step the first stage looks for regions in the
whole pyramid, which nothing uses, and the loss is followed back to the weights as well. (It also reads the image from
its file at every step, which is left out here.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from wsss_core.boxes import Detector
from wsss_core.boxes.bbam import BbamSettings, Subject
from wsss_core.models.detector import Detector as DetectorNetwork


def as_published(network: DetectorNetwork) -> Detector:
    """The network with weights that have gradients, and with its first stage."""
    network.requires_grad_(True)

    def answer(images: Tensor, proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        features = network.pyramid(images)
        network.rpn(ImageList(images, [(images.shape[2], images.shape[3])] * len(images)), features)
        return network.judged(features, proposals)

    return answer


def bbam_loop(detector: Detector, sought: Sequence[Subject], settings: BbamSettings) -> list[Tensor]:
    """The mask of each object, written out from the objective of the published code (or the paper's)."""
    return [_mask(detector, one, settings) for one in sought]


def _mask(detector: Detector, one: Subject, settings: BbamSettings) -> Tensor:
    mask = one.start().requires_grad_(True)
    adam = torch.optim.Adam([mask], lr=settings.rate)
    for _ in range(settings.iterations):
        enlarged = F.interpolate(mask[None, None], one.size, mode="bilinear", align_corners=True)
        probabilities, offsets = detector(one.view[None] * enlarged, [one.proposals])
        loss = settings.size_weight * mask.abs().sum()
        for number in range(len(one.proposals)):
            box = (one.offsets[number] - offsets[number, one.column]).abs()
            cls = (one.probabilities[number] - probabilities[number, one.column]).abs()
            if settings.variant == "official":
                box, cls = box.mean() / 2, cls / 2
            if settings.heads != "cls":
                loss = loss + box.sum() / len(one.proposals)
            if settings.heads != "box":
                loss = loss + cls / len(one.proposals)
        if settings.variant == "official":
            loss = loss + 1e-4 * _variation(mask)
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    return mask.detach()


def _variation(mask: Tensor) -> Tensor:
    across, down = mask[:, 1:] - mask[:, :-1], mask[1:] - mask[:-1]
    falling, rising = mask[1:, 1:] - mask[:-1, :-1], mask[1:, :-1] - mask[:-1, 1:]
    straight = (across.abs() ** 3).sum() + (down.abs() ** 3).sum()
    return straight + 2 * ((falling.abs() ** 3).sum() + (rising.abs() ** 3).sum())
