"""The classifier that class activation maps are read from: a backbone and a 1x1 convolution without bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.data.augment import normalise
from wsss_core.errors import UserError
from wsss_core.models.backbones import Backbone, BackboneNetwork


def _without_autocast(device: torch.device) -> AbstractContextManager:
    """Context without autocast, which some devices, such as "meta", do not know at all."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


class CamNetwork(BackboneNetwork):
    """Multi-label classifier with class activation maps (Zhou et al., CVPR 2016; as in IRN).

    ``forward`` pools the features and then classifies; `maps` applies the same weights to every cell.

    Parameters
    ----------
    backbone
        Its last tap holds the features.
    n_classes
        Number of foreground classes C.

    Attributes
    ----------
    classifier
        1x1 convolution [C, D, 1, 1] without bias.
    class_names
        Names of the foreground classes where the network was read from a checkpoint, otherwise empty.
    architecture
        Name in `wsss_core.registry.ARCHITECTURES`.
    """

    kind = "classifier"
    architecture = "cam"

    def __init__(self, backbone: Backbone, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Conv2d(backbone.out_channels, n_classes, 1, bias=False)
        self.class_names: tuple[str, ...] = ()
        self.freeze()

    @property
    def n_classes(self) -> int:
        """Number of foreground classes C."""
        return self.classifier.out_channels

    @property
    def stride(self) -> int:
        """Pixels between the cells of the features and maps."""
        return self.backbone.strides[-1]

    @property
    def architecture_settings(self) -> dict[str, Any]:
        """Arguments of the constructor beside the backbone and the number of classes; plain values."""
        return {}

    @property
    def about(self) -> dict[str, Any]:
        """Backbone, architecture and its settings, for `wsss_core.models.restore_classifier`."""
        mine = {"architecture": self.architecture, "architecture_settings": self.architecture_settings}
        return super().about | mine

    def prefix(self, images: Tensor) -> Tensor:
        """Stages before ``backbone.adapted_from``: images [B, 3, H, W] to what `trunk` takes."""
        for stage in self.backbone.stages[: self.backbone.adapted_from]:
            images = stage(images)
        return images

    def trunk(self, features: Tensor) -> Tensor:
        """The other stages: output of `prefix` to features [B, D, h, w]."""
        for stage in self.backbone.stages[self.backbone.adapted_from :]:
            features = stage(features)
        return features

    def features(self, images: Tensor) -> Tensor:
        """Features [B, D, ceil(H / stride), ceil(W / stride)] of normalised images [B, 3, H, W]."""
        return self.trunk(self.prefix(images))

    def classify(self, features: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        """Logit maps [B, K, h, w] of features [B, D, h, w], for the given classes or for all; float32 always."""
        weight = self.classifier.weight
        if classes is not None:  # not by a list of indices, which a GPU would have to wait for
            weight = torch.cat([weight[c : c + 1] for c in classes])
        with _without_autocast(features.device):
            return F.conv2d(features.to(weight.dtype), weight)

    def maps(self, images: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        """Logit maps [B, K, h, w], any sign, for the given classes or for all."""
        return self.classify(self.features(images), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]."""
        pooled = self.features(images).mean((2, 3), keepdim=True)
        return self.classifier(pooled).flatten(1)

    def freeze(self, stages: int | None = None) -> None:
        """Let training change all but the first `stages` stages (default: the backbone's ``frozen``)."""
        frozen = self.backbone.frozen if stages is None else stages
        self.requires_grad_(True)
        self.backbone.stages[:frozen].requires_grad_(False)

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of `trunk`."""
        return self.backbone.stages[self.backbone.adapted_from :].parameters()

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the backbone from torchvision's names; UserError naming what does not fit."""
        self.backbone.load(state)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load all parameters, from `state_dict` of such a network or from torchvision's names.

        Raises
        ------
        UserError
            If names or shapes do not fit.
        """
        if any(name.startswith("backbone.") for name in state):
            try:
                self.load_state_dict(state)
            except RuntimeError as error:
                raise UserError(f"the weights do not fit the classifier: {error}") from error
            return
        weight = state.get("classifier.weight")
        expected = tuple(self.classifier.weight.shape)
        if weight is None or tuple(weight.shape) != expected:
            found = "missing" if weight is None else f"{tuple(weight.shape)}"
            raise UserError(f"the weights do not fit the classifier: classifier.weight is {found}, expected {expected}")
        self.load_backbone(state)
        with torch.no_grad():
            self.classifier.weight.copy_(weight)


@torch.no_grad()
def pooled_features(network: CamNetwork, images: Sequence[np.ndarray]) -> np.ndarray:
    """Features of whole images, as they are, pooled over the cells.

    Parameters
    ----------
    network
        In evaluation mode; images pass through it on its device, one by one, as their sizes differ.
    images
        N images, uint8 [H, W, 3], RGB.

    Returns
    -------
    float32 [N, D].
    """
    device = network.classifier.weight.device
    features = np.empty((len(images), network.classifier.in_channels), np.float32)
    for row, image in zip(features, images, strict=True):
        pixels = torch.from_numpy(normalise(image))[None].to(device)
        row[:] = network.features(pixels).mean((2, 3))[0].cpu().numpy()
    return features
