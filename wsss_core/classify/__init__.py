"""Training of classifiers: one file an objective.

A module of this package is an objective. It has ``SETTINGS``, its settings class, and
``plan(settings, inputs) -> Plan``, which says all that the one training loop needs. An objective that starts from a
trained classifier has the edge ``init`` in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wsss_core.data.table import ImageRecord, ImageTable
    from wsss_core.models.cam import CamNetwork
    from wsss_core.training import Batches


@dataclass(frozen=True)
class Inputs:
    """What an objective works on.

    Attributes
    ----------
    table
        All images; those of the role "train" are trained on.
    weights
        Content of the weight file (torchvision's names), or None to start from random weights.
    seed, stage
        Key of the random draws.
    init
        The classifier that the stage's edge ``init`` names, in evaluation mode on its device; None without the edge.
    ood
        Images that hold none of the classes, for objectives that use them.
    once
        From a function that computes tensors of all images to these tensors. A training that is resumed gets those of
        its beginning, which matters where they number what was found.
    """

    table: ImageTable
    weights: Mapping[str, Tensor] | None
    seed: int
    stage: str
    init: CamNetwork | None = None
    ood: Sequence[ImageRecord] = ()
    once: Callable[[Callable[[], Mapping[str, Tensor]]], Mapping[str, Tensor]] = lambda compute: compute()


@dataclass(frozen=True)
class Plan:
    """One training run, as `wsss_core.training.fit` takes it."""

    network: CamNetwork
    batches: Batches
    loss: Callable[[Any], dict[str, Tensor]]
    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]
