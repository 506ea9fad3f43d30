"""What the training of every objective on DeepLab-v2 shares: network, batches, optimiser and rate.

The recipe that weakly supervised papers share without writing it down (DeepLab-v2 as in kazuto1011's
deeplab-pytorch, ImageNet weights; RIB, NeurIPS 2021, appendix).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.errors import UserError
from wsss_core.models import AnyBackboneName
from wsss_core.models.backbones import FixedBatchNorm
from wsss_core.models.deeplab import DeepLabV2, deeplab_v2, torchvision_names
from wsss_core.segment.batches import SegmentationBatches, known_logits, network_input
from wsss_core.segment.initial import load_backbone
from wsss_core.segment.samples import checked, samples_of
from wsss_core.settings import setting
from wsss_core.training import Batches, Inputs, Plan, polynomial


@dataclass(frozen=True)
class DeepLabSettings:
    """Network and schedule; defaults as for VOC in the RIB paper."""

    backbone: AnyBackboneName = setting("resnet101", "backbone network")
    weights: str | None = setting(
        None,
        "initial weights of the backbone: a file with torchvision's parameter names (resnet38d: PSA's; networks of "
        "timm: timm's), 'classifier' "
        "for those of the upstream classifier, imagenet for those that torchvision publishes, or null for random ones",
    )
    variant: Literal["paper", "official"] = setting(
        "paper",
        "form of the weights: paper: torchvision's ResNet; official: ResNet converted from Caffe as in deeplab-pytorch "
        "(stride in the first 1x1 convolution, BGR input)",
    )
    output_stride: Literal[8, 16, 32] | None = setting(
        8, "pixels per cell of the feature grid; null: what the backbone has as a classifier"
    )
    rates: tuple[int, ...] = setting(
        (6, 12, 18, 24), "dilations of the pyramid, in cells", minItems=1, items={"minimum": 1}
    )
    msc_scales: tuple[float, ...] = setting(
        (0.5, 0.75),
        "input scales beside 1 whose logits are trained and maximised over; [] for one scale",
        items={"exclusiveMinimum": 0},
    )
    iterations: int = setting(30000, "training steps", minimum=1)
    batch_size: int = setting(10, "images a step", minimum=1)
    learning_rate: float = setting(
        2e-4, "of the backbone's weights; 10 times for the pyramid's weights, 20 times for its biases", minimum=0
    )
    momentum: float = setting(0.9, "momentum of SGD", minimum=0, exclusiveMaximum=1)
    weight_decay: float = setting(5e-4, "weight decay; none for the pyramid's biases", minimum=0)
    power: float = setting(0.9, "the rate falls as (1 - step / iterations) ** power", minimum=0)
    decay_every: int = setting(10, "steps between updates of the rate", minimum=1)
    crop: int = setting(321, "side of the training crops in pixels", minimum=1)
    scales: tuple[float, ...] = setting(
        (0.5, 0.75, 1.0, 1.25, 1.5),
        "random rescaling of the images",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )


def training_plan(
    settings: DeepLabSettings,
    inputs: Inputs,
    loss: Callable[[Sequence[Tensor], dict[str, Tensor]], dict[str, Tensor]],
) -> Plan:
    """Training of a new network.

    Parameters
    ----------
    loss
        From the logits [B, L, h, w] of every input scale and the batch (see `SegmentationBatches`) to named terms.

    Raises
    ------
    UserError
        If the initial weights do not fit, a mask is missing or wrong, or the masks hold nothing to learn.
    """
    samples, labels_digest = checked(samples_of(inputs.records, inputs.labels), inputs.class_names)
    batches = SegmentationBatches(
        samples,
        len(inputs.class_names) + 1,
        iterations=settings.iterations,
        batch_size=settings.batch_size,
        crop=settings.crop,
        scales=settings.scales,
        seed=inputs.seed,
        stage=inputs.stage,
    )
    return plan_on(
        batches,
        settings,
        inputs,
        lambda network, batch: loss(batch_logits(network, batch), batch),
        labels_digest,
    )


def plan_on(
    batches: Batches,
    settings: DeepLabSettings,
    inputs: Inputs,
    loss: Callable[[DeepLabV2, Any], dict[str, Tensor]],
    labels_digest: str,
) -> Plan:
    """Training of a new network on any batches.

    Parameters
    ----------
    loss
        From the network and a batch to named terms.

    Raises
    ------
    UserError
        If the initial weights do not fit.
    """
    network = build_network(settings, len(inputs.class_names) + 1)
    load_initial_weights(network, settings, inputs)
    return Plan(
        network,
        batches,
        partial(loss, network),
        optimizer(network, settings),
        polynomial(settings.iterations, settings.power, settings.decay_every),
        labels_digest,
    )


def batch_logits(network: DeepLabV2, batch: dict[str, Tensor]) -> list[Tensor]:
    """Logits [B, L, h, w] of a batch at every input scale, as losses take them (see `known_logits`)."""
    return [known_logits(logits, batch["unknown"]) for logits in network(network_input(batch))]


def build_network(settings: DeepLabSettings, n_labels: int) -> DeepLabV2:
    """The network to train, its batch norm fixed: running statistics and affine parameters stay as they are."""
    network = deeplab_v2(
        settings.backbone, n_labels, settings.rates, settings.output_stride, settings.msc_scales, settings.variant
    )
    for parameter in _batch_norm_parameters(network):
        parameter.requires_grad_(False)
    return network


def optimizer(network: DeepLabV2, settings: DeepLabSettings) -> torch.optim.SGD:
    """SGD with the three groups of DeepLab-v2: backbone, pyramid weights (rate x10), pyramid biases (x20, no decay)."""
    fixed = {id(parameter) for parameter in _batch_norm_parameters(network)}
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = [
        {"params": [p for p in network.backbone.parameters() if id(p) not in fixed], "lr": rate, "weight_decay": decay},
        {"params": [c.weight for c in network.aspp], "lr": 10 * rate, "weight_decay": decay},
        {"params": [c.bias for c in network.aspp], "lr": 20 * rate, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)


def _batch_norm_parameters(network: nn.Module) -> list[nn.Parameter]:
    return [p for module in network.modules() if isinstance(module, FixedBatchNorm) for p in module.parameters()]


def load_initial_weights(network: DeepLabV2, settings: DeepLabSettings, inputs: Inputs) -> None:
    """Load what the settings ask for into the backbone.

    Raises
    ------
    UserError
        If it does not fit the backbone.
    """
    official = settings.variant == "official"
    if official and settings.weights == "classifier":
        raise UserError("weights: classifier needs variant: paper; the classifier has torchvision's layout")
    load_backbone(network.backbone, settings.weights, inputs, torchvision_names if official else dict)


def reduced(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels uint8 [B, H, W] at the centres of the cells of a grid (as Pillow's NEAREST), int64 [B, h, w]."""
    return F.interpolate(labels[:, None], tuple(size), mode="nearest-exact")[:, 0].long()
