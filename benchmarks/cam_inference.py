"""Multi-scale class activation maps: every class of an image against the present ones, and several images of one size.

The second work is done as the step does it: on a GPU together, many views in a forward pass; on a CPU one after
another, so that its answer depends on nothing else. Its baseline runs the network on one view at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import Work, largest_difference
from benchmarks.baselines.cam_all_classes import cam_all_classes, cam_view_by_view
from benchmarks.inputs import classifier, pair_operations, photo
from wsss_core.jobs.together import MOST_PIXELS
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds.cam import CamSettings, cam_seed, cam_seeds
from wsss_core.store.seeds import SeedMaps

CLASSES, N_CLASSES, SETTINGS = (3, 14), 20, CamSettings()


@dataclass(frozen=True)
class Case:
    """Sizes: backbone, image, number of images."""

    backbone: str
    image: tuple[int, int]
    count: int


CASES = {
    ("tiny", "cpu"): Case("small", (44, 60), 3),
    ("quick", "cpu"): Case("resnet50", (94, 125), 2),
    ("full", "cpu"): Case("resnet50", (188, 250), 4),
    ("tiny", "cuda"): Case("small", (44, 60), 3),
    ("quick", "cuda"): Case("resnet50", (188, 250), 8),
    ("full", "cuda"): Case("resnet50", (375, 500), 64),
}
"""By size and device; on a CPU images of a quarter of VOC's area."""


def works(size: str, device: str) -> list[Work]:
    """Images with two of twenty classes, four scales with mirror images: one, and several."""
    case = CASES[size, device]
    what = f"{case.backbone}, {'×'.join(map(str, case.image))}, 4 scales"
    together = device == "cuda"
    return [
        Work(
            f"CAM, {what}",
            prepare=partial(_inputs, case, 1),
            baseline=partial(_baseline, cam_all_classes),
            ours=_one_by_one,
            limit=1e-4,
            difference=largest_difference,
            floor=lambda: _floor(case, 1),
        ),
        Work(
            f"CAM of {case.count} images{' together' if together else ''} against one view at a time, {what}",
            prepare=partial(_inputs, case, case.count),
            baseline=partial(_baseline, cam_view_by_view),
            ours=_together if together else _one_by_one,
            limit=1e-4,
            difference=largest_difference,
            floor=lambda: _floor(case, case.count),
        ),
    ]


def _inputs(case: Case, count: int, device: torch.device) -> tuple[CamNetwork, list[np.ndarray]]:
    network = classifier(case.backbone, N_CLASSES, device)
    return network, [photo(*case.image, seed=number) for number in range(count)]


def _baseline(loop, inputs: tuple[CamNetwork, list[np.ndarray]]) -> tuple[Tensor, Tensor]:
    network, images = inputs
    strided, full = zip(*(loop(network, image, CLASSES, SETTINGS.scales) for image in images), strict=True)
    return torch.stack(strided), torch.stack(full)


def _one_by_one(inputs: tuple[CamNetwork, list[np.ndarray]]) -> tuple[Tensor, Tensor]:
    network, images = inputs
    return _stored([cam_seed(network, image, CLASSES, SETTINGS) for image in images])


def _together(inputs: tuple[CamNetwork, list[np.ndarray]]) -> tuple[Tensor, Tensor]:
    network, images = inputs
    return _stored(cam_seeds(network, images, [CLASSES] * len(images), SETTINGS, MOST_PIXELS))


def _stored(seeds: list[SeedMaps]) -> tuple[Tensor, Tensor]:
    return torch.stack([maps.strided().cpu() for maps in seeds]), torch.stack([maps.full().cpu() for maps in seeds])


def _floor(case: Case, count: int) -> tuple[float, float]:
    operations = pair_operations(case.backbone, N_CLASSES, case.image, SETTINGS.scales)
    return count * sum(map(sum, operations.values())), 0.0
