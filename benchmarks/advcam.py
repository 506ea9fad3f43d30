"""AdvCAM of one image: two backward passes a step and a class at a time, against the engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import Work
from benchmarks.baselines.advcam_loop import advcam_loop
from benchmarks.inputs import classifier, pair_operations, photo
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds.advcam import AdvCamSettings, advcam_seed
from wsss_core.store.seeds import SeedMaps

CLASSES, N_CLASSES = (3, 14), 20


@dataclass(frozen=True)
class Case:
    """Sizes: backbone, image, steps T, scales."""

    backbone: str
    image: tuple[int, int]
    iterations: int = 27
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)


CASES = {
    ("tiny", "cpu"): Case("small", (44, 60), 4, scales=(1.0, 0.5)),
    ("quick", "cpu"): Case("resnet50", (48, 64), 8),
    ("full", "cpu"): Case("resnet50", (94, 125), scales=(1.0, 0.5)),
    ("tiny", "cuda"): Case("small", (44, 60), 4, scales=(1.0, 0.5)),
    ("quick", "cuda"): Case("resnet50", (188, 250), 8),
    ("full", "cuda"): Case("resnet50", (375, 500)),
}
"""By size and device; the paper's T on a CPU too, with an image of a sixteenth of VOC's area at two scales."""


def works(size: str, device: str) -> list[Work]:
    """One image with two classes."""
    case = CASES[size, device]
    height, width = case.image
    return [
        Work(
            f"AdvCAM, {case.backbone}, {height}×{width}, 2 classes, T {case.iterations}, {len(case.scales)} scales",
            prepare=partial(_inputs, case),
            baseline=_loop,
            ours=_engine,
            limit=0.01,
            difference=mean_difference,
            floor=lambda: _floor(case),
        )
    ]


def mean_difference(one: Tensor, other: Tensor) -> float:
    """Mean absolute difference of maps in [0, 1]; single cells say little, as climbing amplifies rounding."""
    return (one - other).abs().mean().item()


@dataclass(frozen=True)
class Inputs:
    """Network, image and settings."""

    network: CamNetwork
    image: np.ndarray
    settings: AdvCamSettings


def _inputs(case: Case, device: torch.device) -> Inputs:
    settings = AdvCamSettings(iterations=case.iterations, step_size=0.08, scales=case.scales)
    return Inputs(classifier(case.backbone, N_CLASSES, device), photo(*case.image), settings)


def _loop(inputs: Inputs) -> Tensor:
    inputs.network.freeze(1)
    maps = advcam_loop(inputs.network, inputs.image, CLASSES, inputs.settings)
    return SeedMaps(CLASSES, maps, inputs.image.shape[:2]).full()


def _engine(inputs: Inputs) -> Tensor:
    inputs.network.requires_grad_(False)
    return advcam_seed(inputs.network, inputs.image, CLASSES, inputs.settings).full()


def _floor(case: Case) -> tuple[float, float]:
    """T forward passes a class, and T - 1 backward passes to the image, each as much as a forward pass."""
    pairs = pair_operations(case.backbone, N_CLASSES, case.image, case.scales)
    total = 0.0
    for scale, parts in pairs.items():
        iterations = case.iterations // 2 if scale == 0.5 else case.iterations
        total += len(CLASSES) * (2 * iterations - 1) * sum(parts)
    return total, 0.0
