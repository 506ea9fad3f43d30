"""BBAM as a plain loop: one object at a time, the whole detector followed back to its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.boxes import Detector
from wsss_core.boxes.bbam import BbamSettings, Subject


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
