"""BBAM of several boxes: one at a time with the whole detector, against the engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import Work
from benchmarks.advcam import mean_difference
from benchmarks.baselines.bbam_loop import as_published, bbam_loop
from benchmarks.inputs import calm, multiplications, photo
from wsss_core.boxes.bbam import BbamSettings, Subject, optimised, proposals_around, stride_of
from wsss_core.data.augment import normalise
from wsss_core.models.backbones import backbone
from wsss_core.models.backbones.folding import folded
from wsss_core.models.detector import Detector

N_CLASSES = 20
BOXES = ((0.2, 0.25, 0.65, 0.85), (0.55, 0.1, 0.8, 0.5), (0.05, 0.5, 0.2, 0.7), (0.1, 0.1, 0.95, 0.9))
"""Corners as parts of the view: a box of middle size, a smaller one, a small one, and one nearly as large as the view.
"""


@dataclass(frozen=True)
class Case:
    """Sizes: backbone, channels of the pyramid, view, images with `BOXES` each, positives of a box, steps."""

    backbone: str
    view: tuple[int, int]
    images: int = 1
    positives: int = 100
    iterations: int = 20
    channels: int = 256


CASES = {
    ("tiny", "cpu"): Case("small", (48, 64), positives=6, iterations=3, channels=8),
    ("quick", "cpu"): Case("mobilenet_v2", (240, 320), iterations=4),
    ("full", "cpu"): Case("mobilenet_v2", (240, 320)),
    ("tiny", "cuda"): Case("small", (48, 64), positives=6, iterations=3, channels=8),
    ("quick", "cuda"): Case("mobilenet_v2", (240, 320), iterations=10),
    ("full", "cuda"): Case("resnet50", (800, 1067), images=2),
}
"""By size and device. A step costs the same first and last, so a few of the 300 tell."""


def works(size: str, device: str) -> list[Work]:
    """The boxes of some images."""
    case = CASES[size, device]
    view = "×".join(map(str, case.view))
    boxes = f"{case.images * len(BOXES)} boxes of {case.positives} proposals"
    return [
        Work(
            f"BBAM, {case.backbone}, {view}, {boxes}, {case.iterations} steps",
            prepare=partial(_inputs, case),
            baseline=_loop,
            ours=_engine,
            limit=0.01,
            difference=mean_difference,
            floor=lambda: _floor(case),
        )
    ]


@dataclass(frozen=True)
class Inputs:
    """Detector, also with its normalisation folded, objects and settings."""

    network: Detector
    folded: Detector
    sought: list[Subject]
    settings: BbamSettings


def _inputs(case: Case, device: torch.device) -> Inputs:
    torch.manual_seed(0)
    network = Detector(backbone(case.backbone, 32), N_CLASSES, channels=case.channels).eval()
    calm(network)
    nn.init.normal_(network.heads.box_predictor.cls_score.weight, std=0.1)
    nn.init.normal_(network.heads.box_predictor.bbox_pred.weight, std=0.05)
    network = network.to(device, memory_format=torch.channels_last).requires_grad_(False)
    settings = BbamSettings(iterations=case.iterations, proposals=case.positives, jitter=0.1)
    sought = []
    for number in range(case.images):
        view = torch.from_numpy(normalise(photo(*case.view, seed=number))).to(device)
        for box, corners in enumerate(BOXES):
            sought.append(_subject(network, view, corners, settings, number, box))
    return Inputs(network, folded(network), sought, settings)


def _subject(network: Detector, view: Tensor, corners: tuple[float, ...], settings: BbamSettings, *key: int) -> Subject:
    size = (view.shape[1], view.shape[2])
    box = view.new_tensor(corners) * view.new_tensor([size[1], size[0]] * 2)
    proposals = proposals_around(box, size, settings, *key)
    with torch.no_grad():
        probabilities, offsets = network(view[None], [proposals])
    column = 1 + key[1]
    return Subject(
        view, column, proposals, probabilities[:, column], offsets[:, column], stride_of(box, size, settings)
    )


def _loop(inputs: Inputs) -> Tensor:
    masks = bbam_loop(as_published(inputs.network), inputs.sought, inputs.settings)
    inputs.network.zero_grad()
    return torch.cat([mask.flatten() for mask in masks])


def _engine(inputs: Inputs) -> Tensor:
    masks, _ = optimised(inputs.folded, inputs.sought, inputs.settings)
    return torch.cat([mask.flatten() for mask in masks])


def _floor(case: Case) -> tuple[float, float]:
    """Every step of a box takes the backbone and the heads once, and each as much again on the way back to the mask."""
    with torch.device("meta"):
        network = Detector(backbone(case.backbone, 32), N_CLASSES, channels=case.channels)
        view = torch.empty(1, 3, *case.view)
        pooled = torch.empty(case.positives, case.channels, 7, 7)
    with torch.no_grad():
        once = multiplications(lambda: network.backbone(view))
        once += multiplications(lambda: network.heads.box_predictor(network.heads.box_head(pooled)))
    return case.images * len(BOXES) * case.iterations * 2 * once, 0.0
