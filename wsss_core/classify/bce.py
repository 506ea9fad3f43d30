"""Multi-label classification with binary cross-entropy: the CAM classifier of IRN and what is built on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.classify.batches import ClassifierBatches
from wsss_core.models import BackboneName, cam_network
from wsss_core.models.cam import CamNetwork
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan, polynomial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BceSettings:
    """Training of the classifier; defaults as IRN and RIB publish them for VOC."""

    backbone: BackboneName = setting("resnet50", "backbone network")
    weights: str | None = setting(
        None,
        "file of ImageNet weights with torchvision's parameter names (resnet38d: PSA's), or null for random ones",
    )
    frozen_stages: int | None = setting(
        None,
        "leading stages of the backbone that keep their initial weights, of 5; null: the backbone's own number "
        "(ResNet and MobileNetV2 3, VGG-16 and ResNet-38d 1, small 0), and 0 without a weight file",
        minimum=0,
        maximum=5,
    )
    epochs: int = setting(5, "passes over the images", minimum=1)
    batch_size: int = setting(16, "images a step", minimum=1)
    learning_rate: float = setting(0.1, "of the backbone", exclusiveMinimum=0)
    classifier_rate: float = setting(10.0, "rate of the classifier's weights, as a multiple", exclusiveMinimum=0)
    weight_decay: float = setting(1e-4, "weight decay", minimum=0)
    momentum: float = setting(
        1e-4,
        "momentum of SGD; the published code passes the weight decay in its place, so theirs is 1e-4 and not 0.9, "
        "and 0.9 with the published rate would take steps ten times as large",
        minimum=0,
        exclusiveMaximum=1,
    )
    power: float = setting(0.9, "the rate falls as (1 - step / steps) ** power", minimum=0)
    long_side: tuple[int, int] = setting(
        (320, 640),
        "range of the longer side that images are resized to, in pixels",
        ascending=True,
        items={"minimum": 1},
    )
    crop: int = setting(512, "side of the training crops in pixels", minimum=32)
    colour_jitter: tuple[float, float, float, float] | None = setting(
        None,
        "random changes of colour, or null for none: the largest relative change of brightness, of contrast and of "
        "saturation, and the largest shift of the hue, 1 being the whole circle",
        items={"minimum": 0},
    )


class StartSettings(Protocol):
    """Settings that say with what weights a network starts."""

    @property
    def backbone(self) -> str: ...

    @property
    def frozen_stages(self) -> int | None: ...


class RateSettings(Protocol):
    """Settings that say how fast weights change."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def classifier_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...


class SgdSettings(RateSettings, Protocol):
    """Settings of SGD."""

    @property
    def momentum(self) -> float: ...


def plan(settings: BceSettings, inputs: Inputs) -> Plan:
    """Training of a new network on the images of the role "train"."""
    network = build(settings, len(inputs.class_names), inputs.weights)
    batches = training_batches(settings, inputs)
    rate = polynomial(len(batches), settings.power)
    return Plan(network, batches, loss(network), optimizer(network, settings), rate)


def training_batches(settings: BceSettings, inputs: Inputs) -> ClassifierBatches:
    """Batches of the images of the role "train", as the settings say."""
    return ClassifierBatches(
        inputs.records,
        len(inputs.class_names),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        long_side=settings.long_side,
        crop=settings.crop,
        seed=inputs.seed,
        stage=inputs.stage,
        colour_jitter=settings.colour_jitter,
    )


def build(settings: BceSettings, n_classes: int, weights: Mapping[str, Tensor] | None) -> CamNetwork:
    """The network to train: initial weights loaded, frozen stages set; errors as for `prepare`."""
    network = cam_network(settings.backbone, n_classes)
    prepare(network, settings, weights)
    return network


def prepare(network: CamNetwork, settings: StartSettings, weights: Mapping[str, Tensor] | None) -> None:
    """Load initial weights into a new network's backbone, if there are any, and freeze its leading stages.

    Raises
    ------
    UserError
        If the weights do not fit the backbone.
    """
    if weights is not None:
        network.load_backbone(weights)
        network.freeze(settings.frozen_stages)
    else:
        if settings.backbone != "small":
            log.warning("%s starts from random weights: set `weights` to a file of ImageNet weights", settings.backbone)
        network.freeze(settings.frozen_stages or 0)


def loss(network: CamNetwork) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """From a batch (images [B, 3, S, S], labels [B, C]) to the mean over images and classes of the cross-entropy."""

    def terms(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        return {"loss": F.binary_cross_entropy_with_logits(network(images), labels)}

    return terms


def optimizer(network: CamNetwork, settings: SgdSettings) -> torch.optim.SGD:
    """SGD on `parameter_groups`."""
    groups = parameter_groups(network, settings)
    return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)


def adam(network: CamNetwork, settings: RateSettings) -> torch.optim.Adam:
    """Adam on `parameter_groups`; the weight decay is a term of the gradient, as in SGD."""
    return torch.optim.Adam(parameter_groups(network, settings), weight_decay=settings.weight_decay)


def parameter_groups(network: CamNetwork, settings: RateSettings) -> list[dict[str, Any]]:
    """The backbone's trainable parameters, and those behind the backbone at a multiple of the rate."""
    rate = settings.learning_rate
    behind = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    groups = [
        {"params": [p for p in network.backbone.parameters() if p.requires_grad], "lr": rate},
        {"params": behind, "lr": settings.classifier_rate * rate},
    ]
    return [group for group in groups if group["params"]]
