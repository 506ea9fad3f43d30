"""The classifier of the toy experiment and its gradient maps (RIB, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LAYERS = 6
"""Five convolutions and the logit."""


class ToyNetwork(nn.Module):
    """Five 3x3 convolutions with ReLU, the second and fourth of stride 2; mean over cells; a linear layer without bias.

    Parameters
    ----------
    channels
        Of the five convolutions.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 32, 64, 64), n_classes: int = 2) -> None:
        super().__init__()
        strides = (1, 2, 1, 2, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride, padding=1)
            for before, after, stride in zip((1, *channels), channels, strides, strict=False)
        )
        self.classifier = nn.Linear(channels[-1], n_classes, bias=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """T_1 to T_5 of images [B, 1, H, W]."""
        found = []
        for convolution in self.convolutions:
            images = convolution(images).relu()
            found.append(images)
        return found

    def logits(self, features: Tensor) -> Tensor:
        """Logits [B, C] of T_5."""
        return self.classifier(features.mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C] of images [B, 1, H, W]."""
        return self.logits(self.features(images)[-1])


def gradient_maps(network: ToyNetwork, images: Tensor, classes: Tensor) -> Tensor:
    """Gradients of every layer with respect to the image: G_l of the sum of T_l, and G_6 of the class's logit.

    Parameters
    ----------
    images
        [B, 1, H, W].
    classes
        int64 [B].

    Returns
    -------
    [B, 6, H, W].
    """
    images = images.detach().requires_grad_()
    features = network.features(images)
    logit = network.logits(features[-1]).gather(1, classes[:, None])
    targets = [*(layer.sum() for layer in features), logit.sum()]
    return torch.cat([torch.autograd.grad(target, images, retain_graph=True)[0] for target in targets], 1)
