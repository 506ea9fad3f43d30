"""Training of AffinityNet from confident labels.

Ahn & Kwak, CVPR 2018, with the settings of the published code. Every pair of cells within a radius whose labels are
both known says whether their features must agree. Pairs are shifted views (`kernels.paths`).

The paper writes the affinity as exp(-||f_i - f_j||_1); the published code, and this one, take the mean over the 448
channels in place of the sum. With the published initial values the sum would make every affinity vanish.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from wsss_core.constants import EPSILON
from wsss_core.data.augment import normalise, random_colour_jitter, random_crop, random_flip
from wsss_core.errors import UserError
from wsss_core.kernels.paths import mean_differences, pair_kinds, rows
from wsss_core.models import AnyBackboneName
from wsss_core.models.affinity import STRIDE, AffinityNetwork
from wsss_core.refine.psa.labels import confident_labels
from wsss_core.refine.training import (
    SampleBatches,
    check_shares,
    labelled_images,
    network_on_backbone,
    survey,
)
from wsss_core.settings import setting
from wsss_core.store.posteriors import POSTERIORS, Posteriors
from wsss_core.training import Inputs, Plan, polynomial


@dataclass(frozen=True)
class TrainSettings:
    """Training of AffinityNet."""

    backbone: AnyBackboneName | None = setting(
        None, "backbone network (the paper uses resnet38d); null: the classifier's"
    )
    weights: str | None = setting(
        "classifier",
        "initial weights of the backbone: a file with published parameter names (the paper uses ImageNet weights), "
        "'classifier' for those of the upstream classifier, imagenet for those that torchvision publishes, or null for "
        "random ones",
    )
    radius: int = setting(5, "cells of stride 8 closer than this make a pair", minimum=2)
    crop: int = setting(448, "side of the training crops in pixels", minimum=8, multipleOf=8)
    batch_size: int = setting(8, "images a step", minimum=1)
    usual_epochs: ClassVar[int] = 8
    epochs: int | None = setting(
        None, "passes over the images; null: 8, or as many as take 100 steps where images are few", minimum=1
    )
    learning_rate: float = setting(
        0.1,
        "of the backbone's weights, twice that for its biases; falls as (1 - step / steps) ** 0.9 (SEAM 0.01)",
        minimum=0,
    )
    new_factor: float = setting(10.0, "learning rate of the new layers over that", minimum=0)
    weight_decay: float = setting(5e-4, "weight decay; none for biases", minimum=0)
    momentum: float = setting(
        5e-4,
        "momentum of SGD; the published code passes its weight decay in this place",
        minimum=0,
        exclusiveMaximum=1,
    )
    colour_jitter: tuple[float, float, float, float] | None = setting(
        (0.3, 0.3, 0.3, 0.1),
        "ranges of the random changes of brightness, contrast, saturation and hue; null: none",
        items={"minimum": 0},
    )


def plan(settings: TrainSettings, inputs: Inputs) -> Plan:
    """Training on the images of the role "train" and the labels that their posteriors give.

    Raises
    ------
    UserError
        If posteriors are missing or of another size, the labels hold no pair to learn from, the crops are smaller than
        the pairs, or the weights do not fit.
    """
    least = STRIDE * (2 * settings.radius - 1)
    if settings.crop < least:
        raise UserError(f"network.crop: {settings.crop} holds no pairs of radius {settings.radius}; at least {least}")
    files = inputs.label_files(POSTERIORS, "confident labels")
    counts, digest = survey(files, POSTERIORS, inputs.records, _cells)
    check_shares(counts, no_background="lower labels.alpha_high", no_foreground="raise labels.alpha_low")
    load = labelled_images(files, POSTERIORS, inputs.records)
    network = network_on_backbone(AffinityNetwork, settings, inputs)
    batches = SampleBatches.of(settings, inputs, lambda name, rng: affinity_sample(*load(name), settings, rng))

    def loss(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        return affinity_loss(network(images), labels, settings.radius)

    return Plan(network, batches, loss, optimizer(network, settings), polynomial(len(batches)), digest)


def _cells(posteriors: Posteriors) -> np.ndarray:
    """Labels of the cells of a whole image."""
    padding = [(0, 0), (0, 0), *((0, -side % STRIDE) for side in posteriors.size)]
    return confident_labels(np.pad(posteriors.values, padding), posteriors.classes, STRIDE)


def affinity_sample(
    image: np.ndarray, posteriors: Posteriors, settings: TrainSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Change colours, crop and flip at random; images are not rescaled.

    Image and posteriors are cropped together before the image is normalised, so that, as in the published code, crops
    beyond the image are black, not of the mean colour as elsewhere.

    Parameters
    ----------
    image
        uint8 [H, W, 3].

    Returns
    -------
    Normalised image float32 [3, S, S] and labels uint8 [S/8, S/8].
    """
    passes, labels, height, width = posteriors.values.shape
    if settings.colour_jitter is not None:
        image = random_colour_jitter(image, settings.colour_jitter, rng)
    planes = np.concatenate([image.transpose(2, 0, 1), posteriors.values.reshape(-1, height, width)])
    planes, _ = random_crop(planes, None, settings.crop, rng)
    planes, _ = random_flip(planes, None, rng)
    values = planes[3:].reshape(passes, labels, *planes.shape[1:])
    return normalise(planes[:3].transpose(1, 2, 0)), confident_labels(values, posteriors.classes, STRIDE)


