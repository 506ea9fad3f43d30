"""W-OoD: learn from photos of none of the classes what is background, although it looks like a class.

Lee et al., "Weakly Supervised Semantic Segmentation using Out-of-Distribution Data", CVPR 2022 (Lee's dissertation,
chapter 4). A trained classifier goes on training on its images and on hard out-of-distribution (OoD) photos: these get
no class, and features of images are drawn to the centres of their classes and pushed from the nearest centres of K
groups of OoD photos::

    L   = L_cls + lambda L_d                                              (Eq. 4.4)
    L_d = sum_{c in tags} |z - p_c| - sum_{k in nearest tau} |z - q_k|    (Eq. 4.2)

with z the pooled features, p_c the mean over the images of class c, q_k the centre of a K-means group; all centres
are those of the initial network. The published code and the paper differ, and both are here
(`WOodSettings.variant`):

=====================  ==========================================  =====================================
\\                      official                                    paper
=====================  ==========================================  =====================================
L_d of B images        both sums over the batch, divided by B K    mean over images of the sums
nearest                the tau B K smallest of all distances of    the tau K nearest centres of every
                       the batch together                          image
OoD photos             climb the logit of their best class by      as they are
                       one step first (as in AdvCAM)
their cross-entropy    weight 0.25; photos whose best class is     weight 1 (Eq. 4.3)
                       one named class (bottle) do not count
=====================  ==========================================  =====================================

The paper writes L_d for one image; its mean over a batch is our reading. Beside it the official one is smaller by a
factor of K, 50, at the same lambda. The published code also measures seeds against the true masks of training images
during the last quarter of the last epoch, and keeps the best checkpoint. That is a leak of ground truth and is not
here: the last weights are the result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core import keyed
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.classify.bce import optimizer
from wsss_core.classify.out_of_distribution import network_input, require_photos, require_plain
from wsss_core.data.augment import tag_loss, training_crop
from wsss_core.data.decoded import Decoded, read_record
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models import cam_network
from wsss_core.models.cam import CamNetwork
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan, enough_epochs, polynomial

log = logging.getLogger(__name__)

TINY = 1e-12
"""Added to a denominator, as in the published code."""


@dataclass(frozen=True)
class WOodSettings:
    """W-OoD; defaults as published for VOC with ResNet-50. The network and its weights are those of `init`."""

    variant: Literal["official", "paper"] = setting(
        "official", "where the paper and its published code differ, which to follow (see the module's documentation)"
    )
    distance_weight: float = setting(0.007, "weight of the distances (lambda); 0 for none", minimum=0)
    nearest: float = setting(
        0.2, "fraction of the distances to groups that is enlarged, the smallest (tau)", exclusiveMinimum=0, maximum=1
    )
    clusters: int = setting(50, "groups of OoD photos (K); at most as many as photos", minimum=1)
    cluster_iterations: int = setting(10, "iterations of K-means", minimum=1)
    cluster_long: int | None = setting(
        500, "longer side of OoD photos where groups are formed, in pixels; null: as they are", minimum=32
    )
    ood_weight: float | None = setting(
        None, "weight of the OoD photos' cross-entropy; null: 0.25 (official) or 1 (paper)", minimum=0
    )
    ood_batch_size: int = setting(16, "OoD photos a step", minimum=1)
    climb_step: float = setting(
        0.07,
        "official: length of the climbing step of OoD photos, in units of the normalised image, along the gradient "
        "divided by the batch's largest entry; 0 for none",
        minimum=0,
    )
    excluded: str | None = setting(
        None,
        "official: class whose look-alikes do not count in the OoD photos' cross-entropy; the published code excludes "
        "bottle, without a reason given",
    )
    frozen_stages: int | None = setting(
        None,
        "leading stages of the backbone that keep the weights of `init`, of 5; null: the backbone's own number",
        minimum=0,
        maximum=5,
    )
    epochs: int | None = setting(
        None, "passes over the images; null: 5, or as many as take 100 steps where images are few", minimum=1
    )
    batch_size: int = setting(16, "images a step", minimum=1)
    learning_rate: float = setting(0.1, "of the backbone", exclusiveMinimum=0)
    classifier_rate: float = setting(10.0, "rate of the classifier's weights, as a multiple", exclusiveMinimum=0)
    weight_decay: float = setting(1e-4, "weight decay", minimum=0)
    momentum: float = setting(
        1e-4,
        "momentum of SGD; the published code passes its weight decay in this place",
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


def plan(settings: WOodSettings, inputs: Inputs) -> Plan:
    """Further training of a copy of ``inputs.classifier``.

    Raises
    ------
    UserError
        If there are no OoD photos, `init` is not a plain classifier, or `excluded` is not a class.
    """
    require_photos(inputs.ood)
    before = inputs.classifier
    assert before is not None  # the registry demands it
    require_plain(before)
    names = inputs.class_names
    if settings.excluded is not None and settings.excluded not in names:
        raise UserError(f"excluded: there is no class {settings.excluded!r}; allowed: {', '.join(names)}")
    records = inputs.records
    network = cam_network(before.backbone.name, before.n_classes, before.state_dict())
    network.freeze(settings.frozen_stages)
    batches = WOodBatches(
        ClassifierBatches(
            records,
            network.n_classes,
            epochs=settings.epochs or enough_epochs(5, len(records), settings.batch_size),
            batch_size=settings.batch_size,
            long_side=settings.long_side,
            crop=settings.crop,
            seed=inputs.seed,
            stage=inputs.stage,
        ),
        inputs.ood,
        settings,
        seed=inputs.seed,
        stage=inputs.stage,
    )
    excluded = None if settings.excluded is None else names.index(settings.excluded)
    found = inputs.once(lambda: vars(centres(before, records, inputs.ood, settings)))
    device = before.classifier.weight.device
    terms = loss(network, Centres(**{name: value.to(device) for name, value in found.items()}), settings, excluded)
    return Plan(network, batches, terms, optimizer(network, settings), polynomial(len(batches), settings.power))


class WOodBatches:
    """``batches[k]`` is (images [B, 3, S, S], labels [B, C], OoD photos [B', 3, S, S]), a function of (seed, stage, k).

    The photos are gone through again and again, each time in another order, whatever their number.
    """

    def __init__(
        self,
        batches: ClassifierBatches,
        photos: Sequence[ImageRecord],
        settings: WOodSettings,
        *,
        seed: int,
        stage: str,
    ) -> None:
        self.batches, self.settings, self.seed, self.stage = batches, settings, seed, stage
        self.photos = Decoded(photos, read_record)

    def __len__(self) -> int:
        return len(self.batches)

    def batch_names(self, step: int) -> list[str]:
        """The images of a step."""
        return self.batches.batch_names(step)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        images, labels = self.batches[step]
        rng = keyed.generator(self.seed, self.stage, "ood batch", step)
        long_side, crop = self.settings.long_side, self.settings.crop
        crops = [training_crop(self.photos[i], long_side, crop, rng) for i in self.photo_indices(step)]
        return images, labels, torch.from_numpy(np.stack(crops))

    def photo_indices(self, step: int) -> list[int]:
        """Which photos go with a step."""
        size = self.settings.ood_batch_size
        places = [divmod(step * size + place, len(self.photos)) for place in range(size)]
        orders = {turn: self._order(turn) for turn, _ in places}
        return [int(orders[turn][place]) for turn, place in places]

    def _order(self, turn: int) -> np.ndarray:
        return keyed.generator(self.seed, self.stage, "ood epoch", turn).permutation(len(self.photos))


@dataclass(frozen=True)
class Centres:
    """Where features are drawn to and pushed from.

    Attributes
    ----------
    classes
        Mean features of the images of each class, [C, D]; zeros for a class without images.
    groups
        Mean features of the groups of OoD photos, [K, D].
    """

    classes: Tensor
    groups: Tensor


def centres(
    network: CamNetwork, records: Sequence[ImageRecord], photos: Sequence[ImageRecord], settings: WOodSettings
) -> Centres:
    """The centres, float32 on the network's device; features of images at their own size, one at a time.

    Features are grouped in float64 on the CPU, so that the same features give the same groups.
    """
    log.info("features of %d images and %d OoD photos", len(records), len(photos))
    labels = [record.classes for record in records]
    classes = class_centres(_pooled(network, records, None), labels, network.n_classes)
    groups = group_centres(
        _pooled(network, photos, settings.cluster_long), settings.clusters, settings.cluster_iterations
    )
    device = network.classifier.weight.device
    return Centres(classes.float().to(device), groups.float().to(device))


@torch.no_grad()
def _pooled(network: CamNetwork, records: Iterable[ImageRecord], long_side: int | None) -> Tensor:
    """Pooled features of images, float64 [N, D] on the CPU."""
    found = [embed(network, network_input(network, read_record(record), long_side))[0][0].cpu() for record in records]
    return torch.stack(found).double()


def embed(network: CamNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features [B, D] and logits [B, C] of images [B, 3, H, W]."""
    pooled = network.features(images).mean((2, 3), keepdim=True)
    return pooled.flatten(1), network.classifier(pooled).flatten(1)


def class_centres(features: Tensor, labels: Sequence[Sequence[int]], n_classes: int) -> Tensor:
    """Mean of the features [N, D] of the images that hold each class: [C, D]; an image counts in all its classes."""
    members = [[n for n, present in enumerate(labels) if c in present] for c in range(n_classes)]
    empty = torch.zeros_like(features[0])
    return torch.stack([features[chosen].mean(0) if chosen else empty for chosen in members])


def group_centres(features: Tensor, k: int, iterations: int) -> Tensor:
    """Centres of K-means groups by Lloyd's algorithm, starting from the first K features.

    A group that runs empty is dropped, so fewer than K may be left; the published code keeps it as a zero vector that
    is counted in K but takes no part. With fewer than K features, each is a group of its own.

    Parameters
    ----------
    features
        [N, D].

    Returns
    -------
    [K, D] or fewer rows.
    """
    if len(features) < k:
        log.warning("clusters: %d groups asked for, but only %d OoD photos: K is limited to that", k, len(features))
    found = features[:k]
    for _ in range(iterations):
        nearest = torch.cdist(features, found, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        found = torch.stack([features[nearest == group].mean(0) for group in nearest.unique()])
    if len(found) < min(k, len(features)):
        log.info("%d of %d groups are left, the others ran empty", len(found), min(k, len(features)))
    return found


def loss(
    network: CamNetwork, centres: Centres, settings: WOodSettings, excluded: int | None
) -> Callable[[tuple[Tensor, Tensor, Tensor]], dict[str, Tensor]]:
    """From a batch of `WOodBatches` to the loss and its three terms, not weighted.

    Parameters
    ----------
    excluded
        Class whose look-alikes do not count (official).
    """
    distance_loss, ood_loss, usual_weight = {
        "official": (
            official_distance,
            partial(official_ood, network, climb_step=settings.climb_step, excluded=excluded),
            0.25,
        ),
        "paper": (paper_distance, partial(paper_ood, network), 1.0),
    }[settings.variant]
    ood_weight = usual_weight if settings.ood_weight is None else settings.ood_weight

    def terms(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels, photos = batch
        features, logits = embed(network, images)
        to_classes, to_groups = distances(features, centres.classes), distances(features, centres.groups)
        found = {
            "classification": tag_loss(logits, labels),
            "distance": distance_loss(to_classes, to_groups, labels.nan_to_num(), settings.nearest),
            "ood": ood_loss(photos),
        }
        total = found["classification"] + settings.distance_weight * found["distance"] + ood_weight * found["ood"]
        return {"loss": total, **found}

    return terms


def distances(features: Tensor, centres: Tensor) -> Tensor:
    """Euclidean distances [B, K] of features [B, D] to centres [K, D], float32; their gradient at 0 is 0."""
    return torch.linalg.vector_norm(features.float()[:, None] - centres, dim=-1)


def official_distance(to_classes: Tensor, to_groups: Tensor, labels: Tensor, nearest: float) -> Tensor:
    """L_d of the published code: distances to own classes minus the batch's smallest to groups, over B K.

    Parameters
    ----------
    to_classes, to_groups
        Distances [B, C] and [B, K].
    labels
        [B, C] of zeros and ones.
    nearest
        Fraction tau; distances below the smallest of the largest (1 - tau) B K count.
    """
    count = int(to_groups.numel() * (1 - nearest))
    least = to_groups.detach().flatten().topk(count).values[-1] if count else torch.inf
    return ((to_classes * labels).sum() - (to_groups * (to_groups.detach() < least)).sum()) / to_groups.numel()


def paper_distance(to_classes: Tensor, to_groups: Tensor, labels: Tensor, nearest: float) -> Tensor:
    """L_d of Eq. 4.2, averaged over the images: every image has its own round(tau K) nearest groups, at least one.

    Parameters
    ----------
    to_classes, to_groups
        Distances [B, C] and [B, K].
    labels
        [B, C] of zeros and ones.
    """
    count = max(1, round(nearest * to_groups.shape[1]))
    pushed = to_groups.topk(count, dim=1, largest=False).values
    return ((to_classes * labels).sum(1) - pushed.sum(1)).mean()


def official_ood(network: CamNetwork, photos: Tensor, climb_step: float, excluded: int | None) -> Tensor:
    """Cross-entropy of photos [B, 3, S, S] against no class, after a climbing step; excluded ones count as 0."""
    logits = network(climbed(network, photos, climb_step))
    each = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none").mean(1)
    return each.mean() if excluded is None else (each * (logits.detach().argmax(1) != excluded)).mean()


def paper_ood(network: CamNetwork, photos: Tensor) -> Tensor:
    """Cross-entropy of photos [B, 3, S, S] against no class (Eq. 4.3)."""
    logits = network(photos)
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def climbed(network: CamNetwork, photos: Tensor, size: float) -> Tensor:
    """Photos [B, 3, S, S] after a step that raises the logit of each one's best class, within the batch's range.

    The step is `size` times the gradient divided by its largest entry in the whole batch. Weights get no gradient.
    """
    if size == 0:
        return photos
    with torch.enable_grad():
        photos = photos.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(network(photos).amax(1).sum(), photos)
    photos = photos.detach()
    return (photos + size * slope / (slope.abs().max() + TINY)).clamp(photos.min(), photos.max())
