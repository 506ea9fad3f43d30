"""Segmentation networks: training, one file an objective, and prediction.

An objective is a module of this package with the name that a stage's key ``network`` takes. It has ``SETTINGS``, its
settings class (a `wsss_core.segment.deeplab.DeepLabSettings` with settings of its own), and
``plan(settings, inputs) -> Plan``, which says all that the one training loop needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wsss_core.models.cam import CamNetwork
    from wsss_core.models.deeplab import DeepLabV2
    from wsss_core.segment.batches import Sample
    from wsss_core.training import Batches


@dataclass(frozen=True)
class Inputs:
    """What an objective works on.

    Attributes
    ----------
    samples
        The images to train on with their label masks.
    class_names
        Names of the foreground classes; label c + 1 is class c.
    weights
        Content of the weight file that the settings name, or None.
    seed, stage
        Key of the random draws.
    classifier
        The classifier upstream of the masks where the settings ask for its weights, otherwise None.
    """

    samples: Sequence[Sample]
    class_names: tuple[str, ...]
    weights: Mapping[str, Tensor] | None
    seed: int
    stage: str
    classifier: CamNetwork | None = None

    @property
    def n_labels(self) -> int:
        """Number of labels L with background."""
        return len(self.class_names) + 1


@dataclass(frozen=True)
class Plan:
    """One training run, as `wsss_core.training.fit` takes it."""

    network: DeepLabV2
    batches: Batches
    loss: Callable[[Any], dict[str, Tensor]]
    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]
