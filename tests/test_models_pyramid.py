"""Regions pooled from windows of a pyramid are those pooled from all of it."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from wsss_core.models.backbones import backbone
from wsss_core.models.detector import Detector
from wsss_core.models.pyramid import pooled

SIZE = (203, 330)


def parts(images: int) -> tuple[FeaturePyramidNetwork, MultiScaleRoIAlign, list[torch.Tensor]]:
    torch.manual_seed(0)
    fpn = FeaturePyramidNetwork([3, 4, 5, 6], 8).double()
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, sampling_ratio=2)
    pool.scales, pool.map_levels = [1 / 4, 1 / 8, 1 / 16, 1 / 32], initLevelMapper(2, 5)
    sides = [[-(-side // stride) for side in SIZE] for stride in (4, 8, 16, 32)]
    taps = [torch.randn(images, d, h, w, dtype=torch.float64) for d, (h, w) in zip((3, 4, 5, 6), sides, strict=True)]
    return fpn, pool, [tap.requires_grad_(True) for tap in taps]


def regions(*corners) -> torch.Tensor:
    return torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)


CASES = {
    "one small": [regions((40, 50, 90, 80))],
    "at the corners": [regions((0, 0, 60, 50), (270, 150, 330, 203), (0, 160, 33, 203), (300, 0, 330, 20))],
    "thinner than a cell": [regions((100.5, 60, 101, 150), (326, 3, 330, 4), (329.5, 202.5, 330, 203))],
    "all levels": [regions((10, 10, 60, 60), (0, 0, 330, 203), (20, 20, 180, 190), (40, 2, 41, 3), (100, 3, 300, 200))],
    "several images": [
        regions((10, 10, 60, 60), (0, 0, 330, 203)),
        regions(),
        regions((200, 120, 260, 180), (180, 20, 330, 203)),
    ],
    "none": [regions(), regions()],
    "all of it": [regions((0, 0, 330, 203))],
}


@pytest.mark.parametrize("proposals", CASES.values(), ids=CASES)
def test_windows_give_what_the_whole_pyramid_gives(proposals):
    fpn, pool, taps = parts(len(proposals))
    levels = fpn({str(number): tap for number, tap in enumerate(taps)})
    whole = pool(levels, proposals, [SIZE] * len(proposals))
    found = pooled(fpn, pool, taps, proposals)
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)
    if len(whole):
        weights = torch.randn_like(whole)
        both = [torch.autograd.grad((one * weights).sum(), taps, allow_unused=True) for one in (whole, found)]
        for plain, ours in zip(*both, strict=True):
            torch.testing.assert_close(torch.zeros_like(plain) if ours is None else ours, plain, rtol=1e-9, atol=1e-9)


def test_a_detector_is_the_same_by_windows_and_by_its_whole_pyramid():
    torch.manual_seed(0)
    network = Detector(backbone("small", 32), 3, channels=8).eval().double()
    images = torch.randn(2, 3, 90, 130, dtype=torch.float64)
    proposals = [regions((10, 10, 60, 60), (5, 20, 70, 80)), regions((0, 0, 130, 90))]
    with torch.no_grad():
        found = network(images, proposals)
        whole = network.judged(network.pyramid(images), proposals)
    # the network puts logits and offsets in float32
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
