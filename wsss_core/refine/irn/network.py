"""Training of the inter-pixel relation network from confident labels.

Ahn et al., CVPR 2019, with the settings of the published code. Every pair of pixels within a radius whose labels
are both known says whether a boundary must lie on the path between them, and what the difference of their
displacements must be. Pairs are shifted views (`kernels.paths`), so no index table and no array of pair labels
exists outside the loss.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from wsss_core.constants import EPSILON
from wsss_core.data.augment import normalise, random_crop, random_flip, random_rescale, top_left_crop
from wsss_core.errors import UserError
from wsss_core.kernels.paths import destinations, pair_kinds, path_maxima, rows, source
from wsss_core.models import AnyBackboneName
from wsss_core.models.irn import STRIDE, IrnNetwork
from wsss_core.refine.training import (
    SampleBatches,
    check_shares,
    labelled_images,
    network_on_backbone,
    survey,
)
from wsss_core.settings import setting
from wsss_core.store.labels import LABELS
from wsss_core.training import Inputs, Plan, polynomial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """Training of the inter-pixel relation network."""

    backbone: AnyBackboneName | None = setting(None, "frozen backbone network; null: the classifier's")
    weights: str | None = setting(
        "classifier",
        "weights of the backbone: a file with torchvision's parameter names (the paper uses ImageNet weights), "
        "'classifier' for those of the upstream classifier, imagenet for those that torchvision publishes, or null for "
        "random ones",
    )
    radius: int = setting(10, "pixels closer than this many cells of stride 4 make a pair", minimum=2)
    crop: int = setting(512, "side of the training crops in pixels", minimum=64, multipleOf=16)
    batch_size: int = setting(32, "images a step", minimum=1)
    usual_epochs: ClassVar[int] = 3
    epochs: int | None = setting(
        None, "passes over the images; null: 3, or as many as take 100 steps where images are few", minimum=1
    )
    learning_rate: float = setting(0.1, "of the boundary branch; falls as (1 - step / steps) ** 0.9", minimum=0)
    displacement_factor: float = setting(10.0, "learning rate of the displacement branch over that", minimum=0)
    weight_decay: float = setting(1e-4, "weight decay", minimum=0)
    momentum: float = setting(
        1e-4,
        "momentum of SGD; the published code passes its weight decay in this place",
        minimum=0,
        exclusiveMaximum=1,
    )
    scales: tuple[float, float] = setting(
        (0.5, 1.5), "range of the random rescaling", ascending=True, items={"exclusiveMinimum": 0}
    )


def plan(settings: TrainSettings, inputs: Inputs) -> Plan:
    """Training on the images of the role "train" and their confident labels, which end with the mean displacement.

    Raises
    ------
    UserError
        If labels are missing or wrong, they hold no pair to learn from, the crops are smaller than the pairs, or the
        weights do not fit.
    """
    least = 16 * (1 + (settings.radius - 1) // 2)
    if settings.crop < least:
        raise UserError(f"network.crop: {settings.crop} holds no pairs of radius {settings.radius}; at least {least}")
    records = inputs.records
    files = inputs.label_files(LABELS, "confident labels")
    counts, digest = survey(files, LABELS, records, lambda labels: labels.values)
    check_shares(counts, no_background="raise labels.background", no_foreground="lower labels.foreground")
    load = labelled_images(files, LABELS, records)

    def sample(image_id: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image, labels = load(image_id)
        return relation_sample(image, labels.values, settings, rng)

    network = network_on_backbone(IrnNetwork, settings, inputs)
    batches = SampleBatches.of(settings, inputs, sample)

    def loss(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        boundary_logits, displacements = network(images)
        return relation_loss(boundary_logits, displacements, labels, settings.radius)

    def finish() -> None:
        corners = (top_left_crop(normalise(load(record.id)[0]), None, settings.crop)[0] for record in records)
        estimate_mean_shift(network, _stacked(corners, batches.batch_size))

    return Plan(network, batches, loss, optimizer(network, settings), polynomial(len(batches)), digest, finish)


def relation_sample(
    image: np.ndarray, labels: np.ndarray, settings: TrainSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rescale, flip and crop at random.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    labels
        uint8 [H, W], 255 undecided.

    Returns
    -------
    Normalised image float32 [3, S, S] and labels uint8 [S/4, S/4].
    """
    image, labels = random_rescale(image, labels, *settings.scales, rng)
    image, labels = random_flip(normalise(image), labels, rng)
    image, labels = random_crop(image, labels, settings.crop, rng)
    return image, reduce_labels(labels)


