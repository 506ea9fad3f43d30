"""Training as the step `train` does it, with loading, augmentation and log: against the bare loop on ready batches.

The ratio says what the pipeline costs: 1 is nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import Work, largest_relative_difference
from benchmarks.baselines.bare_training import bare_training
from benchmarks.inputs import calm, photo_files
from wsss_core.classify import bce
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.data.table import ImageRecord
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.segment import deeplab, deeplab_v2
from wsss_core.segment.batches import SegmentationBatches, network_input
from wsss_core.segment.samples import Sample
from wsss_core.training import Batches, fit, polynomial, to_device

N_CLASSES = 20


@dataclass(frozen=True)
class Case:
    """Sizes: backbone, images and their size, crop, images a step, steps, loader processes."""

    backbone: str
    images: int
    size: tuple[int, int]
    crop: int
    batch: int
    steps: int
    workers: int = 0


CLASSIFIER = {
    ("tiny", "cpu"): Case("small", 4, (50, 60), 48, 2, 2),
    ("quick", "cpu"): Case("resnet50", 16, (120, 160), 96, 4, 4),
    ("full", "cpu"): Case("resnet50", 16, (188, 250), 160, 8, 6),
    ("tiny", "cuda"): Case("small", 4, (50, 60), 48, 2, 2),
    ("quick", "cuda"): Case("resnet50", 64, (375, 500), 512, 16, 12, workers=8),
    ("full", "cuda"): Case("resnet50", 128, (375, 500), 512, 16, 40, workers=12),
}

DEEPLAB = {
    ("tiny", "cpu"): Case("small", 4, (50, 60), 33, 2, 2),
    ("quick", "cpu"): Case("resnet50", 8, (120, 160), 97, 2, 3),
    ("full", "cpu"): Case("resnet101", 8, (188, 250), 161, 2, 3),
    ("tiny", "cuda"): Case("small", 4, (50, 60), 33, 2, 2),
    ("quick", "cuda"): Case("resnet101", 64, (375, 500), 321, 10, 12, workers=8),
    ("full", "cuda"): Case("resnet101", 128, (375, 500), 321, 10, 40, workers=12),
}


def works(size: str, device: str) -> list[Work]:
    """The classifier and DeepLab-v2."""
    found = []
    for name, case, prepare in (
        ("classifier", CLASSIFIER[size, device], _classifier),
        ("DeepLab-v2", DEEPLAB[size, device], _deeplab),
    ):
        found.append(
            Work(
                f"training of the {name}, {case.backbone}, {case.steps} steps of {case.batch} crops of {case.crop}",
                prepare=partial(prepare, case),
                baseline=_bare,
                ours=_pipeline,
                limit=1e-3,
                difference=largest_relative_difference,
            )
        )
    return found


@dataclass(frozen=True)
class Run:
    """What both sides train: from the same weights, with the same batches."""

    network: nn.Module
    weights: dict[str, Tensor]
    batches: Batches
    ready: list[Any]
    loss: Callable[[Any], dict[str, Tensor]]
    optimizer: Callable[[], torch.optim.Optimizer]
    rate: Callable[[int], float]
    execution: Execution


def _classifier(case: Case, device: torch.device) -> Run:
    records = [
        ImageRecord(path.stem, str(path), *case.size, ("train",), (number % N_CLASSES,))
        for number, path in enumerate(photo_files(case.images, case.size))
    ]
    settings = bce.BceSettings(backbone=case.backbone, crop=case.crop, batch_size=case.batch)
    torch.manual_seed(0)
    network = cam_network(case.backbone, N_CLASSES)
    calm(network)
    network.freeze(None)
    longest = max(case.size)
    batches = ClassifierBatches(
        records,
        N_CLASSES,
        epochs=-(-case.steps * case.batch // case.images),
        batch_size=case.batch,
        long_side=(longest * 2 // 3, longest * 4 // 3),
        crop=case.crop,
        seed=0,
        stage="benchmark",
    )
    return _run(case, network, batches, bce.loss(network), lambda: bce.optimizer(network, settings), device)


def _deeplab(case: Case, device: torch.device) -> Run:
    samples = []
    for number, path in enumerate(photo_files(case.images, case.size)):
        labels = np.full(case.size, number % (N_CLASSES + 1), np.uint8)
        Image.fromarray(labels).save(path.with_suffix(".png"))
        samples.append(Sample(path, path.with_suffix(".png"), case.size))
    settings = deeplab.DeepLabSettings(
        backbone=case.backbone, iterations=case.steps, batch_size=case.batch, crop=case.crop
    )
    torch.manual_seed(0)
    network = deeplab.build_network(settings, N_CLASSES + 1)
    calm(network)
    batches = SegmentationBatches(
        samples,
        N_CLASSES + 1,
        iterations=case.steps,
        batch_size=case.batch,
        crop=case.crop,
        scales=settings.scales,
        seed=0,
        stage="benchmark",
    )

    def loss(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return deeplab_v2.loss_terms(network(network_input(batch)), batch["labels"])

    return _run(case, network, batches, loss, lambda: deeplab.optimizer(network, settings), device)


def _run(
    case: Case,
    network: nn.Module,
    batches: Batches,
    loss: Callable[[Any], dict[str, Tensor]],
    optimizer: Callable[[], torch.optim.Optimizer],
    device: torch.device,
) -> Run:
    network.to(device).train()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    first = _First(batches, case.steps)
    ready = [to_device(first[step], device, device.type == "cuda") for step in range(case.steps)]
    execution = Execution(device.type, torch.get_num_threads(), case.workers)
    return Run(network, weights, first, ready, loss, optimizer, polynomial(case.steps), execution)


class _First:
    """The first steps of batches."""

    def __init__(self, batches: Batches, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        if step >= self.steps:
            raise IndexError(step)
        return self.batches[step]


def _bare(run: Run) -> tuple[Tensor, ...]:
    run.network.load_state_dict(run.weights)
    bare_training(run.ready, run.loss, run.optimizer(), run.rate)
    return _last_weights(run)


def _pipeline(run: Run) -> tuple[Tensor, ...]:
    run.network.load_state_dict(run.weights)
    fit(run.network, run.batches, run.loss, run.optimizer(), run.rate, seed=0, execution=run.execution)
    return _last_weights(run)


def _last_weights(run: Run) -> tuple[Tensor, ...]:
    return tuple(parameter.detach().cpu().clone() for parameter in list(run.network.parameters())[-2:])
