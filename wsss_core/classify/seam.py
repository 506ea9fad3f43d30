"""SEAM: activation maps that agree between an image and its smaller copy, refined by the likeness of cells.

Wang, Zhang, Kan, Shan & Chen, "Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation", CVPR 2020. A siamese network sees an image (1) and a copy of 0.3 times its size (2). With the activation
maps M and the maps R that the pixel correlation module makes of them (`wsss_core.models.seam`), both stretched to 0..1,
without absent classes and brought to the size of the copy::

    L    = L_cls + L_min + L_ER + L_ECR
    L_ER  = mean |M_1 - M_2|
    L_ECR = hard |onehot(M_2) - R_1| + hard |onehot(M_1) - R_2|

where ``hard`` is the mean of an image's largest fifth, and ``onehot`` keeps at every pixel the strongest class and the
background. ``onehot(M)`` passes no gradient, and R none to the classifier and the backbone: these learn from L_cls and
L_ER, the correlation module from L_ECR and L_min.

This follows the authors' code, which enlarges all maps to the images' size first. It also has L_min, which holds down
the lower quarter of R; a comment there says that it moves the best threshold and not the best score. Its ``onehot(M)``
writes into M itself through ``.detach()``, which no loss reads afterwards; here no function changes its arguments, and
the losses are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wsss_core.classify import bce
from wsss_core.constants import EPSILON
from wsss_core.data.augment import tag_loss
from wsss_core.models import AnyBackboneName
from wsss_core.models.backbones import backbone
from wsss_core.models.seam import SeamNetwork, resize, strongest
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan, polynomial


@dataclass(frozen=True)
class SeamSettings(bce.ClassifierSettings):
    """SEAM; defaults as published for VOC."""

    backbone: AnyBackboneName = setting("resnet38d", "backbone network")
    usual_epochs: ClassVar[int] = 8
    epochs: int | None = setting(
        None, "passes over the images; null: 8, or as many as take 100 steps where images are few", minimum=1
    )
    batch_size: int = setting(8, "images a step", minimum=1)
    learning_rate: float = setting(0.01, "of the backbone", exclusiveMinimum=0)
    classifier_rate: float = setting(
        10.0, "rate of the classifier's and the correlation module's weights, as a multiple", exclusiveMinimum=0
    )
    weight_decay: float = setting(5e-4, "weight decay", minimum=0)
    momentum: float = setting(
        5e-4,
        "momentum of SGD; the published code passes the weight decay in its place, so it is not 0.9",
        minimum=0,
        exclusiveMaximum=1,
    )
    long_side: tuple[int, int] = setting(
        (448, 768),
        "range of the longer side that images are resized to, in pixels",
        ascending=True,
        items={"minimum": 1},
    )
    crop: int = setting(448, "side of the training crops in pixels", minimum=32)
    colour_jitter: tuple[float, float, float, float] | None = setting(
        (0.3, 0.3, 0.3, 0.1), "random changes of colour, as for the objective bce; null for none", items={"minimum": 0}
    )
    scale: float = setting(
        0.3, "side of the smaller copy, as a part of the crop's", exclusiveMinimum=0, exclusiveMaximum=1
    )
    minimum_weight: float = setting(
        1.0, "weight of the loss on the lower quarter of the refined maps (not in the paper: 0)", minimum=0
    )
    er_weight: float = setting(1.0, "weight of the equivariant regularisation (ER)", minimum=0)
    ecr_weight: float = setting(1.0, "weight of the equivariant cross regularisation (ECR)", minimum=0)
    hard_share: float = setting(
        0.2, "part of all differences, the largest of an image, that ECR counts", exclusiveMinimum=0, maximum=1
    )


def plan(settings: SeamSettings, inputs: Inputs) -> Plan:
    """Training of a new network on the images of the role "train"."""
    network = SeamNetwork(backbone(settings.backbone), len(inputs.class_names))
    bce.prepare(network, settings, inputs.weights)
    batches = bce.training_batches(settings, inputs)
    rate = polynomial(len(batches), settings.power)
    return Plan(network, batches, loss(network, settings), bce.optimizer(network, settings), rate)


def loss(network: SeamNetwork, settings: SeamSettings) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """From a batch (images [B, 3, S, S], labels [B, C]) to the loss and its four terms, without their weights."""

    def terms(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        reduced = resize(images, [max(1, int(side * settings.scale)) for side in images.shape[2:]])
        found = siamese_terms(View.of(network, images), View.of(network, reduced), labels, settings.hard_share)
        total = (
            found["classification"]
            + settings.minimum_weight * found["minimum"]
            + settings.er_weight * found["er"]
            + settings.ecr_weight * found["ecr"]
        )
        return {"loss": total, **found}

    return terms


@dataclass(frozen=True)
class View:
    """The maps of a batch at one size, enlarged to the images' size.

    Attributes
    ----------
    maps
        Logit maps [B, C, H, W].
    refined
        [B, C + 1, H, W] in 0..1, background first.
    """

    maps: Tensor
    refined: Tensor

    @classmethod
    def of(cls, network: SeamNetwork, images: Tensor) -> View:
        """The network's maps of images [B, 3, H, W]."""
        maps, refined = network.activations(images)
        return cls(resize(maps.float(), images.shape[2:]), resize(refined.float(), images.shape[2:]))


def siamese_terms(large: View, small: View, labels: Tensor, hard_share: float) -> dict[str, Tensor]:
    """The four terms of the loss, at the smaller size.

    Parameters
    ----------
    labels
        float32 [B, C], zeros and ones.
    hard_share
        See `hardest`.
    """
    views, size = (large, small), small.maps.shape[2:]
    present = labels.nan_to_num()[:, :, None, None]
    with_background = torch.cat([torch.ones_like(present[:, :1]), present], 1)
    maps = [resize(in_range(view.maps), size) * present for view in views]
    refined = [resize(in_range(view.refined), size) * with_background for view in views]
    targets = [strongest(m.detach()) for m in maps]
    none = labels.new_zeros(())
    return {
        "classification": sum((tag_loss(view.maps.mean((2, 3)), labels) for view in views), none) / 2,
        "minimum": sum((lower_quarter(view.refined[:, 1:] * present) for view in views), none) / 2,
        "er": (maps[0] - maps[1]).abs().mean(),
        "ecr": hardest(targets[1] - refined[0], hard_share) + hardest(targets[0] - refined[1], hard_share),
    }


def in_range(maps: Tensor) -> Tensor:
    """Positive parts minus their minimum, over their range, of each map [B, L, H, W]: in 0..1."""
    positive = maps.relu()
    least, most = positive.amin((2, 3), keepdim=True), positive.amax((2, 3), keepdim=True)
    return (positive - least - EPSILON).relu() / (most - least + EPSILON)


def hardest(differences: Tensor, share: float) -> Tensor:
    """Mean absolute value of the largest part `share` of the differences [B, L, H, W], chosen image by image."""
    values = differences.abs().flatten(1)
    return values.topk(max(1, int(share * values.shape[1])), dim=1).values.mean()


def lower_quarter(maps: Tensor) -> Tensor:
    """Mean over images of the smallest quarter of cells of the largest class's map, positive parts of [B, C, H, W]."""
    largest = maps.amax(1).flatten(1)
    return largest.topk(max(1, largest.shape[1] // 4), dim=1, largest=False).values.relu().mean()
