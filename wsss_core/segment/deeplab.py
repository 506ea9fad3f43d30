"""Training of DeepLab-v2: settings, loss and optimiser.

The recipe that weakly supervised papers share without writing it down (DeepLab-v2 as in kazuto1011's
deeplab-pytorch, ImageNet weights; RIB, NeurIPS 2021, appendix).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.models.backbones import FixedBatchNorm
from wsss_core.models.deeplab import DeepLabV2, deeplab_v2
from wsss_core.settings import setting
from wsss_core.store.masks import IGNORE


@dataclass(frozen=True)
class DeepLabSettings:
    """Training of DeepLab-v2 on label masks; defaults as for VOC in the RIB paper."""

    backbone: Literal["resnet101", "resnet50", "mobilenet_v2", "vgg16", "small"] = setting(
        "resnet101", "backbone network"
    )
    weights: str | None = setting(
        None,
        "initial weights of the backbone: a file with torchvision's parameter names, 'classifier' for those of the "
        "upstream classifier, or null for random ones",
    )
    variant: Literal["paper", "official"] = setting(
        "paper",
        "form of the weights: paper: torchvision's ResNet; official: ResNet converted from Caffe as in deeplab-pytorch "
        "(stride in the first 1x1 convolution, BGR input)",
    )
    output_stride: Literal[8, 16] = setting(8, "pixels per cell of the feature grid")
    rates: tuple[int, ...] = setting(
        (6, 12, 18, 24), "dilations of the pyramid, in cells", minItems=1, items={"type": "integer", "minimum": 1}
    )
    msc_scales: tuple[float, ...] = setting(
        (0.5, 0.75),
        "input scales beside 1 whose logits are trained and maximised over; [] for one scale",
        items={"type": "number", "exclusiveMinimum": 0},
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
        items={"type": "number", "exclusiveMinimum": 0},
    )
    balanced: bool = setting(
        False, "balanced cross-entropy: the mean of (mean over foreground pixels) and (mean over background pixels)"
    )


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


def loss_terms(grids: Sequence[Tensor], labels: Tensor, balanced: bool = False) -> dict[str, Tensor]:
    """Sum over the logit grids of the cross-entropy with the labels reduced to each grid.

    Parameters
    ----------
    grids
        Logits [B, L, h, w], each at its own size.
    labels
        uint8 [B, H, W]; 255 is ignored. Reduced to the pixel at the centre of each cell (as Pillow's NEAREST).
    balanced
        See `cross_entropy`.

    Returns
    -------
    "loss", the sum, and "full", the term of the first grid.
    """
    reduced: dict[tuple[int, int], Tensor] = {}
    terms = []
    for logits in grids:
        size = tuple(logits.shape[2:])
        if size not in reduced:
            reduced[size] = F.interpolate(labels[:, None], size, mode="nearest-exact")[:, 0].long()
        terms.append(cross_entropy(logits.float(), reduced[size], balanced))
    return {"loss": torch.stack(terms).sum(), "full": terms[0]}


def cross_entropy(logits: Tensor, labels: Tensor, balanced: bool = False) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0 if all are.

    Balanced, the foreground F and the background G of the batch weigh the same whatever their areas (the balanced
    seeding loss of DSRG, Huang et al., CVPR 2018, halved so that its scale is that of the mean)::

        L = 1/2 (1/|F| sum over u in F of -log p(u, y_u)  +  1/|G| sum over u in G of -log p(u, 0))

    If one of the two is empty, the mean over the other is taken alone.

    Parameters
    ----------
    logits
        [B, L, h, w].
    labels
        int64 [B, h, w], 255 ignored.
    """
    if not balanced:
        total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
        return total / (labels != IGNORE).sum().clamp_min(1)
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    parts = [labels == 0, (labels != 0) & (labels != IGNORE)]
    means = [(losses * part).sum() / part.sum().clamp_min(1) for part in parts]
    return sum(means) / sum(part.any().to(losses.dtype) for part in parts).clamp_min(1)
