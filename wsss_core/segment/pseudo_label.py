"""One network on true masks and pseudo-masks together, the pseudo-masks at a weight: the simple way to use both.

After Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks", ICML 2013
workshop, whose loss adds that of labelled images and a weighted one of pseudo-labelled images. Here the pseudo-labels
come from tags and not from the network itself. With CE the cross-entropy of DeepLab-v2, a mean over decided pixels::

    L = CE(labelled images, true masks) + w CE(unlabelled images, pseudo-masks)

Every step sees as many images of each kind, as in `wsss_core.segment.cct`, for which this is the baseline: there the
decoder that predicts never learns from a pseudo-mask. At w = 0 it is trained on the true masks alone, which may be
those of all images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from wsss_core.models.deeplab import DeepLabV2
from wsss_core.segment import deeplab_v2
from wsss_core.segment.deeplab import DeepLabSettings, batch_logits, plan_on
from wsss_core.segment.samples import checked
from wsss_core.segment.semi_supervised import PairedBatches, divided
from wsss_core.settings import setting
from wsss_core.store.shards import fingerprint
from wsss_core.training import Inputs, Plan


@dataclass(frozen=True)
class PseudoLabelSettings(DeepLabSettings):
    """Training of DeepLab-v2 on true masks and pseudo-masks."""

    batch_size: int = setting(10, "labelled images a step, and as many unlabelled ones", minimum=1)
    pseudo_weight: float = setting(
        0.4, "weight of the loss of pseudo-masks beside that of true masks; that of CCT's weak labels", minimum=0
    )


def plan(settings: PseudoLabelSettings, inputs: Inputs) -> Plan:
    """Training of a new network on true masks, and on the pseudo-masks of the other images."""
    images = divided(inputs, labelled_alone=not settings.pseudo_weight)
    unlabelled, digest = checked(images.unlabelled, inputs.class_names) if settings.pseudo_weight else ([], "")
    batches = PairedBatches(
        images.labelled,
        unlabelled,
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
        lambda network, batch: loss_terms(network, batch, settings.pseudo_weight),
        fingerprint([images.digest, digest]),
    )


def loss_terms(network: DeepLabV2, batch: Mapping[str, Any], pseudo_weight: float) -> dict[str, Tensor]:
    """Cross-entropy of both kinds of images, each added up over the input scales.

    Parameters
    ----------
    network
        In training mode.
    batch
        As `PairedBatches` makes it, with or without unlabelled images.

    Returns
    -------
    "loss"; with unlabelled images also its parts "labelled" and "pseudo".
    """
    labelled, *pseudo = (
        deeplab_v2.loss_terms(batch_logits(network, batch[kind]), batch[kind]["labels"])["loss"]
        for kind in ("labelled", "unlabelled")
        if kind in batch
    )
    if not pseudo:
        return {"loss": labelled}
    return {"loss": labelled + pseudo_weight * pseudo[0], "labelled": labelled, "pseudo": pseudo[0]}
