"""Multi-scale class activation maps: every class at both stored resolutions, against the present ones."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import Work, largest_difference
from benchmarks.baselines.cam_all_classes import cam_all_classes
from benchmarks.inputs import classifier, pair_operations, photo
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds.cam import CamSettings, cam_seed

CLASSES, N_CLASSES = (3, 14), 20

CASES = {
    ("tiny", "cpu"): ("small", (44, 60)),
    ("quick", "cpu"): ("resnet50", (94, 125)),
    ("full", "cpu"): ("resnet50", (188, 250)),
    ("tiny", "cuda"): ("small", (44, 60)),
    ("quick", "cuda"): ("resnet50", (188, 250)),
    ("full", "cuda"): ("resnet50", (375, 500)),
}
"""Backbone and image by size and device; on a CPU an image of a quarter of VOC's area."""


def works(size: str, device: str) -> list[Work]:
    """One image with two of twenty classes, four scales with mirror images."""
    backbone, (height, width) = CASES[size, device]
    return [
        Work(
            f"CAM, {backbone}, {height}×{width}, 4 scales",
            prepare=partial(_inputs, backbone, (height, width)),
            baseline=lambda inputs: cam_all_classes(*inputs, CLASSES, CamSettings().scales),
            ours=_ours,
            limit=1e-4,
            difference=largest_difference,
            floor=lambda: (
                sum(map(sum, pair_operations(backbone, 20, (height, width), CamSettings().scales).values())),
                0,
            ),
        )
    ]


def _inputs(backbone: str, size: tuple[int, int], device: torch.device) -> tuple[CamNetwork, np.ndarray]:
    return classifier(backbone, N_CLASSES, device), photo(*size)


def _ours(inputs: tuple[CamNetwork, np.ndarray]) -> tuple[Tensor, Tensor]:
    maps = cam_seed(*inputs, CLASSES, CamSettings())
    return maps.strided().cpu(), maps.full().cpu()
