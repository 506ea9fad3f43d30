"""RIB of one image: the straightforward loop, against the engine in float32 and in bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import Work, largest_difference
from benchmarks.baselines.rib_loop import rib_loop
from benchmarks.inputs import classifier, pair_operations, photo
from wsss_core.execution import Execution, in_precision
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds.rib import RibSettings, rib_seed
from wsss_core.store.seeds import SeedMaps

CLASSES, N_CLASSES = (3, 14), 20


@dataclass(frozen=True)
class Case:
    """Sizes: backbone, image, side of the auxiliary crops, steps K, auxiliary images B, scales."""

    backbone: str
    image: tuple[int, int]
    crop: int
    steps: int = 10
    batch: int = 20
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)

    def settings(self) -> RibSettings:
        """As published, without the early stops."""
        return RibSettings(
            steps=self.steps,
            batch_size=self.batch,
            scales=self.scales,
            margin=None,
            explosion=None,
            pool_crop=self.crop,
        )


CASES = {
    ("tiny", "cpu"): Case("small", (44, 60), 48, steps=3, batch=3, scales=(1.0, 0.5, 1.5)),
    ("quick", "cpu"): Case("resnet50", (64, 80), 96, steps=6, batch=8),
    ("full", "cpu"): Case("resnet50", (94, 125), 128),
    ("tiny", "cuda"): Case("small", (44, 60), 48, steps=3, batch=3, scales=(1.0, 0.5, 1.5)),
    ("quick", "cuda"): Case("resnet50", (188, 250), 256),
    ("full", "cuda"): Case("resnet50", (375, 500), 512),
}
"""By size and device; the paper's K and B on a CPU too, with images and crops of a sixteenth of VOC's area."""


def works(size: str, device: str) -> list[Work]:
    """One image with two classes, in both precisions."""
    case = CASES[size, device]
    height, width = case.image
    name = f"RIB, {case.backbone}, {height}×{width}, K {case.steps}, B {case.batch} crops of {case.crop}"
    rows = [(name, _engine, 1e-3), (f"the same in bfloat16 (`precision: mixed`), {case.backbone}", _engine_mixed, 0.1)]
    return [
        Work(
            title,
            prepare=partial(_inputs, case),
            baseline=_loop,
            ours=ours,
            limit=limit,
            difference=largest_difference,
            floor=lambda: floor(case),
        )
        for title, ours, limit in rows
    ]


@dataclass(frozen=True)
class Inputs:
    """Network, image, settings and the auxiliary batches of all steps."""

    network: CamNetwork
    image: np.ndarray
    settings: RibSettings
    batches: list[tuple[Tensor, Tensor]]


def _inputs(case: Case, device: torch.device) -> Inputs:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, 3, case.crop, case.crop, generator=draw).to(device)
    batches = []
    for _ in range(case.steps):
        labels = torch.zeros(case.batch, N_CLASSES)
        labels[torch.arange(case.batch), torch.randint(4, 14, (case.batch,), generator=draw)] = 1
        batches.append((images.roll(len(batches), 3), labels))
    return Inputs(classifier(case.backbone, N_CLASSES, device), photo(*case.image), case.settings(), batches)


def _loop(inputs: Inputs) -> Tensor:
    found = rib_loop(inputs.network, inputs.image, CLASSES, inputs.settings, inputs.batches.__getitem__)
    return SeedMaps(CLASSES, found["maps"], inputs.image.shape[:2]).full()


def _engine(inputs: Inputs) -> Tensor:
    return rib_seed(inputs.network, inputs.image, CLASSES, inputs.settings, inputs.batches.__getitem__).full()


def _engine_mixed(inputs: Inputs) -> Tensor:
    return in_precision(Execution(precision="mixed"), inputs.network, _engine)(inputs)


def floor(case: Case) -> tuple[float, float]:
    """Products of the passes that no implementation can leave out; a backward pass counts as two forward ones."""
    pairs = pair_operations(case.backbone, N_CLASSES, case.image, case.scales)
    prefix, rest = pair_operations(case.backbone, N_CLASSES, (case.crop, case.crop), (1.0,))[1.0]
    updates = case.steps - 1
    target = sum(p + case.steps * r + (2 * updates * r if scale >= 1 else 0) for scale, (p, r) in pairs.items())
    return target + updates * case.batch / 2 * (prefix + 3 * rest), 0.0
