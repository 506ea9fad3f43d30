"""A classifier with a 3x3 convolution between the backbone and the 1x1 classifier."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch import Tensor, nn

from wsss_core.models.backbones import Backbone
from wsss_core.models.cam import CamNetwork


class EmbeddedCamNetwork(CamNetwork):
    """`CamNetwork` whose features pass through a 3x3 convolution and a ReLU before they are classified.

    Chang's thesis (2020, sections 2.3.3 and 3.3.3) puts such a convolution with 512 channels behind ResNet-38. It does
    not mention a nonlinearity; the ReLU is our reading, as two linear layers in a row would be one. The convolution
    belongs to the features: activation maps, and methods that adapt the classifier to an image, see what it returns.

    Parameters
    ----------
    backbone
        Its last tap holds what the convolution takes.
    n_classes
        Number of foreground classes C.
    embedding
        Channels D of the convolution, or None for none: D is then that of the backbone.
    """

    architecture = "embedded_cam"

    def __init__(self, backbone: Backbone, n_classes: int, embedding: int | None = None) -> None:
        super().__init__(backbone, n_classes)
        width = embedding or backbone.out_channels
        self.embedding = _convolution(backbone.out_channels, width) if embedding else nn.Identity()
        self.classifier = head(width, n_classes)
        self._width = embedding

    @property
    def architecture_settings(self) -> dict[str, Any]:
        """Arguments of the constructor beside the backbone and the number of classes; plain values."""
        return {"embedding": self._width}

    def trunk(self, features: Tensor) -> Tensor:
        """The other stages and the convolution: output of `prefix` to features [B, D, h, w]."""
        return self.embedding(super().trunk(features))

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of `trunk`."""
        return chain(super().trunk_parameters(), self.embedding.parameters())


def head(channels: int, outputs: int) -> nn.Conv2d:
    """A classifier's 1x1 convolution without bias, Xavier-uniform at the start as in PSA and what is built on it."""
    convolution = nn.Conv2d(channels, outputs, 1, bias=False)
    nn.init.xavier_uniform_(convolution.weight)
    return convolution


def _convolution(channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(convolution.get_parameter("bias"))
    return nn.Sequential(convolution, nn.ReLU())
