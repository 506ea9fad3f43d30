"""Features of a backbone as it is, with nothing trained on top: how alike two places of a photo look to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.models.backbones import Backbone, BackboneNetwork
from wsss_core.models.irn import resize


class FeatureNetwork(BackboneNetwork):
    """A frozen backbone whose taps are brought to one grid.

    Parameters
    ----------
    backbone
        It is never trained.
    """

    kind = "features"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()

    def forward(self, images: Tensor, taps: Sequence[int], stride: int, centred: bool) -> Tensor:
        """Unit vectors, whose scalar products are the cosines of the taps' features, averaged over the taps.

        Parameters
        ----------
        images
            Normalised, [B, 3, H, W].
        taps
            Numbers of the taps, 1 to 5.
        stride
            Side of the grid's cells in pixels.
        centred
            Whether the mean over an image is taken away from every channel of a tap first. Features behind a ReLU are
            positive, so that all their cosines are near 1; what an image has in common then hides what differs in it.

        Returns
        -------
        [B, D, ceil(H / stride), ceil(W / stride)].
        """
        size = tuple(-(-side // stride) for side in images.shape[2:])
        found = self.backbone(images)
        parts = []
        for tap in taps:
            features = resize(found[tap - 1].float(), self.backbone.strides[tap - 1], stride, size)
            if centred:
                features = features - features.mean((2, 3), keepdim=True)
            parts.append(F.normalize(features, dim=1))
        return torch.cat(parts, 1) / len(parts) ** 0.5