def reduce_labels(labels: np.ndarray) -> np.ndarray:
    """Labels at stride 4: of every block of 4 x 4 the pixel (2, 2), as Pillow's NEAREST and ``nearest-exact`` do.

    Examples
    --------
    >>> reduce_labels(np.arange(64).reshape(8, 8)).tolist()
    [[18, 22], [50, 54]]
    """
    return np.ascontiguousarray(labels[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE])


def relation_loss(boundary_logits: Tensor, displacements: Tensor, labels: Tensor, radius: int) -> dict[str, Tensor]:
    """The four losses of IRN and their sum; every mean runs over the pairs of the whole batch.

    Parameters
    ----------
    boundary_logits
        [B, 1, h, w].
    displacements
        [B, 2, h, w] in cells, (dy, dx), without the mean shift.
    labels
        uint8 [B, h, w]: 0 background, 255 unknown, anything else a class.
    radius
        Pairs are closer than this many cells.

    Returns
    -------
    "loss" = (boundary + displacement) / 2, with "boundary" = (background + foreground) / 2 + different (mean
    negative log-likelihoods of the affinities of equal and of different pairs), and "displacement" (mean L1 errors of
    foreground pairs and of background pairs).
    """
    maxima = path_maxima(boundary_logits[:, 0].float().sigmoid(), radius)
    displacements = displacements.float()
    displacement_source = source(displacements, radius)[..., None, :]
    names = ("background", "foreground", "different")
    counts = dict.fromkeys(names, torch.zeros((), dtype=torch.int64))
    sums = dict.fromkeys((*names, "shift_background", "shift_foreground"), torch.zeros(()))
    first = 0
    for row in rows(radius):
        pairs = pair_kinds(labels, radius, row)
        strongest = torch.stack(maxima[first : first + row.count], dim=-2)
        first += row.count
        together = -(1 - strongest + EPSILON).log()
        apart = -(strongest + EPSILON).log()
        difference = displacement_source - destinations(displacements, radius, row)
        offset = torch.zeros(2, 1, row.count, 1, device=difference.device)
        offset[0] = row.dy
        offset[1, 0, :, 0] = torch.arange(row.first, row.first + row.count)
        for name, selected in pairs.items():
            counts[name] = counts[name] + selected.sum()
            sums[name] = sums[name] + (selected * (apart if name == "different" else together)).sum()
        for name, target in (("background", 0), ("foreground", offset)):
            error = (difference - target).abs()
            sums[f"shift_{name}"] = sums[f"shift_{name}"] + (error * pairs[name][:, None]).sum()
    means = {name: sums[name] / (counts[name] + EPSILON) for name in names}
    shifts = {name: sums[f"shift_{name}"] / (2 * counts[name] + EPSILON) for name in ("background", "foreground")}
    boundary = (means["background"] + means["foreground"]) / 2 + means["different"]
    displacement = shifts["background"] + shifts["foreground"]
    return {"loss": (boundary + displacement) / 2, "boundary": boundary, "displacement": displacement}


def optimizer(network: IrnNetwork, settings: TrainSettings) -> torch.optim.SGD:
    """SGD with the boundary branch at the learning rate and the displacement branch at a multiple of it."""
    groups = [
        {"params": list(network.edge_parameters()), "lr": settings.learning_rate},
        {
            "params": list(network.displacement_parameters()),
            "lr": settings.learning_rate * settings.displacement_factor,
        },
    ]
    return torch.optim.SGD(
        groups, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _stacked(images: Iterable[np.ndarray], count: int) -> Iterator[Tensor]:
    """Batches of `count` images; what does not fill one is left out, as in the published code."""
    waiting: list[np.ndarray] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == count:
            yield torch.from_numpy(np.stack(waiting))
            waiting = []


@torch.no_grad()
def estimate_mean_shift(network: IrnNetwork, batches: Iterable[Tensor]) -> None:
    """Store the mean displacement, over batches of normalised images [B, 3, S, S], padding included.

    The displacement loss only sees differences, so the field's mean is arbitrary; in evaluation mode it is removed.
    """
    network.eval()
    network.mean_shift.zero_()
    means = [network(batch.to(network.mean_shift.device))[1].mean((0, 2, 3)) for batch in batches]
    network.mean_shift.copy_(torch.stack(means).mean(0))
