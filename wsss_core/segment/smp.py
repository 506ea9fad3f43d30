"""Training of a network of Segmentation Models PyTorch with cross-entropy on label masks.

The networks are SMP's as they are (`wsss_core.models.smp`), the masks, batches and rate those of `deeplab_v2`: SGD, a
rate that falls by a power, random rescaling, mirroring and crops. The cross-entropy is taken at every pixel, of logits
at full resolution. Normalisation learns with batch statistics, as SMP's networks are made to; that of no other network
here does but the decoder's of CCT.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from wsss_core.models.smp import SmpNetwork
from wsss_core.segment.batches import SegmentationBatches, known_logits, network_input
from wsss_core.segment.deeplab_v2 import cross_entropy
from wsss_core.segment.samples import checked, samples_of
from wsss_core.settings import Text, setting
from wsss_core.training import Inputs, Plan, polynomial

log = logging.getLogger(__name__)

Decoder = Literal[
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
]


@dataclass(frozen=True)
class SmpSettings:
    """Network and schedule; the schedule's defaults are those of DeepLab-v2 here, and tuned for nothing."""

    decoder: Decoder = setting("deeplabv3plus", "architecture of SMP; dpt takes vision transformers of timm alone")
    encoder: str = setting(
        "resnet50", "encoder of SMP, or of timm behind tu- (tu-convnext_tiny); the names are SMP's", minLength=1
    )
    weights: Annotated[str, Text("^(?!imagenet$|classifier$).+$", "a file")] | None = setting(
        None,
        "initial weights of the encoder: a file with SMP's parameter names, which are torchvision's for ResNet, "
        "MobileNetV2, VGG and DenseNet; null for random ones",
    )
    iterations: int = setting(30000, "training steps", minimum=1)
    batch_size: int = setting(10, "images a step", minimum=2)
    learning_rate: float = setting(0.01, "of all but the encoder", minimum=0)
    encoder_rate: float = setting(0.1, "rate of the encoder, as a part of `learning_rate`", minimum=0)
    momentum: float = setting(0.9, "momentum of SGD", minimum=0, exclusiveMaximum=1)
    weight_decay: float = setting(5e-4, "weight decay", minimum=0)
    power: float = setting(0.9, "the rate falls as (1 - step / iterations) ** power", minimum=0)
    crop: int = setting(321, "side of the training crops in pixels", minimum=32)
    scales: tuple[float, ...] = setting(
        (0.5, 0.75, 1.0, 1.25, 1.5),
        "random rescaling of the images",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )


def plan(settings: SmpSettings, inputs: Inputs) -> Plan:
    """Training of a new network on the masks.

    Raises
    ------
    UserError
        If SMP is missing or cannot build the network, the initial weights do not fit, a mask is missing or wrong, or
        the masks hold nothing to learn.
    """
    samples, labels_digest = checked(samples_of(inputs.records, inputs.labels), inputs.class_names)
    n_labels = len(inputs.class_names) + 1
    network = SmpNetwork(settings.decoder, settings.encoder, n_labels)
    if inputs.weights is not None:
        network.load_encoder(inputs.weights)
    else:
        log.warning("%s starts from random weights: set `weights` to a file of ImageNet weights", settings.encoder)
    batches = SegmentationBatches(
        samples,
        n_labels,
        iterations=settings.iterations,
        batch_size=settings.batch_size,
        crop=settings.crop,
        scales=settings.scales,
        seed=inputs.seed,
        stage=inputs.stage,
    )
    return Plan(
        network,
        batches,
        lambda batch: loss_terms(network, batch),
        optimizer(network, settings),
        polynomial(settings.iterations, settings.power),
        labels_digest,
    )


def optimizer(network: SmpNetwork, settings: SmpSettings) -> torch.optim.SGD:
    """SGD with two groups: the encoder, and all that is new."""
    own = {id(parameter) for parameter in network.encoder.parameters()}
    groups = [
        {"params": list(network.encoder.parameters()), "lr": settings.learning_rate * settings.encoder_rate},
        {"params": [p for p in network.parameters() if id(p) not in own], "lr": settings.learning_rate},
    ]
    return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)


def loss_terms(network: SmpNetwork, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Under "loss", the mean cross-entropy over the pixels that are not ignored (see `SegmentationBatches`)."""
    logits = known_logits(network(network_input(batch)), batch["unknown"])
    return {"loss": cross_entropy(logits.float(), batch["labels"].long())}
