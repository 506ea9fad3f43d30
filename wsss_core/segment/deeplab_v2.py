"""Training of DeepLab-v2 with cross-entropy on label masks.

Chen et al., TPAMI 2017, as in kazuto1011's deeplab-pytorch: the cross-entropy at every input scale is added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.segment.deeplab import DeepLabSettings, reduced, training_plan
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan


@dataclass(frozen=True)
class DeepLabV2Settings(DeepLabSettings):
    """Training of DeepLab-v2 on label masks; defaults as for VOC in the RIB paper."""

    balanced: bool = setting(
        False, "balanced cross-entropy: the mean of (mean over foreground pixels) and (mean over background pixels)"
    )


def plan(settings: DeepLabV2Settings, inputs: Inputs) -> Plan:
    """Training of a new network on the masks."""
    return training_plan(settings, inputs, lambda grids, batch: loss_terms(grids, batch["labels"], settings.balanced))


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
    at_size = {size: reduced(labels, size) for size in {tuple(logits.shape[2:]) for logits in grids}}
    terms = [cross_entropy(logits.float(), at_size[tuple(logits.shape[2:])], balanced) for logits in grids]
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
    none = losses.new_zeros(())
    return sum(means, none) / sum((part.any().to(losses.dtype) for part in parts), none).clamp_min(1)
