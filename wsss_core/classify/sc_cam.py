"""SC-CAM: a classifier that also tells apart sub-categories, found by clustering another classifier's features.

Chang, Wang, Hung, Piramuthu, Tsai & Yang, "Weakly-Supervised Semantic Segmentation via Sub-category Exploration",
CVPR 2020 (chapter 3 of Chang's thesis, whose numbering of equations is used here). One stage is one round:

1. the classifier that ``init`` names gives every training image a feature, its pooled last tap; the features of the
   images of each class are clustered into K sub-categories (Eq. 3.2);
2. a new network learns classes and sub-categories together (Eq. 3.3), ``L = BCE(classes) + λ BCE(sub-categories)``.

The first round starts from an ordinary classifier and each further one from the round before. Where code and thesis
differ (`ScCamSettings.variant`):

==================  =====================================  ==============================================
\\                   official                               paper
==================  =====================================  ==============================================
optimiser           SGD whose momentum is in effect the    Adam
                    weight decay, 5e-4
rate                0.01, ten times that of the heads      1e-3
features            the backbone's                         those of a 3x3 convolution, 512 channels
a round starts      from ImageNet weights                  from the network before (Algorithm 1): its backbone,
                                                           3x3 convolution and head of classes
==================  =====================================  ==============================================

Algorithm 1 optimises one extractor E and one head H_p all the way, in turns with the clustering. The head of
sub-categories starts anew in every round, in both variants, as k-means numbers its groups anew. What the network
before does not have, such as the 3x3 convolution of an ordinary classifier in the first round, is new.

The thesis does not give the number of epochs, the batch size, the crop or any dropout; both variants do as the code
does. The code plans 61 epochs in every round, but uses the networks after 31, 41 and 51 epochs of the rounds 1, 2 and
3. Here the epochs behind those are not run: `ScCamSettings.epochs` are, while the rate falls as if training went on to
`ScCamSettings.schedule_epochs`, which gives the same weights.

Classes of few images: a class has at most as many sub-categories as images, fewer if images have equal features. The
outputs left over, and all those of a class without images, have the label 0 in every image. (The k-means that the
published code calls refuses fewer images than clusters.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from wsss_core import keyed
from wsss_core.classify import bce
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.data.augment import tag_loss
from wsss_core.errors import UserError
from wsss_core.models import AnyBackboneName
from wsss_core.models.backbones import backbone
from wsss_core.models.cam import CamNetwork, pooled_features
from wsss_core.models.sc_cam import ScCamNetwork
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan, enough_epochs, polynomial

log = logging.getLogger(__name__)

EPOCHS = (31, 41, 51)
"""Epochs of the first, second and third round that the published checkpoints have behind them."""


@dataclass(frozen=True)
class ScCamSettings(bce.ClassifierSettings):
    """One round of SC-CAM; defaults as published for VOC."""

    backbone: AnyBackboneName = setting(
        "resnet38d", "backbone network; that of `init` may be another (official), or must be the same (paper)"
    )
    weights: str | None = setting(
        None, "as for the objective bce (official); the variant paper goes on from the weights of `init`"
    )
    epochs: int | None = setting(
        None,
        "passes over the images; null: 31 in the first round, 41 in the second, 51 from the third on, or as many as "
        "take 100 steps where images are few",
        minimum=1,
    )
    learning_rate: float | None = setting(
        None, "of the backbone; null: 0.01 (official) or 1e-3 (paper)", exclusiveMinimum=0
    )
    classifier_rate: float | None = setting(
        None,
        "rate of the weights behind the backbone, as a multiple; null: 10 (official) or 1 (paper)",
        exclusiveMinimum=0,
    )
    weight_decay: float = setting(5e-4, "weight decay", minimum=0)
    momentum: float = setting(
        5e-4,
        "momentum of SGD (official); the published code passes the weight decay in its place, so it is not 0.9",
        minimum=0,
        exclusiveMaximum=1,
    )
    power: float = setting(0.9, "the rate falls as (1 - epoch / schedule_epochs) ** power", minimum=0)
    long_side: tuple[int, int] = setting(
        (256, 512),
        "range of the longer side that images are resized to, in pixels",
        ascending=True,
        items={"minimum": 1},
    )
    crop: int = setting(224, "side of the training crops in pixels", minimum=32)
    colour_jitter: tuple[float, float, float, float] | None = setting(
        (0.3, 0.3, 0.3, 0.1), "random changes of colour, as for the objective bce; null for none", items={"minimum": 0}
    )
    variant: Literal["official", "paper"] = setting(
        "official", "where the thesis and the published code differ, which to follow (see the module's documentation)"
    )
    schedule_epochs: int = setting(61, "epochs over which the rate falls to 0, at least `epochs`", minimum=1)
    clusters: int = setting(10, "sub-categories of a class (K)", minimum=1)
    subclass_weight: float = setting(5.0, "weight of the loss of the sub-categories (lambda)", minimum=0)
    dropout: float = setting(0.5, "share of the pooled features left out in training", minimum=0, exclusiveMaximum=1)


def plan(settings: ScCamSettings, inputs: Inputs) -> Plan:
    """One round: cluster the features of ``inputs.classifier``, then train a new network on classes and sub-categories.

    Raises
    ------
    UserError
        If the schedule is shorter than the training, or a round of the variant paper has another backbone than the
        network it goes on from.
    """
    before = inputs.classifier
    assert before is not None  # the registry demands it
    rounds = before.rounds + 1 if isinstance(before, ScCamNetwork) else 1
    resolved = _resolved(settings, rounds, len(inputs.records))
    network = ScCamNetwork(
        backbone(settings.backbone),
        len(inputs.class_names),
        512 if settings.variant == "paper" else None,
        settings.clusters,
        rounds,
    )
    if settings.variant == "paper":
        go_on_from(network, before, settings)
    else:
        bce.prepare(network, settings, inputs.weights)
    batches = bce.training_batches(resolved, inputs)

    def discovered() -> dict[str, Tensor]:
        features = pooled_features(before, batches.images)
        found = subclass_labels(features, batches.labels, settings.clusters, inputs.seed, inputs.stage)
        return {"sublabels": found.bool()}

    sublabels = inputs.once(discovered)["sublabels"].float()
    sublabels[batches.labels.isnan().repeat_interleave(settings.clusters, 1)] = torch.nan
    optimizer = {"official": bce.optimizer, "paper": bce.adam}[settings.variant](network, resolved)
    rate = polynomial(resolved.schedule_epochs * batches.steps_per_epoch, settings.power)
    return Plan(network, SubclassBatches(batches, sublabels), loss(network, settings), optimizer, rate)


def go_on_from(network: ScCamNetwork, before: CamNetwork, settings: ScCamSettings) -> None:
    """Give a new network the backbone of another, and its embedding and head of classes if it has such an embedding.

    Raises
    ------
    UserError
        If the backbones differ.
    """
    if network.backbone.name != before.backbone.name:
        raise UserError(
            f"backbone: {network.backbone.name}, but `init` names a classifier with {before.backbone.name}; a round of "
            "the variant paper goes on from its weights, so give both the same backbone"
        )
    if settings.weights is not None:
        log.info("weights: are not read, as the variant paper goes on from the weights of `init`")
    mine, theirs = network.state_dict(), before.state_dict()
    behind = [name for name in mine if name.startswith(("embedding.", "classifier."))]
    alike = all(name in theirs and theirs[name].shape == mine[name].shape for name in behind)
    kept = [name for name in mine if name.startswith("backbone.")] + behind * alike
    network.load_state_dict(mine | {name: theirs[name] for name in kept})
    network.freeze(settings.frozen_stages)


def _resolved(settings: ScCamSettings, rounds: int, images: int) -> ScCamSettings:
    """The settings with a number in place of every null that stands for one; few images stretch the whole schedule."""
    usual = settings.epochs or EPOCHS[min(rounds, len(EPOCHS)) - 1]
    if settings.schedule_epochs < usual:
        raise UserError(f"schedule_epochs: {settings.schedule_epochs}, but the training takes {usual} epochs")
    epochs = settings.epochs or enough_epochs(usual, images, settings.batch_size)
    rate, multiple = {"official": (0.01, 10.0), "paper": (1e-3, 1.0)}[settings.variant]
    return replace(
        settings,
        epochs=epochs,
        schedule_epochs=settings.schedule_epochs * epochs // usual,
        learning_rate=settings.learning_rate or rate,
        classifier_rate=settings.classifier_rate or multiple,
    )


class SubclassBatches:
    """`ClassifierBatches` with the sub-categories of the images.

    ``batches[k]`` is (images float32 [B, 3, S, S], labels float32 [B, C], sub-categories float32 [B, C * K]).
    """

    def __init__(self, batches: ClassifierBatches, sublabels: Tensor) -> None:
        self.batches, self.sublabels = batches, sublabels

    def __len__(self) -> int:
        return len(self.batches)

    def batch_names(self, step: int) -> list[str]:
        """The images of a step."""
        return self.batches.batch_names(step)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        return *self.batches[step], self.sublabels[self.batches.indices(step)]


def subclass_labels(features: np.ndarray, labels: Tensor, clusters: int, seed: int, stage: str) -> Tensor:
    """Cluster the images of each class (Eq. 3.2): k-means, the best of ten starts, at most 300 iterations.

    Parameters
    ----------
    features
        float32 [N, D]; distances are Euclidean, nothing is normalised.
    labels
        Zeros and ones [N, C].
    clusters
        Sub-categories K of a class; a class of fewer images gets as many as it has images.
    seed, stage
        Key of the starting centres. The published code starts every class from the seed 0.

    Returns
    -------
    float32 [N, C * K] of zeros and ones: one sub-category for each class of an image, at c * K + k.
    """
    found = torch.zeros(*labels.shape, clusters)
    for c in range(labels.shape[1]):
        members = torch.nonzero(labels[:, c] == 1)[:, 0].numpy()
        number = _distinct(features, members, clusters)
        if not number:
            continue
        start = keyed.integer(seed, stage, "clusters", c) % 2**32
        with threadpool_limits(1):  # sums over several threads come in any order
            assigned = KMeans(number, n_init=10, random_state=start).fit_predict(features[members])
        found[members, c, assigned] = 1.0
        log.info("class %d: %d images in %d sub-categories", c, len(members), number)
    return found.flatten(1)


def _distinct(features: np.ndarray, members: np.ndarray, most: int) -> int:
    """How many different features [N, D] some images have, counted up to `most`."""
    seen: set[bytes] = set()
    for index in members:
        seen.add((features[index] + 0.0).tobytes())  # -0.0 has other bytes than 0.0
        if len(seen) == most:
            break
    return len(seen)


def loss(network: ScCamNetwork, settings: ScCamSettings) -> Callable[[tuple[Tensor, ...]], dict[str, Tensor]]:
    """From a batch (images [B, 3, S, S], labels [B, C], sub-categories [B, C * K]) to the loss (Eq. 3.3) and its terms.

    Both terms are means over images and outputs. Dropout of a pooled feature is that of the feature's whole map, which
    the published code drops before pooling.
    """

    def terms(batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        images, labels, sublabels = batch
        pooled = network.features(images).mean((2, 3))
        pooled = F.dropout(pooled, settings.dropout, training=network.training)
        logits, sublogits = network.heads(pooled)
        classes = tag_loss(logits, labels)
        subclasses = tag_loss(sublogits, sublabels)
        total = classes + settings.subclass_weight * subclasses
        return {"loss": total, "classes": classes, "subclasses": subclasses}

    return terms
