"""Mixup-CAM: a classifier of mixed images, held to confident scores and compact activation maps.

Chang, Wang, Hung, Piramuthu, Tsai & Yang, "Mixup-CAM: Weakly-supervised Semantic Segmentation via Uncertainty
Regularization", BMVC 2020 (chapter 2 of Chang's thesis). With two training images and a weight from Beta(α, α)::

    I' = λ I1 + (1 - λ) I2,    Y' = λ Y1 + (1 - λ) Y2                                                (2.2)
    L  = L_cls(Y', G(E(I'))) + λ_ent L_ent + λ_con L_con                                             (2.5)

No code was published, and the text leaves these open; here

* **pairs**: every image of a batch is mixed with the next one of the same batch, the last with the first. The order of
  a batch is random, so pairs are; no image meets itself unless the batch holds one. Every pair draws its own λ. A
  class that both images have keeps the label 1;
* **mixing** is done to normalised crops, which is the same as before normalising them; where an image does not reach,
  it has the mean colour;
* **L_cls** is the binary cross-entropy with the soft labels, the mean over images and classes (PSA's loss);
* **L_ent** (2.3): the text has probabilities of each cell, divided by "the maximum value" and passed through a softmax.
  Here these are the sigmoids of the logit maps, divided by the largest among the classes of the cell. As the softmax
  takes values in (0, 1], the entropy varies little: for 20 classes between 2.87 and log 20 = 3.00;
* **L_con** (2.4): the present classes of a mixed image are those of both images; a map is the positive part of its
  logit map, divided by its sum; h and w count cells of the feature grid, so the term grows with the square of the
  crop's side in cells. The text gives no unit; with cells, the published weight of 2e-4 makes it a small term;
* both terms are means over the images of the batch, and gradients pass through every part of them;
* **training**: Adam, its rate and its decay are published; the number of epochs, the batch size, the crop and the
  schedule are not, and are PSA's, whose augmentations the text names. The text's "two fully-connected layers" are one
  here, as the maps of (2.1) need.

The published λ_ent is 0.02; one of the text's studies of parameters fixes it at 0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core import keyed
from wsss_core.classify import bce
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.constants import EPSILON
from wsss_core.data.augment import tag_loss
from wsss_core.models import AnyBackboneName
from wsss_core.models.backbones import backbone
from wsss_core.models.cam import CamNetwork
from wsss_core.models.embedded import EmbeddedCamNetwork
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan, polynomial


@dataclass(frozen=True)
class MixupCamSettings(bce.ClassifierSettings):
    """Mixup-CAM; defaults as published for VOC, and as in PSA where nothing is published."""

    backbone: AnyBackboneName = setting("resnet38d", "backbone network")
    usual_epochs: ClassVar[int] = 15
    epochs: int | None = setting(
        None, "passes over the images; null: 15, or as many as take 100 steps where images are few", minimum=1
    )
    learning_rate: float = setting(1e-3, "of the backbone", exclusiveMinimum=0)
    classifier_rate: float = setting(
        1.0, "rate of the weights behind the backbone, as a multiple (with sgd, PSA has 10)", exclusiveMinimum=0
    )
    weight_decay: float = setting(5e-4, "weight decay", minimum=0)
    momentum: float = setting(
        5e-4,
        "momentum of sgd; adam has none. PSA's code passes the weight decay in its place, so it is not 0.9",
        minimum=0,
        exclusiveMaximum=1,
    )
    long_side: tuple[int, int] = setting(
        (256, 512),
        "range of the longer side that images are resized to, in pixels",
        ascending=True,
        items={"minimum": 1},
    )
    crop: int = setting(448, "side of the training crops in pixels", minimum=32)
    colour_jitter: tuple[float, float, float, float] | None = setting(
        (0.3, 0.3, 0.3, 0.1), "random changes of colour, as for the objective bce; null for none", items={"minimum": 0}
    )
    optimizer: Literal["adam", "sgd"] = setting("adam", "how weights are updated: adam as published, or sgd as in PSA")
    embedding: int | None = setting(
        512, "channels of the 3x3 convolution between backbone and classifier, or null for none", minimum=1
    )
    alpha: float = setting(0.2, "mixing weights follow Beta(alpha, alpha)", exclusiveMinimum=0)
    entropy_weight: float = setting(0.02, "weight of the class-wise entropy (lambda_ent)", minimum=0)
    concentration_weight: float = setting(2e-4, "weight of the maps' spatial spread (lambda_con)", minimum=0)


_OPTIMIZERS = {"adam": bce.adam, "sgd": bce.optimizer}


def plan(settings: MixupCamSettings, inputs: Inputs) -> Plan:
    """Training of a new network on mixed images of the role "train"."""
    network = EmbeddedCamNetwork(backbone(settings.backbone), len(inputs.class_names), settings.embedding)
    bce.prepare(network, settings, inputs.weights)
    batches = MixupBatches(bce.training_batches(settings, inputs), settings.alpha)
    rate = polynomial(len(batches), settings.power)
    return Plan(network, batches, loss(network, settings), _OPTIMIZERS[settings.optimizer](network, settings), rate)


class MixupBatches:
    """`ClassifierBatches` with every image and its labels mixed with those of the next one of its batch (Eq. 2.2).

    ``batches[k]`` is (images float32 [B, 3, S, S], labels float32 [B, C]) and depends on (seed, stage, k) alone.
    """

    def __init__(self, batches: ClassifierBatches, alpha: float) -> None:
        self.batches, self.alpha = batches, alpha

    def __len__(self) -> int:
        return len(self.batches)

    def batch_names(self, step: int) -> list[str]:
        """The images of a step."""
        return self.batches.batch_names(step)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        images, labels = self.batches[step]
        share = torch.from_numpy(self.shares(step))
        return mixed(images, share), mixed(labels, share)

    def shares(self, step: int) -> np.ndarray:
        """The weight of each image of a batch in its own mixture, float32 [B]."""
        rng = keyed.generator(self.batches.seed, self.batches.stage, "mixup", step)
        return rng.beta(self.alpha, self.alpha, self.batches.batch_size).astype(np.float32)


def mixed(values: Tensor, share: Tensor) -> Tensor:
    """share * values + (1 - share) * the next one's values, the first being next to the last.

    Parameters
    ----------
    values
        [B, ...].
    share
        [B], in 0..1.
    """
    return torch.lerp(values.roll(-1, 0), values, share.view(-1, *[1] * (values.ndim - 1)))


def loss(network: CamNetwork, settings: MixupCamSettings) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """From a batch (images [B, 3, S, S], soft labels [B, C]) to the loss (Eq. 2.5) and its terms without weights."""

    def terms(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        maps = network.maps(images).float()
        classification = tag_loss(maps.mean((2, 3)), labels)
        entropy = class_entropy(maps)
        spread = concentration(maps, labels > 0)
        total = classification + settings.entropy_weight * entropy + settings.concentration_weight * spread
        return {"loss": total, "classification": classification, "entropy": entropy, "concentration": spread}

    return terms


def class_entropy(maps: Tensor) -> Tensor:
    """Mean over images and cells of the entropy of the class scores, in nats (Eq. 2.3, see the module's documentation).

    Parameters
    ----------
    maps
        Logit maps [B, C, h, w].
    """
    scores = F.logsigmoid(maps)  # the quotient is formed here, as the sigmoids of very low logits are all 0
    logs = (scores - scores.amax(1, keepdim=True)).exp().log_softmax(1)
    return -(logs.exp() * logs).sum(1).mean()


def concentration(maps: Tensor, present: Tensor) -> Tensor:
    """Spread of the present classes' maps around their centres, in square cells: sum over classes, mean over images.

    The variance over cells of a place drawn with the probability M / sum M, M the positive part of the map
    (Eq. 2.4). A map without a positive cell has none.

    Parameters
    ----------
    maps
        Logit maps [B, C, h, w].
    present
        bool [B, C].
    """
    positive = maps.relu()
    mass = positive / (positive.sum((2, 3), keepdim=True) + EPSILON)
    rows = torch.arange(maps.shape[2], dtype=maps.dtype, device=maps.device)
    columns = torch.arange(maps.shape[3], dtype=maps.dtype, device=maps.device)
    spread = _variance(mass.sum(3), rows) + _variance(mass.sum(2), columns)
    return (spread * present).sum(1).mean()


def _variance(mass: Tensor, places: Tensor) -> Tensor:
    """Second moment around the centre of a mass [B, C, n] along an axis with the given places [n]: [B, C]."""
    centre = (mass * places).sum(-1, keepdim=True)
    return (mass * (places - centre).square()).sum(-1)
