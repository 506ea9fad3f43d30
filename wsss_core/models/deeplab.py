"""DeepLab-v2: dilated backbone, atrous spatial pyramid, maximum over input scales (Chen et al., TPAMI 2017)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.data.augment import MEAN, STD
from wsss_core.errors import UserError
from wsss_core.models.backbones import Backbone, backbone
from wsss_core.models.backbones.resnet import Bottleneck
from wsss_core.models.segmentation import SegmentationNetwork

CAFFE_MEAN = (122.675, 116.669, 104.008)
"""RGB mean in grey levels that networks converted from Caffe subtract."""


class Aspp(nn.ModuleList):
    """Sum of dilated 3x3 convolutions with bias, from features straight to logits.

    Parameters
    ----------
    rates
        Dilation of each convolution, in cells of the feature grid.
    """

    def __init__(self, channels: int, n_labels: int, rates: Sequence[int]) -> None:
        convolutions = [nn.Conv2d(channels, n_labels, 3, padding=rate, dilation=rate) for rate in rates]
        for convolution in convolutions:
            nn.init.normal_(convolution.weight, std=0.01)
            nn.init.zeros_(convolution.get_parameter("bias"))
        super().__init__(convolutions)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D, h, w] to logits [B, L, h, w]."""
        return sum((convolution(features) for convolution in self), torch.zeros(()))


class DeepLabV2(SegmentationNetwork):
    """DeepLab-v2 with multi-scale inputs.

    Takes images [B, 3, H, W], RGB, normalised with the ImageNet mean and deviation. In evaluation mode the result is
    the maximum over the input scales of the logits [B, L, h, w] at the grid of the full input; in training mode it
    is the list of logits of the full input, of each smaller input at its own grid, and of the maximum.

    Smaller inputs have the sides ``int((side - 1) * scale) + 1`` (official: ``int(side * scale)``), so that an input
    of 321 at stride 8 gives grids of 41, 21 and 31.

    Parameters
    ----------
    network
        Backbone whose last tap is used.
    n_labels
        Number of labels L with background.
    rates
        Dilations of the pyramid.
    scales
        Input scales beside 1; none trains and predicts at one scale.
    variant
        "official" takes the input in the form of Caffe weights itself (see `preprocess`).
    """

    architecture = "deeplab_v2"

    def __init__(
        self,
        network: Backbone,
        n_labels: int,
        rates: Sequence[int],
        scales: Sequence[float],
        variant: Literal["paper", "official"] = "paper",
    ) -> None:
        super().__init__()
        self.backbone = network
        self.aspp = Aspp(network.out_channels, n_labels, rates)
        self.scales = tuple(scales)
        self.variant = variant

    def preprocess(self, images: Tensor) -> Tensor:
        """What the backbone sees of normalised RGB images: the same; official: BGR grey levels minus their mean."""
        if self.variant == "paper":
            return images
        mean, std, caffe = (images.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD, CAFFE_MEAN))
        return ((images * std + mean) * 255 - caffe).flip(1)

    def logits(self, images: Tensor) -> Tensor:
        """Logits of one input scale, [B, L, h, w]."""
        return self.aspp(self.backbone(images)[-1])

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits: their maximum over the scales, or in training mode the list of all (see the class)."""
        images = self.preprocess(images)
        grids = [self.logits(images), *(self.logits(self._reduced(images, scale)) for scale in self.scales)]
        if not self.scales:
            return grids if self.training else grids[0]
        highest = grids[0]
        for logits in grids[1:]:
            enlarged = F.interpolate(logits, highest.shape[2:], mode="bilinear", align_corners=False)
            highest = torch.maximum(highest, enlarged)
        return [*grids, highest] if self.training else highest

    def reduction(self, size: tuple[int, int], scale: float) -> tuple[tuple[int, int], tuple[float, float]]:
        """(H, W) of the smaller input of a scale, and how many pixels of the full one lie between two of its own."""
        height, width = size
        if self.variant == "official":
            return (int(height * scale), int(width * scale)), (1 / scale, 1 / scale)
        part = Fraction(scale).limit_denominator(1000)  # in integers, which an exported network computes too
        rows, columns = ((side - 1) * part.numerator // part.denominator + 1 for side in size)
        return (rows, columns), (height / rows, width / columns)

    def _reduced(self, images: Tensor, scale: float) -> Tensor:
        if self.variant == "official":
            return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        height, width = images.shape[2:]
        sides, _ = self.reduction((height, width), scale)
        return F.interpolate(images, sides, mode="bilinear", align_corners=False)


def deeplab_v2(
    backbone_name: str,
    n_labels: int,
    rates: Sequence[int] = (6, 12, 18, 24),
    output_stride: Literal[8, 16, 32] | None = 8,
    scales: Sequence[float] = (0.5, 0.75),
    variant: Literal["paper", "official"] = "paper",
) -> DeepLabV2:
    """DeepLab-v2 on a named backbone, randomly initialised (the pyramid from N(0, 0.01)).

    Parameters
    ----------
    variant
        "paper" for weights in torchvision's layout; "official" for those converted from Caffe, as deeplab-pytorch
        uses them (ResNets only): stride in the first 1x1 convolution of a block, pooling that rounds up, BGR input.

    Raises
    ------
    UserError
        If the backbone is unknown, or has no official variant.

    Examples
    --------
    >>> network = deeplab_v2("small", 3).eval()
    >>> tuple(network(torch.zeros(1, 3, 65, 81)).shape)
    (1, 3, 9, 11)
    """
    network = backbone(backbone_name, output_stride=output_stride)
    if variant == "official":
        _to_caffe_layout(network)
    return DeepLabV2(network, n_labels, rates, scales, variant)


def restored(backbone_name: str, n_labels: int, settings: Mapping[str, Any]) -> DeepLabV2:
    """The network that was trained with these settings of `wsss_core.segment.deeplab.DeepLabSettings`."""
    keys = ("rates", "output_stride", "msc_scales", "variant")
    return deeplab_v2(backbone_name, n_labels, *(settings[key] for key in keys))


def _to_caffe_layout(network: Backbone) -> None:
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    if not blocks:
        raise UserError(f"variant: official exists for resnet50 and resnet101, not for {network.name}")
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    for module in network.modules():
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True


def torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Backbone parameters of a deeplab-pytorch weight file under torchvision's names; others are left as they are.

    That project's ``layer1.conv1.{conv,bn}`` is the stem and ``layer<n>.block<i>.<part>.{conv,bn}`` a block of layer
    n - 1, with the parts reduce, conv3x3, increase and shortcut (or proj). Its pyramid and classifier are dropped.

    Examples
    --------
    >>> list(torchvision_names({"base.layer3.block2.conv3x3.bn.weight": torch.zeros(128)}))
    ['layer2.1.bn2.weight']
    """
    parts = {"reduce": 1, "conv3x3": 2, "increase": 3}
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"^(module\.|base\.|scale\.)*", "", name)
        if stem := re.fullmatch(r"layer1\.conv1\.(conv|bn)\.(\w+)", name):
            name = f"{stem[1]}1.{stem[2]}"
        elif block := re.fullmatch(r"layer(\d)\.block(\d+)\.(\w+)\.(conv|bn)\.(\w+)", name):
            layer, number, part, kind, rest = block.groups()
            own = f"{kind}{parts[part]}" if part in parts else f"downsample.{0 if kind == 'conv' else 1}"
            name = f"layer{int(layer) - 1}.{int(number) - 1}.{own}.{rest}"
        if not name.startswith(("aspp.", "fc.")):
            renamed[name] = value
    return renamed
