"""AffinityNet: features whose closeness says how likely two nearby pixels are of one class.

Ahn & Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised Semantic
Segmentation", CVPR 2018; layers and initial values as in the authors' code. The paper's backbone is a ResNet-38d
whose last three taps (conv4, conv5, conv6) all have stride 8; other strides are resized to that grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.models.backbones import Backbone, BackboneNetwork, FixedBatchNorm
from wsss_core.models.irn import resize

STRIDE = 8
"""Stride of the features, in pixels."""


class AffinityNetwork(BackboneNetwork):
    """Features on the last three taps of a backbone.

    Each tap is projected (64, 128 and 256 channels, ELU), and a 1x1 convolution mixes all 448 (ELU). With a VGG-16 the
    projections are group-normalised, as in the published code.

    Parameters
    ----------
    backbone
        Its leading ``frozen`` stages and the scale and shift of all its fixed batch normalisation are not trained.
    """

    kind = "affinity"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        backbone.stages[: backbone.frozen].requires_grad_(False)
        for module in backbone.modules():
            if isinstance(module, FixedBatchNorm):
                module.requires_grad_(False)
        widths, groups = (64, 128, 256), (8, 16, 32)
        normalised = backbone.name == "vgg16"
        self.taps = nn.ModuleList(
            _project(channels, width, count if normalised else None)
            for channels, width, count in zip(backbone.channels[-3:], widths, groups, strict=True)
        )
        self.mix = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        nn.init.xavier_uniform_(self.mix.weight, gain=4)

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, 448, ceil(H / 8), ceil(W / 8)] of normalised images [B, 3, H, W]."""
        size = tuple(-(-side // STRIDE) for side in images.shape[2:])
        taps = zip(self.taps, self.backbone(images)[-3:], self.backbone.strides[-3:], strict=True)
        parts = [F.elu(resize(project(tap), stride, STRIDE, size)) for project, tap, stride in taps]
        return F.elu(self.mix(torch.cat(parts, 1)))

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters that no weight file holds."""
        return [*self.taps.parameters(), *self.mix.parameters()]


def _project(channels: int, width: int, groups: int | None) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    return nn.Sequential(convolution, *([] if groups is None else [nn.GroupNorm(groups, width)]))
