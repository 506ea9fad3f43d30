"""CCT: true masks of a few images, and agreement of many decoders on the others (cross-consistency training).

Ouali, Hudelot & Tami, "Semi-Supervised Semantic Segmentation with Cross-Consistency Training", CVPR 2020, with the weak
labels of its section 3.4; J. Lee's dissertation (section 3.3) takes the pseudo-masks of AdvCAM and IRN for these. With
z the features of the shared encoder, g the main decoder, g_k and p_k the auxiliary decoders and their perturbations::

    L = CE(g(z_l), y)                                                   labelled images, true masks
      + r(t) 30  mean_k MSE(softmax g_k(p_k(z_u)), softmax g(z_u))      unlabelled images; no gradient into g(z_u)
      + r(t) 0.4 mean_k CE(g_k(p_k(z_u)), pseudo-mask)                  the same; 255 is ignored

r(t) = exp(-5 (1 - t / 0.1)^2) rises over the first tenth of the training. The main decoder, which alone predicts, never
learns from a pseudo-mask: these reach the encoder through the auxiliary decoders.

The perturbations are in `wsss_core.segment.perturbations`, the network in `wsss_core.models.cct`. What is ours: any
backbone, with batch statistics fixed, stands for the published ResNet-50 with three convolutions in its stem; images
are rescaled by `scales` and cropped, where the published code draws the longer side; see docs/methods/cct.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.models import AnyBackboneName
from wsss_core.models.backbones import backbone
from wsss_core.models.cct import CctNetwork
from wsss_core.segment import perturbations
from wsss_core.segment.batches import known_logits, network_input
from wsss_core.segment.deeplab_v2 import cross_entropy
from wsss_core.segment.initial import load_backbone
from wsss_core.segment.samples import checked
from wsss_core.segment.semi_supervised import PairedBatches, divided
from wsss_core.settings import setting
from wsss_core.store.shards import fingerprint
from wsss_core.training import Inputs, Plan, polynomial


@dataclass(frozen=True)
class DecoderSettings:
    """Number of auxiliary decoders for each perturbation; the published ones are 30."""

    dropout: int = setting(6, "for features with channels set to 0", minimum=0)
    feature_noise: int = setting(6, "for features with noise in proportion to them", minimum=0)
    feature_dropout: int = setting(6, "for features without their most active cells", minimum=0)
    guided_cut_out: int = setting(6, "for features without a box in every predicted object", minimum=0)
    context_masking: int = setting(2, "for features of the predicted objects alone", minimum=0)
    object_masking: int = setting(2, "for features of the predicted background alone", minimum=0)
    adversarial_noise: int = setting(2, "for features with the noise that changes the prediction the most", minimum=0)


@dataclass(frozen=True)
class CctSettings:
    """Training of CCT; defaults as published for VOC."""

    backbone: AnyBackboneName = setting("resnet50", "backbone network")
    weights: str | None = setting(
        None,
        "initial weights of the backbone: a file with torchvision's parameter names (resnet38d: PSA's; networks of "
        "timm: timm's), 'classifier' "
        "for those of the upstream classifier, imagenet for those that torchvision publishes, or null for random ones",
    )
    output_stride: Literal[8, 16, 32] | None = setting(
        8, "pixels per cell of the feature grid; null: what the backbone has as a classifier"
    )
    channels: int = setting(512, "channels of the features that the decoders share", minimum=1)
    decoders: DecoderSettings = setting(DecoderSettings, "auxiliary decoders")
    consistency_weight: float = setting(30.0, "weight of the consistency loss after the ramp", minimum=0)
    weak_weight: float = setting(
        0.4, "weight of the pseudo-masks' loss after the ramp; 0: these masks are not looked at", minimum=0
    )
    ramp: float = setting(0.1, "part of the training over which both weights rise", exclusiveMinimum=0, maximum=1)
    bootstrapped: bool = setting(
        False,
        "annealed bootstrapped cross-entropy on labelled images: only pixels whose true label has a probability below "
        "a bound, which rises from 1 / L to `bootstrapped_to`",
    )
    bootstrapped_to: float = setting(0.9, "the last bound", minimum=0, maximum=1)
    bootstrapped_ramp: float = setting(
        0.4, "part of the training over which the bound rises", exclusiveMinimum=0, maximum=1
    )
    dropout: float = setting(0.5, "dropout: rate of the channels", minimum=0, exclusiveMaximum=1)
    noise: float = setting(0.3, "feature noise: bound of the factor", minimum=0)
    most_active: tuple[float, float] = setting(
        (0.6, 0.9),
        "feature dropout: a cell is dropped from a part of the maximum on, drawn between these",
        ascending=True,
        items={"minimum": 0, "maximum": 1},
    )
    cut_out: float = setting(0.4, "guided cut-out: sides of the box, as a part of the object's", minimum=0, maximum=1)
    cut_out_points: int = setting(
        50, "guided cut-out: corners that an object's outline must exceed; fewer for small images", minimum=0
    )
    adversarial_length: float = setting(2.0, "adversarial noise: its Euclidean length in an image", minimum=0)
    iterations: int = setting(
        73000, "training steps; as many as 80 passes over 9,118 unlabelled images in batches of 10", minimum=1
    )
    batch_size: int = setting(10, "labelled images a step, and as many unlabelled ones", minimum=2)
    learning_rate: float = setting(0.01, "of all but the backbone", minimum=0)
    backbone_rate: float = setting(0.1, "rate of the backbone, as a part of `learning_rate`", minimum=0)
    momentum: float = setting(0.9, "momentum of SGD", minimum=0, exclusiveMaximum=1)
    weight_decay: float = setting(1e-4, "weight decay", minimum=0)
    power: float = setting(0.9, "the rate falls as (1 - step / iterations) ** power", minimum=0)
    crop: int = setting(320, "side of the training crops in pixels", minimum=1)
    scales: tuple[float, ...] = setting(
        (0.5, 0.75, 1.0, 1.25, 1.5),
        "random rescaling of the images",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )


def plan(settings: CctSettings, inputs: Inputs) -> Plan:
    """Training of a new network on true masks, and on the other images with their pseudo-masks.

    With both weights at 0 it is trained on the labelled images alone, which may be all: the reference of the same form.
    """
    images = divided(inputs, labelled_alone=not (settings.consistency_weight or settings.weak_weight))
    weak = checked(images.unlabelled, inputs.class_names)[1] if settings.weak_weight else ""
    n_labels = len(inputs.class_names) + 1
    body = backbone(settings.backbone, output_stride=settings.output_stride)
    network = CctNetwork(body, n_labels, settings.channels, asdict(settings.decoders))
    load_backbone(network.backbone, settings.weights, inputs)
    batches = PairedBatches(
        images.labelled,
        images.unlabelled,
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
        lambda batch: loss_terms(network, batch, settings),
        optimizer(network, settings),
        polynomial(settings.iterations, settings.power),
        fingerprint([images.digest, weak]),
        network.drop_auxiliary,
    )


def optimizer(network: CctNetwork, settings: CctSettings) -> torch.optim.SGD:
    """SGD with two groups: the backbone, and all that is new."""
    own = {id(parameter) for parameter in network.backbone.parameters()}
    groups = [
        {"params": list(network.backbone.parameters()), "lr": settings.learning_rate * settings.backbone_rate},
        {"params": [p for p in network.parameters() if id(p) not in own], "lr": settings.learning_rate},
    ]
    return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)


def loss_terms(network: CctNetwork, batch: Mapping[str, Any], settings: CctSettings) -> dict[str, Tensor]:
    """The three losses of a step.

    Parameters
    ----------
    network
        In training mode.
    batch
        As `wsss_core.segment.semi_supervised.PairedBatches` makes it, with or without unlabelled images.

    Returns
    -------
    "loss"; with unlabelled images also its parts before their weights, "supervised", "consistency" and "weak".
    """
    time = batch["step"] / settings.iterations
    labelled, unlabelled = batch["labelled"], batch.get("unlabelled")
    logits = known_logits(network(network_input(labelled)), labelled["unknown"])
    supervised = supervised_loss(logits, labelled["labels"].long(), time, settings)
    if unlabelled is None:
        return {"loss": supervised}
    features = network.encode(network_input(unlabelled))
    consistency, weak = auxiliary_losses(network, features, unlabelled, settings)
    ramp = sigmoid_ramp(time / settings.ramp)
    loss = supervised + ramp * (settings.consistency_weight * consistency + settings.weak_weight * weak)
    return {"loss": loss, "supervised": supervised, "consistency": consistency, "weak": weak}


def auxiliary_losses(
    network: CctNetwork, features: Tensor, batch: Mapping[str, Tensor], settings: CctSettings
) -> tuple[Tensor, Tensor]:
    """Consistency with the main decoder and cross-entropy with pseudo-masks, means over the auxiliary decoders.

    Parameters
    ----------
    features
        Of unlabelled images, [B, D, h, w]. The main decoder sees them without gradients.
    batch
        Pseudo-masks "labels", [B, H, W], 255 ignored, and "unknown", bool [B, L], as for `known_logits`.
    """
    labels = batch["labels"].long()
    height, width = labels.shape[1:]
    with torch.no_grad():
        target = network.decoder(features).float().softmax(1)
    foreground = target.argmax(1) != 0
    consistency, weak = [], []
    for kind, decoder in zip(network.kinds, network.auxiliary, strict=True):
        logits = decoder(perturbed(kind, features, foreground, decoder, settings)).float()
        consistency.append(F.mse_loss(logits.softmax(1), target))
        if settings.weak_weight:
            weak.append(cross_entropy(known_logits(logits[..., :height, :width], batch["unknown"]), labels))
    return _mean(consistency, target), _mean(weak, target)


def perturbed(
    kind: str, features: Tensor, foreground: Tensor, decoder: Callable[[Tensor], Tensor], settings: CctSettings
) -> Tensor:
    """Features under the perturbation that a field of `DecoderSettings` names.

    Parameters
    ----------
    foreground
        Where the main decoder predicts an object, bool [B, H, W].
    decoder
        The auxiliary decoder that will see the features.
    """
    return {
        "dropout": partial(perturbations.dropout, features, settings.dropout),
        "feature_noise": partial(perturbations.feature_noise, features, settings.noise),
        "feature_dropout": partial(perturbations.feature_dropout, features, *settings.most_active),
        "guided_cut_out": partial(
            perturbations.guided_cut_out, features, foreground, settings.cut_out, settings.cut_out_points
        ),
        "context_masking": partial(perturbations.context_masking, features, foreground),
        "object_masking": partial(perturbations.object_masking, features, foreground),
        "adversarial_noise": partial(perturbations.adversarial_noise, features, decoder, settings.adversarial_length),
    }[kind]()


def supervised_loss(logits: Tensor, labels: Tensor, time: float, settings: CctSettings) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored, or over the hard ones among them; 0 if there are none.

    Parameters
    ----------
    logits, labels
        [B, L, H, W], and int64 [B, H, W] with 255 ignored.
    time
        Part of the training that is done.
    """
    if not settings.bootstrapped:
        return cross_entropy(logits.float(), labels)
    first = 1 / logits.shape[1]
    bound = first + (settings.bootstrapped_to - first) * logarithmic_ramp(time / settings.bootstrapped_ramp)
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    hard = (labels != IGNORE) & (losses.detach() > -math.log(bound))
    return (losses * hard).sum() / hard.sum().clamp_min(1)


def sigmoid_ramp(part: float) -> float:
    """``exp(-5 (1 - t)^2)``, from 0.0067 at 0 to 1 at 1 and beyond (Laine & Aila, ICLR 2017).

    Examples
    --------
    >>> [round(sigmoid_ramp(part), 4) for part in (0, 0.5, 1, 3)]
    [0.0067, 0.2865, 1.0, 1.0]
    """
    return math.exp(-5 * (1 - min(part, 1)) ** 2)


def logarithmic_ramp(part: float) -> float:
    """``1 - exp(-5 t)``, from 0 at 0 to 0.9933 at 1 and beyond.

    Examples
    --------
    >>> [round(logarithmic_ramp(part), 4) for part in (0, 0.5, 1, 3)]
    [0.0, 0.9179, 0.9933, 0.9933]
    """
    return 1 - math.exp(-5 * min(part, 1))


def _mean(terms: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(terms).mean() if terms else like.new_zeros(())
