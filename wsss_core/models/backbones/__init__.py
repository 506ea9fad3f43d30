"""Backbones behind one interface: five stages, whose outputs are the five taps of IRN; one file for each network.

Weight files of torchvision fit ResNet, MobileNetV2 and VGG-16 name by name; ResNet-38d takes the names of the published
PyTorch ports; networks of timm those of timm. All batch normalisation uses running statistics always (as in IRN and the
methods built on it), while its scale and shift can be trained (not those of ResNet-38d).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from wsss_core.constants import TIMM
from wsss_core.errors import UserError
from wsss_core.models.backbones import mobilenet_v2, resnet, resnet38d, small, timm_networks, vgg16
from wsss_core.models.backbones.base import Backbone, BackboneNetwork
from wsss_core.models.backbones.norm import FixedBatchNorm
from wsss_core.models.backbones.weights import load_weights

__all__ = ["Backbone", "BackboneNetwork", "FixedBatchNorm", "backbone", "load_weights"]

_BUILDERS: dict[str, Callable[[str, int], Backbone]] = {
    "resnet50": resnet.build,
    "resnet101": resnet.build,
    "resnet38d": resnet38d.build,
    "mobilenet_v2": mobilenet_v2.build,
    "vgg16": vgg16.build,
    "small": small.build,
}


def backbone(name: str, output_stride: Literal[8, 16, 32] | None = None) -> Backbone:
    """A randomly initialised backbone.

    Parameters
    ----------
    name
        resnet50, resnet101
            Taps after the stem with its pooling and after each layer: 64/256/512/1024/2048 channels at strides
            4/4/8/16/16. The last stage has stride 1 and no dilation, as in IRN. Frozen: up to ``layer2``;
            rate 0.01.
        mobilenet_v2
            Taps after ``features`` 2, 3, 6, 13 and 18: 24/24/32/96/1280 channels at strides 4/4/8/16/16; the last
            stride of 2 (``features.14``) is removed and what follows it is dilated by 2, so that every cell sees what
            the pretrained network saw (docs/results.md has what that is worth). Frozen: up to ``features.6``; rate
            0.01.
        resnet38d
            The wide pre-activation network of Wu, Shen & van den Hengel (arXiv 1611.10080; "A1"), dilated as in PSA and
            SEAM, 105 million parameters. Taps are the normalised and rectified inputs of the blocks ``b3``, ``b4``,
            ``b5`` and ``b6`` (PSA's conv4 and conv5 are the last two), and after ``bn7`` (conv6): 128/256/512/1024/4096
            channels at strides 2/4/8/8/8. Weight files have the names of PSA's port (``conv1a``,
            ``b2.bn_branch2a``, ..., ``bn7``). Channels are dropped in ``b6`` and ``b7`` (0.3 and 0.5) in training
            mode. Scale and shift of all normalisations are fixed. Frozen: ``conv1a`` to ``b2_2``; rate 0.001.
        vgg16
            Taps after the second pooling, conv3, conv4, conv5_1 and conv5_3: 128/256/512/512/512 channels at strides
            4/4/8/16/16; there is no fifth pooling. Frozen: conv1 and conv2; rate 0.001.
        small
            A residual network with group normalisation, 1.1 million parameters, made to be trained from nothing on
            images of 128 to 160 pixels: 32/48/64/128/160 channels at strides 4/4/8/16/16. Nothing is frozen; rate 0.05.
        timm:<name>
            A network of timm (the extra ``wsss[timm]``), such as ``timm:convnext_tiny`` or
            ``timm:vit_small_patch14_dinov2``; see `wsss_core.models.backbones.timm_networks` and docs/backbones.md. Of
            a network that is a row of modules, taps are the last five of its ``features_only`` (or its stem and four).
            Of a vision transformer they are the patches, and the tokens after each quarter of its blocks. Images
            normalised as everywhere here are normalised anew for networks that had others. Frozen: three stages; rate
            0.01, vision transformers 0.001.
    output_stride
        16, or 8, where the stride of the fourth stage is removed too and the last two stages are dilated by 2 and 4
        (DeepLab-v2; VGG-16: the last two stages by 2). ResNet-38d is published at 8; at 16, ``b5`` keeps the stride of
        2 that it had on ImageNet and dilations are halved, so that every second cell in both directions is
        computed, with the same result. None: 8 for ResNet-38d and 16 for the others. 32, which detectors build their
        pyramid on, removes no stride and dilates nothing, as in classification (ResNet, MobileNetV2 and small; the last
        tap is then at stride 32). Networks of timm whose stride timm cannot change have their own, and vision
        transformers the side of their patches, unless patches are let overlap (see `timm_vit`).

    Raises
    ------
    UserError
        If the name or the stride is unknown, or a network has no such stride; of timm's, also if timm is not installed.

    Examples
    --------
    >>> import torch
    >>> network = backbone("small")
    >>> [tuple(tap.shape[1:]) for tap in network(torch.zeros(1, 3, 65, 80))]
    [(32, 17, 20), (48, 17, 20), (64, 9, 10), (128, 5, 5), (160, 5, 5)]
    """
    if output_stride not in (None, 8, 16, 32):
        raise UserError(f"output stride {output_stride}: allowed are 8, 16 and 32")
    if name.startswith(TIMM):
        return timm_networks.build(name, output_stride)
    if name not in _BUILDERS:
        raise UserError(f"unknown backbone {name!r}; there are {', '.join(_BUILDERS)}, and {TIMM}<name>")
    if output_stride is None:
        output_stride = 8 if name == "resnet38d" else 16
    if output_stride == 32 and name in ("vgg16", "resnet38d"):
        raise UserError(f"output stride 32: the backbone {name} is not made for it")
    return _BUILDERS[name](name, output_stride)
