"""Backbones behind one interface: five stages, whose outputs are the five taps of IRN.

ResNet, MobileNetV2 and VGG-16 are torchvision's own modules rearranged, so that its weight files fit name by name;
ResNet-38d takes the names of the published PyTorch ports. All batch normalisation uses running statistics always (as
in IRN and the methods built on it), while its scale and shift can be trained (not those of ResNet-38d).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn
from torchvision.models import vgg

from wsss_core.errors import UserError
from wsss_core.store.checkpoints import load_file


class FixedBatchNorm(nn.Module):
    """Batch normalisation with running statistics in every mode.

    Holds no ``num_batches_tracked``, which nothing reads.

    Parameters
    ----------
    trained
        Whether scale and shift are parameters; otherwise they too are fixed.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, trained: bool = True) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
            if trained:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, channels, h, w]."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class Backbone(nn.Module):
    """Five stages of a feature network.

    Parameters
    ----------
    name
        As in `backbone`.
    stages
        Five modules, each taking the output of the one before.
    channels, strides
        Of the five taps. A tap of an image [B, 3, H, W] is [B, channels, ceil(H / stride), ceil(W / stride)].
    frozen
        Number of leading stages that classifier training leaves as they are in the weight file.
    learning_rate
        At which SGD with a momentum of 0.9 trains the others.
    names
        Prefix in the published state dict to prefix in this module's; the first that fits counts.

    Attributes
    ----------
    adapted_from
        First stage whose weights methods that adapt a classifier to one image (RIB) change.
    """

    adapted_from = 3

    def __init__(
        self,
        name: str,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        strides: Sequence[int],
        frozen: int,
        learning_rate: float,
        names: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.name = name
        self.stages = nn.ModuleList(stages)
        self.channels, self.strides = tuple(channels), tuple(strides)
        self.frozen, self.learning_rate = frozen, learning_rate
        self._names = dict(names)

    @property
    def out_channels(self) -> int:
        """Channels of the last tap."""
        return self.channels[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """The five taps of normalised RGB images [B, 3, H, W]."""
        taps = []
        for stage in self.stages:
            images = stage(images)
            taps.append(images)
        return taps

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load parameters in their published names (torchvision's, or see `backbone`); those of a head are ignored.

        The names may all stand behind the same words, such as ``module.`` or ``model.backbone.``; what does not stand
        behind these is ignored then.

        Raises
        ------
        UserError
            Listing the names that are missing, superfluous or of another shape; or the words, if behind several the
            whole backbone is found.
        """
        own = self.state_dict()
        found = {
            self._own_name(name): value
            for name, value in self._unprefixed(state).items()
            if not name.endswith("num_batches_tracked") and not name.startswith(_HEADS)
        }
        wrong = {
            "missing": [self._published_name(n) for n in own if n not in found],
            "unknown": [n for n in found if n not in own],
            "of another shape": [
                f"{self._published_name(n)} {tuple(found[n].shape)} instead of {tuple(own[n].shape)}"
                for n in own
                if n in found and found[n].shape != own[n].shape
            ],
        }
        if any(wrong.values()):
            parts = [f"{len(v)} {k} ({', '.join(v[:3])}{', …' if len(v) > 3 else ''})" for k, v in wrong.items() if v]
            raise UserError(f"the weights do not fit the backbone {self.name}: parameters {'; '.join(parts)}")
        self.load_state_dict(found)

    def _unprefixed(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The parameters behind the words that the most names of the backbone stand behind, without these words."""
        own = self.state_dict()
        first = next(iter(own))
        ends = (first, self._published_name(first))
        prefixes = {name.removesuffix(end) for name in state for end in ends if name == end or name.endswith(f".{end}")}
        parts = {
            prefix: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            for prefix in sorted(prefixes, key=len)
        }
        missing = {prefix: len(own.keys() - set(map(self._own_name, part))) for prefix, part in parts.items()}
        whole = [prefix for prefix, count in missing.items() if count == 0]
        if len(whole) > 1:
            behind = " and ".join(f"{prefix}*" for prefix in whole)
            raise UserError(
                f"the weights hold the backbone {self.name} {len(whole)} times, as {behind}: save those alone that "
                "training should start from"
            )
        return parts[min(missing, key=missing.__getitem__)] if missing else state

    def _own_name(self, name: str) -> str:
        return _replace_prefix(name, self._names)

    def _published_name(self, name: str) -> str:
        return _replace_prefix(name, {own: published for published, own in self._names.items()})


class BackboneNetwork(nn.Module):
    """A network on a backbone, which knows what its checkpoint must say for it to be built again.

    Attributes
    ----------
    kind
        Kind of the checkpoints.
    """

    kind: ClassVar[str]
    backbone: Backbone

    @property
    def about(self) -> dict[str, Any]:
        """What a checkpoint says beside the class names and the settings of the training; plain values."""
        return {"backbone": self.backbone.name}


_HEADS = ("fc.", "classifier.", "fc8.", "linear1000.")
"""Prefixes of the classifiers in published weight files: torchvision's, PSA's and ademxapp's."""


def _replace_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def backbone(name: str, output_stride: Literal[8, 16] | None = None) -> Backbone:
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
    output_stride
        16, or 8, where the stride of the fourth stage is removed too and the last two stages are dilated by 2 and 4
        (DeepLab-v2; VGG-16: the last two stages by 2). ResNet-38d is published at 8; at 16, ``b5`` keeps the stride of
        2 that it had on ImageNet and dilations are halved, so that every second cell in both directions is
        computed, with the same result. None: 8 for ResNet-38d and 16 for the others.

    Raises
    ------
    UserError
        If the name or the stride is unknown.

    Examples
    --------
    >>> network = backbone("small")
    >>> [tuple(tap.shape[1:]) for tap in network(torch.zeros(1, 3, 65, 80))]
    [(32, 17, 20), (48, 17, 20), (64, 9, 10), (128, 5, 5), (160, 5, 5)]
    """
    if name not in _BUILDERS:
        raise UserError(f"unknown backbone {name!r}; there are {', '.join(_BUILDERS)}")
    if output_stride is None:
        output_stride = 8 if name == "resnet38d" else 16
    if output_stride not in (8, 16):
        raise UserError(f"output stride {output_stride}: allowed are 8 and 16")
    return _BUILDERS[name](name, output_stride)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a weight file (tensors by name, loaded without running any code in it).

    Tensors may lie deeper in the file, as in ``{"epoch": 3, "model": {…}}``. Where one entry holds all of them they are
    called by their names within it; where several do, an entry's name comes first (``model.conv1.weight``), and
    `Backbone.load` finds those that fit.

    Raises
    ------
    UserError
        If it is absent or is not a file of tensors by name.
    """
    content = load_file(path, "weight file")
    tensors = dict(_tensors(content))
    if not tensors:
        raise UserError(f"{path}: does not hold tensors by name")
    return tensors


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors in mappings within mappings, by dotted names; a mapping's only entry with tensors adds no word."""
    if not isinstance(content, Mapping):
        return
    nested = {str(key): dict(_tensors(value)) for key, value in content.items()}
    nested = {key: tensors for key, tensors in nested.items() if tensors}
    plain = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    yield from plain.items()
    for key, tensors in nested.items():
        alone = len(nested) == 1 and not plain
        yield from ((name if alone else f"{key}.{name}", value) for name, value in tensors.items())


def _resnet(name: str, output_stride: int) -> Backbone:
    network = getattr(torchvision.models, name)(weights=None, norm_layer=FixedBatchNorm)
    stem = nn.Sequential(OrderedDict(conv1=network.conv1, bn1=network.bn1, relu=network.relu, maxpool=network.maxpool))
    stages = [stem, network.layer1, network.layer2, network.layer3, network.layer4]
    _remove_stride(stages[4])
    if output_stride == 8:
        _remove_stride(stages[3])
        _dilate(stages[3], 2)
        _dilate(stages[4], 4)
    names = {"conv1.": "stages.0.conv1.", "bn1.": "stages.0.bn1."} | {f"layer{i}.": f"stages.{i}." for i in range(1, 5)}
    strides = (4, 4, 8, output_stride, output_stride)
    return Backbone(name, stages, (64, 256, 512, 1024, 2048), strides, 3, 0.01, names)


def _resnet38d(name: str, output_stride: int) -> Backbone:
    stride = output_stride // 8
    near, far = 2 // stride, 4 // stride
    stages = [
        {
            "conv1a": _plain_conv(3, 64, 3),
            "b2.bn_branch2a": _activation(64),
            "b2": _WideBlock(64, 128, 128, stride=2),
            "b2_1": _WideBlock(128, 128, 128),
            "b2_2": _WideBlock(128, 128, 128),
            "b3.bn_branch2a": _activation(128),
        },
        {
            "b3": _WideBlock(128, 256, 256, stride=2),
            "b3_1": _WideBlock(256, 256, 256),
            "b3_2": _WideBlock(256, 256, 256),
            "b4.bn_branch2a": _activation(256),
        },
        {
            "b4": _WideBlock(256, 512, 512, stride=2),
            **{f"b4_{number}": _WideBlock(512, 512, 512) for number in range(1, 6)},
            "b5.bn_branch2a": _activation(512),
        },
        {
            "b5": _WideBlock(512, 512, 1024, stride=stride, dilations=(1, near)),
            "b5_1": _WideBlock(1024, 512, 1024, dilations=(near, near)),
            "b5_2": _WideBlock(1024, 512, 1024, dilations=(near, near)),
            "b6.bn_branch2a": _activation(1024),
        },
        {
            "b6": _WideBottleneck(1024, 2048, dilation=far, dropout=0.3),
            "b7.bn_branch2a": _activation(2048),
            "b7": _WideBottleneck(2048, 4096, dilation=far, dropout=0.5),
            "bn7": _activation(4096),
        },
    ]
    names = {
        f"{published}.": f"stages.{stage}.{place}." + ("0." if "bn" in published else "")
        for stage, modules in enumerate(stages)
        for place, published in enumerate(modules)
    }
    names = dict(sorted(names.items(), key=lambda pair: -len(pair[0])))  # b3.bn_branch2a before b3
    strides = (2, 4, 8, output_stride, output_stride)
    sequences = [nn.Sequential(*modules.values()) for modules in stages]
    return Backbone(name, sequences, (128, 256, 512, 1024, 4096), strides, 1, 0.001, names)


def _mobilenet_v2(name: str, output_stride: int) -> Backbone:
    features = torchvision.models.mobilenet_v2(weights=None, norm_layer=FixedBatchNorm).features
    stages, names = _cut(features, (3, 4, 7, 14, 19))
    _remove_stride(stages[4])
    if output_stride == 8:
        _remove_stride(stages[3])
        _dilate_behind_stride(stages[3], 2)
    _dilate_behind_stride(stages[4], 32 // output_stride)
    strides = (4, 4, 8, output_stride, output_stride)
    return Backbone(name, stages, (24, 24, 32, 96, 1280), strides, 3, 0.01, names)


def _vgg16(name: str, output_stride: int) -> Backbone:
    features = vgg.make_layers(vgg.cfgs["D"])
    for module in features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.get_parameter("bias"))
    stages, names = _cut(features, (10, 16, 23, 26, 30))
    if output_stride == 8:
        stages[3][0] = nn.MaxPool2d(3, stride=1, padding=1)
        _dilate(stages[3], 2)
        _dilate(stages[4], 2)
    strides = (4, 4, 8, output_stride, output_stride)
    return Backbone(name, stages, (128, 256, 512, 512, 512), strides, 1, 0.001, names)


def _small(name: str, output_stride: int) -> Backbone:
    last = 2 if output_stride == 16 else 1
    stages = [
        nn.Sequential(_conv(3, 24, 2), nn.ReLU(), _conv(24, 32, 2), nn.ReLU()),
        _Residual(32, 48, 1),
        nn.Sequential(_Residual(48, 64, 2), _Residual(64, 64, 1)),
        nn.Sequential(_Residual(64, 128, last), _Residual(128, 128, 1)),
        _Residual(128, 160, 1),
    ]
    if output_stride == 8:
        _dilate(stages[3], 2)
        _dilate(stages[4], 4)
    return Backbone(name, stages, (32, 48, 64, 128, 160), (4, 4, 8, output_stride, output_stride), 0, 0.05, {})


_BUILDERS: dict[str, Callable[[str, int], Backbone]] = {
    "resnet50": _resnet,
    "resnet101": _resnet,
    "resnet38d": _resnet38d,
    "mobilenet_v2": _mobilenet_v2,
    "vgg16": _vgg16,
    "small": _small,
}


class _Residual(nn.Module):
    """Two 3x3 convolutions with group normalisation, beside a shortcut (projected where the shape changes)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(channels, width, stride)
        self.second = _conv(width, width, 1)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else _conv(channels, width, stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, ceil(h / stride), ceil(w / stride)]."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class _WideBlock(nn.Module):
    """Pre-activation block of ResNet-38d: two 3x3 convolutions beside a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution, and the input has been normalised and rectified
    before; otherwise it is the raw input, and the block does that itself.
    """

    def __init__(
        self, channels: int, middle: int, width: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.projects = channels != width
        if self.projects:
            self.conv_branch1 = _plain_conv(channels, width, 1, stride)
        else:
            self.bn_branch2a = FixedBatchNorm(channels, trained=False)
        self.conv_branch2a = _plain_conv(channels, middle, 3, stride, dilations[0])
        self.bn_branch2b1 = FixedBatchNorm(middle, trained=False)
        self.conv_branch2b1 = _plain_conv(middle, width, 3, 1, dilations[1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, ceil(h / stride), ceil(w / stride)]."""
        if self.projects:
            shortcut, branch = self.conv_branch1(x), x
        else:
            shortcut, branch = x, F.relu(self.bn_branch2a(x))
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(branch)))
        return shortcut + self.conv_branch2b1(branch)


class _WideBottleneck(nn.Module):
    """Bottleneck of ResNet-38d, of an input normalised and rectified before; whole channels are dropped in training."""

    def __init__(self, channels: int, width: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv_branch1 = _plain_conv(channels, width, 1)
        self.conv_branch2a = _plain_conv(channels, width // 4, 1)
        self.bn_branch2b1 = FixedBatchNorm(width // 4, trained=False)
        self.conv_branch2b1 = _plain_conv(width // 4, width // 2, 3, 1, dilation)
        self.bn_branch2b2 = FixedBatchNorm(width // 2, trained=False)
        self.conv_branch2b2 = _plain_conv(width // 2, width, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to [B, width, h, w]."""
        branch = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(x))))
        branch = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(branch))))
        return self.conv_branch1(x) + self.conv_branch2b2(branch)


def _activation(channels: int) -> nn.Sequential:
    return nn.Sequential(FixedBatchNorm(channels, trained=False), nn.ReLU())


def _plain_conv(channels: int, width: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(channels, width, kernel, stride, padding, dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _conv(channels: int, width: int, stride: int, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.GroupNorm(8, width))


def _cut(features: nn.Sequential, ends: Sequence[int]) -> tuple[list[nn.Sequential], dict[str, str]]:
    """Cut a sequence before the given indices; also the names of the parts' parameters."""
    starts = (0, *ends[:-1])
    stages = [nn.Sequential(*list(features)[start:end]) for start, end in zip(starts, ends, strict=True)]
    names = {
        f"features.{index}.": f"stages.{stage}.{index - start}."
        for stage, (start, end) in enumerate(zip(starts, ends, strict=True))
        for index in range(start, end)
    }
    return stages, names


def _remove_stride(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def _dilate(stage: nn.Module, dilation: int) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (dilation, dilation)


def _dilate_behind_stride(stage: nn.Module, dilation: int) -> None:
    """Dilate a stage whose first 3x3 convolution lost its stride of 2: that one half as much as those behind it."""
    first, *rest = (m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    _dilate(first, dilation // 2)
    for module in rest:
        _dilate(module, dilation)