def affinity_loss(features: Tensor, labels: Tensor, radius: int) -> dict[str, Tensor]:
    """The loss of AffinityNet; every mean runs over the pairs of the whole batch.

    Parameters
    ----------
    features
        [B, D, h, w].
    labels
        uint8 [B, h, w]: 0 background, 255 unknown, anything else a class.
    radius
        Pairs are closer than this many cells.

    Returns
    -------
    "loss" = background / 4 + foreground / 4 + different / 2, of the mean negative log-likelihoods of the affinities
    ``exp(-mean |f_i - f_j|)`` of pairs of background, of pairs of one class, and of different pairs.
    """
    affinities = [(-difference).exp() for difference in mean_differences(features.float(), radius)]
    names = ("background", "foreground", "different")
    counts = dict.fromkeys(names, torch.zeros((), dtype=torch.int64))
    sums = dict.fromkeys(names, torch.zeros(()))
    first = 0
    for row in rows(radius):
        affinity = torch.stack(affinities[first : first + row.count], dim=-2)
        first += row.count
        together = -(affinity + EPSILON).log()
        apart = -(1 + EPSILON - affinity).log()
        for name, selected in pair_kinds(labels, radius, row).items():
            counts[name] = counts[name] + selected.sum()
            sums[name] = sums[name] + (selected * (apart if name == "different" else together)).sum()
    means = {name: sums[name] / (counts[name] + EPSILON) for name in names}
    return {"loss": means["background"] / 4 + means["foreground"] / 4 + means["different"] / 2, **means}


def optimizer(network: AffinityNetwork, settings: TrainSettings) -> torch.optim.SGD:
    """SGD with the groups of PSA: backbone weights, backbone biases (rate x2, no decay), new layers (rate x10)."""
    rate, decay = settings.learning_rate, settings.weight_decay
    trained = [(name, p) for name, p in network.backbone.named_parameters() if p.requires_grad]
    new = network.new_parameters()
    groups = [
        {"params": [p for name, p in trained if not name.endswith("bias")], "lr": rate, "weight_decay": decay},
        {"params": [p for name, p in trained if name.endswith("bias")], "lr": 2 * rate, "weight_decay": 0.0},
        {"params": new, "lr": settings.new_factor * rate, "weight_decay": decay},
    ]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=rate, momentum=settings.momentum)
