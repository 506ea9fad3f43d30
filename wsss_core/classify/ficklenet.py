"""FickleNet's classifier: cross-entropy of a convolution that sees a random choice of cells in every window.

Lee et al., CVPR 2019; the network is `wsss_core.models.ficklenet`. The dissertation (section 3.2.1) describes the idea
without numbers. The defaults are what is known of the paper, second-hand: VGG-16 with features at stride 8, windows of
9 x 9, dropout 0.9, crops of 321, batches of 10, Adam at 1e-3 halved every 10 epochs. These are open; here

* **optimiser**: Adam with its default moments and without weight decay, one rate for all weights. It adapts the step of
  every weight, so the IRN family's remarks on SGD and its momentum do not apply;
* **epochs**: 20, as the rate would otherwise hardly be halved;
* **stride**: the fourth stage's stride is removed and the stages behind it are dilated by 2 (VGG-16), so that they see
  what they saw on ImageNet; there is no fifth pooling;
* **dropout**: kept cells count 1 / (1 - p) and the centre, which is never dropped, counts 1;
* **augmentation**: as for the objective ``bce``, with the crop of the paper; the convolution has no bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from wsss_core.classify import bce
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.models import AnyBackboneName
from wsss_core.models.backbones import backbone
from wsss_core.models.ficklenet import FickleNetwork
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan, enough_epochs


@dataclass(frozen=True)
class FickleNetSettings:
    """Training of FickleNet's classifier; defaults as published for VOC, as far as they are known."""

    backbone: AnyBackboneName = setting("vgg16", "backbone network")
    weights: str | None = setting(
        None, "file of ImageNet weights with torchvision's parameter names; imagenet: fetched once; null: random ones"
    )
    frozen_stages: int | None = setting(
        None,
        "leading stages of the backbone that keep their initial weights, of 5; null: as for the objective bce",
        minimum=0,
        maximum=5,
    )
    stride: Literal[8, 16] = setting(8, "stride of the features in pixels")
    size: int = setting(9, "side s of the convolution's windows in cells, odd", minimum=1)
    dropout: float = setting(
        0.9, "probability p of dropping a cell of a window, never its centre", minimum=0, exclusiveMaximum=1
    )
    epochs: int | None = setting(
        None, "passes over the images; null: 20, or as many as take 100 steps where images are few", minimum=1
    )
    batch_size: int = setting(10, "images a step", minimum=1)
    learning_rate: float = setting(1e-3, "of Adam, for all weights", exclusiveMinimum=0)
    halve_every: int | None = setting(
        None, "epochs after which the rate is halved, again and again; null: half of all, as published", minimum=1
    )
    weight_decay: float = setting(0.0, "weight decay", minimum=0)
    long_side: tuple[int, int] = setting(
        (320, 640),
        "range of the longer side that images are resized to, in pixels",
        ascending=True,
        items={"minimum": 1},
    )
    crop: int = setting(321, "side of the training crops in pixels", minimum=32)


def plan(settings: FickleNetSettings, inputs: Inputs) -> Plan:
    """Training of a new network on the images of the role "train"; errors as for `bce.prepare` and `FickleNetwork`."""
    n_classes = len(inputs.class_names)
    initial = backbone(settings.backbone, settings.stride)
    network = FickleNetwork(initial, n_classes, settings.size, settings.dropout)
    bce.prepare(network, settings, inputs.weights)
    epochs = settings.epochs or enough_epochs(20, len(inputs.records), settings.batch_size)
    batches = ClassifierBatches(
        inputs.records,
        n_classes,
        epochs=epochs,
        batch_size=settings.batch_size,
        long_side=settings.long_side,
        crop=settings.crop,
        seed=inputs.seed,
        stage=inputs.stage,
    )
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, settings.learning_rate, weight_decay=settings.weight_decay)
    every = settings.halve_every or max(1, epochs // 2)
    return Plan(network, batches, bce.loss(network), optimizer, halved(batches.steps_per_epoch * every))


def halved(steps: int) -> Callable[[int], float]:
    """Learning-rate factor that is halved every `steps` steps.

    Examples
    --------
    >>> rate = halved(10)
    >>> rate(9), rate(10), rate(20)
    (1.0, 0.5, 0.25)
    """
    return lambda step: 0.5 ** (step // steps)
