"""The network of SC-CAM: a classifier of parent classes and one of their sub-categories, on the same features."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wsss_core.models.backbones import Backbone
from wsss_core.models.embedded import EmbeddedCamNetwork, head


class ScCamNetwork(EmbeddedCamNetwork):
    """`EmbeddedCamNetwork` with a second head (Chang et al., CVPR 2020).

    Activation maps come from the parents' head, ``classifier``, as in every other classifier.

    Parameters
    ----------
    backbone, n_classes, embedding
        As for `EmbeddedCamNetwork`.
    clusters
        Sub-categories K of a class. Sub-category k of class c is output c * K + k of the second head.
    rounds
        How many rounds of clustering and training lead to this network, its own included.

    Attributes
    ----------
    subclassifier
        1x1 convolution [C * K, D, 1, 1] without bias.
    """

    architecture = "sc_cam"

    def __init__(
        self, backbone: Backbone, n_classes: int, embedding: int | None = None, clusters: int = 10, rounds: int = 1
    ) -> None:
        super().__init__(backbone, n_classes, embedding)
        self.subclassifier = head(self.classifier.in_channels, n_classes * clusters)
        self.rounds = rounds

    @property
    def clusters(self) -> int:
        """Sub-categories K of a class."""
        return self.subclassifier.out_channels // self.n_classes

    @property
    def architecture_settings(self) -> dict[str, Any]:
        """Arguments of the constructor beside the backbone and the number of classes; plain values."""
        return super().architecture_settings | {"clusters": self.clusters, "rounds": self.rounds}

    def heads(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of classes [B, C] and of sub-categories [B, C * K], from pooled features [B, D]."""
        cells = pooled[:, :, None, None]
        return self.classifier(cells).flatten(1), self.subclassifier(cells).flatten(1)
