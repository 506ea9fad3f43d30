"""Training of classifiers: one file an objective.

A module of this package is an objective. It has ``SETTINGS``, its settings class (with at least ``backbone`` and
``weights``), and ``plan(settings, inputs) -> Plan``, which says all that the one training loop needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wsss_core.data.table import ImageTable
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
    """

    table: ImageTable
    weights: Mapping[str, Tensor] | None
    seed: int
    stage: str


@dataclass(frozen=True)
class Plan:
    """One training run, as `wsss_core.training.fit` takes it."""

    network: CamNetwork
    batches: Batches
    loss: Callable[[Any], dict[str, Tensor]]
    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]
