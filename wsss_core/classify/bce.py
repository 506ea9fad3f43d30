"""Multi-label classification with binary cross-entropy: the CAM classifier of IRN and what is built on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.classify.batches import ClassifierBatches
from wsss_core.data.augment import tag_loss
from wsss_core.models import AnyBackboneName, cam_network
from wsss_core.models.cam import CamNetwork
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan, enough_epochs, polynomial

log = logging.getLogger(__name__)

FEW = 1000
"""With fewer images a backbone with ImageNet weights keeps them all, where the settings leave it open: its last stages
have more weights than so few tags can tell anything about.
"""
CLASSIFIER_RATE = 0.1
"""Rate of the classifier's weights where the settings leave it open: ten times that of ResNet, as in IRN and RIB."""


@dataclass(frozen=True)
class ClassifierSettings:
    """Training of a classifier. What is null follows from the backbone and from the number of images."""

    usual_epochs: ClassVar[int] = 5

    backbone: AnyBackboneName = setting("resnet50", "backbone network")
    weights: str | None = setting(
        None,
        "file of ImageNet weights with torchvision's parameter names (resnet38d: PSA's; networks of timm: timm's); "
        "imagenet: those that "
        "torchvision publishes, fetched once; null: random ones",
    )
    frozen_stages: int | None = setting(
        None,
        "leading stages of the backbone that keep their initial weights, of 5; null: the backbone's own number "
        "(ResNet, MobileNetV2 and networks of timm 3, VGG-16 and ResNet-38d 1, small 0), 0 without a weight file, "
        "and for the objective "
        "bce with fewer than 1000 images all 5",
        minimum=0,
        maximum=5,
    )
    epochs: int | None = setting(
        None, "passes over the images; null: 5, or as many as take 100 steps where images are few", minimum=1
    )
    batch_size: int = setting(16, "images a step", minimum=1)
    learning_rate: float | None = setting(
        None,
        "of the backbone, for SGD with the momentum 0.9; null: the backbone's own (ResNet, MobileNetV2 and networks "
        "of timm 0.01, "
        "its vision transformers, VGG-16 and ResNet-38d 0.001, small 0.05). IRN and RIB have 0.1 without momentum, "
        "as fast as 0.01 with 0.9",
        exclusiveMinimum=0,
    )
    classifier_rate: float | None = setting(
        None,
        "rate of the classifier's weights, as a multiple; null: 10 if `learning_rate` is given, otherwise what makes "
        "it 0.1",
        exclusiveMinimum=0,
    )
    weight_decay: float = setting(1e-4, "weight decay", minimum=0)
    momentum: float = setting(
        0.9,
        "momentum of SGD; the published code passes the weight decay in its place, so theirs is 1e-4",
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


@dataclass(frozen=True)
class BceSettings(ClassifierSettings):
    """Training of the classifier with cross-entropy alone."""

    dropout: float = setting(
        0.0,
        "share of the pooled features left out in training; PSA's classifier has 0.5, IRN's and RIB's none",
        minimum=0,
        exclusiveMaximum=1,
    )


class StartSettings(Protocol):
    """Settings that say with what weights a network starts."""

    @property
    def backbone(self) -> str: ...

    @property
    def frozen_stages(self) -> int | None: ...


class RateSettings(Protocol):
    """Settings that say how fast weights change; a rate left open is the backbone's own, or `CLASSIFIER_RATE`."""

    @property
    def learning_rate(self) -> float | None: ...

    @property
    def classifier_rate(self) -> float | None: ...

    @property
    def weight_decay(self) -> float: ...


class SgdSettings(RateSettings, Protocol):
    """Settings of SGD."""

    @property
    def momentum(self) -> float: ...


def plan(settings: BceSettings, inputs: Inputs) -> Plan:
    """Training of a new network on the images of the role "train"."""
    network = cam_network(settings.backbone, len(inputs.class_names))
    prepare(network, _keeping_features(settings, inputs), inputs.weights)
    batches = training_batches(settings, inputs)
    rate = polynomial(len(batches), settings.power)
    return Plan(network, batches, loss(network, settings.dropout), optimizer(network, settings), rate)


def _keeping_features(settings: BceSettings, inputs: Inputs) -> BceSettings:
    """The settings with all stages frozen where they leave it open, images are few, and there are weights to keep."""
    if settings.frozen_stages is not None or inputs.weights is None or len(inputs.records) >= FEW:
        return settings
    log.info("fewer than %d images: the backbone keeps its weights (frozen_stages), the classifier is trained", FEW)
    return replace(settings, frozen_stages=5)


def training_batches(settings: ClassifierSettings, inputs: Inputs) -> ClassifierBatches:
    """Batches of the images of the role "train", as the settings say."""
    return ClassifierBatches(
        inputs.records,
        len(inputs.class_names),
        epochs=settings.epochs or enough_epochs(settings.usual_epochs, len(inputs.records), settings.batch_size),
        batch_size=settings.batch_size,
        long_side=settings.long_side,
        crop=settings.crop,
        seed=inputs.seed,
        stage=inputs.stage,
        colour_jitter=settings.colour_jitter,
    )


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


def loss(network: CamNetwork, dropout: float = 0.0) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """From a batch (images [B, 3, S, S], labels [B, C]) to `tag_loss`, the mean over images and classes.

    Parameters
    ----------
    dropout
        Share of the pooled features that are left out while the network is trained. Of a pooled feature it is that of
        the feature's whole map, which PSA's code drops before pooling.
    """

    def logits(images: Tensor) -> Tensor:
        if not dropout:
            return network(images)
        pooled = network.features(images).mean((2, 3), keepdim=True)
        return network.classifier(F.dropout(pooled, dropout, training=network.training)).flatten(1)

    def terms(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        return {"loss": tag_loss(logits(images), labels)}

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
    rate = settings.learning_rate or network.backbone.learning_rate
    multiple = settings.classifier_rate or (10.0 if settings.learning_rate else CLASSIFIER_RATE / rate)
    behind = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    groups = [
        {"params": [p for p in network.backbone.parameters() if p.requires_grad], "lr": rate},
        {"params": behind, "lr": multiple * rate},
    ]
    return [group for group in groups if group["params"]]
