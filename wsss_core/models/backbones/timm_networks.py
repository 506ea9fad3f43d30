"""Networks of timm as backbones: ``timm:<name>``.

timm (PyTorch Image Models, R. Wightman) is an extra of this package, ``wsss[timm]``. Nothing is ever fetched: networks
are built with random weights, and weight files are local ones with timm's parameter names.

Two kinds can be cut into the five stages of a `Backbone`: networks that timm itself takes as a row of modules when it
is asked for ``features_only`` (ResNet, ConvNeXt, EfficientNet, RegNet, Swin and many more), which are cut here, and
plain vision transformers, which are cut in `wsss_core.models.backbones.timm_vit`. Others are refused in one line.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.constants import TIMM
from wsss_core.data.augment import MEAN, STD
from wsss_core.errors import UserError
from wsss_core.extras import extra
from wsss_core.models.backbones.base import Backbone
from wsss_core.models.backbones.norm import FixedBatchNorm

BEHIND: Mapping[str, tuple[str, ...]] = {
    "ByobNet": ("final_conv",),
    "DenseNet": ("features.norm5",),
    "EfficientNet": ("conv_head", "bn2"),
    "MobileVit": ("final_conv",),
    "NormFreeNet": ("final_conv", "final_act"),
    "RegNet": ("final_conv",),
    "ResNetV2": ("norm",),
    "SwinTransformer": ("norm",),
    "SwinTransformerV2": ("norm",),
}
"""What some families of timm pass their last features through before they are pooled and classified, which
``features_only`` leaves out."""

PROBE = (97, 129)
"""Height and width of the image that a network is tried with, on no device: multiples of nothing that strides are."""


def build(name: str, output_stride: int | None) -> Backbone:
    """The network; see `wsss_core.models.backbones.backbone`.

    Raises
    ------
    UserError
        If timm is not installed or has no such network, or it cannot be cut into stages or has no such output stride.
    """
    from wsss_core.models.backbones import timm_vit

    timm = extra("timm", "timm")
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        near = difflib.get_close_matches(short.partition(".")[0], timm.list_models(), n=3)
        hint = f" (did you mean {' or '.join(TIMM + other for other in near)}?)" if near else ""
        raise UserError(f"backbone {name}: timm {timm.__version__} has no network of this name{hint}")
    with torch.device("meta"):  # shapes alone, in a moment
        try:
            plain = timm_vit.is_one(create(name))
        except RuntimeError as error:  # a tag that timm does not know
            raise UserError(f"backbone {name}: {error}") from error
    return timm_vit.build(name, output_stride) if plain else _cut(name, output_stride)


def create(name: str, **arguments: Any) -> nn.Module:
    """A network of timm with random weights, without its classifier."""
    return extra("timm", "timm").create_model(name.removeprefix(TIMM), pretrained=False, num_classes=0, **arguments)


def parameters(name: str) -> set[str]:
    """Names of all parameters of a network of timm, those of its classifier among them."""
    with torch.device("meta"):
        return set(extra("timm", "timm").create_model(name.removeprefix(TIMM), pretrained=False).state_dict())


class TimmBackbone(Backbone):
    """A backbone whose weights have timm's names, one by one.

    Parameters
    ----------
    name, stages, channels, strides, frozen, learning_rate
        As in `Backbone`.
    published
        Names of this module's parameters to timm's.
    unused
        Names of timm's network that this backbone has no place for: those of its classifier.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        strides: Sequence[int],
        frozen: int,
        learning_rate: float,
        published: Mapping[str, str],
        unused: frozenset[str],
    ) -> None:
        super().__init__(name, stages, channels, strides, frozen, learning_rate, {})
        self._published = dict(published)
        self._own = {other: own for own, other in published.items()}
        self._unused = unused

    def _own_name(self, name: str) -> str:
        return self._own.get(name, name)

    def _published_name(self, name: str) -> str:
        return self._published.get(name, name)

    def _ignored(self, name: str) -> bool:
        return name in self._unused or name.startswith(("head.", "head_dist.")) or super()._ignored(name)


class Renormalised(nn.Module):
    """Images normalised with the mean and deviation of ImageNet, as they are everywhere here, to those of a network.

    Parameters
    ----------
    mean, std
        Of the network's images, of RGB in 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        ours = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (MEAN, STD))
        theirs = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std))
        (mean_here, std_here), (mean_there, std_there) = ours, theirs
        self.register_buffer("scale", std_here / std_there, persistent=False)
        self.register_buffer("shift", (mean_here - mean_there) / std_there, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], of any size."""
        return images * self.scale + self.shift


def entrance(network: Any) -> list[tuple[str, nn.Module]]:
    """What comes before a network of timm, by names: nothing, where it was trained on images normalised as here."""
    mean, std = network.default_cfg["mean"], network.default_cfg["std"]
    same = all(abs(a - b) < 1e-3 for a, b in zip((*mean, *std), (*MEAN, *STD), strict=True))
    return [] if same else [("renormalised", Renormalised(mean, std))]


class Padded(nn.Module):
    """Images with zeros below and to the right, so that both sides are multiples of a stride."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 3, H', W']."""
        return F.pad(images, (0, -images.shape[3] % self.stride, 0, -images.shape[2] % self.stride))


class _ChannelsSecond(nn.Module):
    """[B, h, w, D] to [B, D, h, w]."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2)


class _RowBackbone(TimmBackbone):
    """Stages of a network that is a row of modules; between these, channels may come last."""

    def __init__(self, *arguments: Any) -> None:
        *others, self.channels_last, self.padded = arguments
        super().__init__(*others)

    def tap(self, stage: int, output: Tensor, size: Sequence[int]) -> Tensor:
        """A stage's output, channels second, and of it the cells that lie in the image."""
        if stage == len(self.stages) - 1:
            return output
        tap = output.permute(0, 3, 1, 2) if self.channels_last else output
        stride = self.strides[stage]
        return tap[..., : -(-size[0] // stride), : -(-size[1] // stride)] if self.padded else tap


class _FixedBatchNormAct(FixedBatchNorm):
    """`FixedBatchNorm` with what timm puts behind a normalisation: dropping and activation."""

    def __init__(self, channels: int, eps: float, drop: nn.Module, act: nn.Module) -> None:
        super().__init__(channels, eps)
        self.drop, self.act = drop, act

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w]."""
        return self.act(self.drop(super().forward(x)))


@dataclass(frozen=True)
class _Row:
    """How a network of timm is a row of modules.

    Attributes
    ----------
    arguments
        With which it is built.
    whole
        Whether the modules are taken from the whole network, or from what timm builds for features alone.
    modules
        Dotted names of its modules in the order in which features pass them.
    ends
        Five, each the number of modules up to a tap and with it.
    channels_last
        Whether features have their channels last.
    """

    arguments: Mapping[str, Any]
    whole: bool
    modules: tuple[str, ...]
    ends: tuple[int, ...]
    channels_last: bool

    def network(self, name: str) -> nn.Module:
        """The network that has the modules, with random weights."""
        return create(name, **self.arguments) if self.whole else _of_features(name, self.arguments)

    def stages(self, network: Any, padding: int) -> list[nn.Module]:
        """The five stages, of the modules of a network, for images padded to multiples of a number; 0 for none."""
        stages: list[nn.Module] = []
        for number, (start, end) in enumerate(zip((0, *self.ends), self.ends, strict=False)):
            parts = [(_word(part), network.get_submodule(part)) for part in self.modules[start:end]]
            if number == 0:
                parts = [*entrance(network), *([("padded", Padded(padding))] if padding else []), *parts]
            if number == 4:
                parts += [(_word(part), network.get_submodule(part)) for part in _behind(network)]
                parts += [("channels_second", _ChannelsSecond())] if self.channels_last else []
            stages.append(nn.Sequential(OrderedDict(parts)))
        return stages

    def published(self, network: Any, stages: Sequence[nn.Module]) -> dict[str, str]:
        """Names of the parameters in the stages, to timm's."""
        dotted = {_word(part): part for part in (*self.modules, *_behind(network))}
        names = ((number, name) for number, stage in enumerate(stages) for name in stage.state_dict())
        parts = ((number, *name.partition(".")) for number, name in names)
        return {f"stages.{number}.{word}.{rest}": f"{dotted[word]}.{rest}" for number, word, _, rest in parts}


def _cut(name: str, output_stride: int | None) -> Backbone:
    """A network that is a row of modules, cut into five stages behind the taps of timm."""
    row = _row(name, output_stride)
    with torch.device("meta"):
        padded, channels, strides = _probed(name, row)
    if output_stride is not None and strides[-1] != output_stride:
        raise UserError(
            f"backbone {name}: its output stride is {strides[-1]} and timm cannot make it {output_stride}; set it to "
            f"{strides[-1]}, or to null where that is allowed"
        )
    network = row.network(name)
    stages = row.stages(network, strides[-1] if padded else 0)
    for stage in stages:
        _fix_batch_norm(stage)
    published = row.published(network, stages)
    unused = frozenset(parameters(name) - set(published.values()))
    return _RowBackbone(name, stages, channels, strides, 3, 0.01, published, unused, row.channels_last, padded)


def _row(name: str, output_stride: int | None) -> _Row:
    """How the network is a row of modules; with its own output stride where timm cannot change that.

    Raises
    ------
    UserError
        If it is none, as timm builds it.
    """
    wanted = 16 if output_stride is None else output_stride
    strided: list[dict[str, Any]] = [] if wanted == 32 else [{"output_stride": wanted}]
    refused = ""
    for arguments in (*strided, {"strict_img_size": False}, {}):  # the second is Swin's, for images of any size
        try:
            with torch.device("meta"):
                return _taken_apart(name, arguments)
        except (TypeError, AssertionError) as error:  # what timm says where a family does not know an argument
            refused = str(error)
    raise UserError(f"backbone {name}: timm cannot build it for features ({refused})")


def _taken_apart(name: str, arguments: Mapping[str, Any]) -> _Row:
    """How timm takes the network apart; UserError if it does not as a row of modules."""
    net = _of_features(name, arguments)
    whole = type(net).__name__ != "MobileNetV3Features"
    if type(net).__name__ == "EfficientNetFeatures":  # the same, as a row
        net = _of_features(name, {**arguments, "feature_cfg": {"feature_cls": "list", "flatten_sequential": True}})
    if whole and not isinstance(net, extra("timm.models", "timm").FeatureListNet):
        raise UserError(
            f"backbone {name}: this project takes networks of timm that are a row of modules (ResNet, ConvNeXt, "
            "EfficientNet, RegNet, Swin, …) and plain vision transformers (ViT, DeiT, DINOv2, DINOv3, EVA, CLIP), and "
            "this one is neither"
        )
    if whole:
        dotted = dict(_dotted(create(name, **arguments)))
        modules = tuple(dotted[module] for module in net)
        found = [dotted[module] for module in net.return_layers]
    else:
        stem = [child for child, _ in net.named_children() if child != "blocks"]
        modules = (*stem, *(f"blocks.{index}" for index in range(len(net.blocks))))
        found = [stem[-1] if module in stem else module for module in net.feature_info.module_name()]
    taps = [index + 1 for index, module in enumerate(modules) if module in found][-5:]
    if len(taps) == 4 and taps[0] > 1:
        taps = [taps[0] - 1, *taps]
    if len(taps) != 5:
        raise UserError(f"backbone {name}: it has features at {len(taps)} depths; at least 4 are needed")
    channels_last = whole and net.output_fmt.value == "NHWC"
    return _Row(arguments, whole, modules, tuple(taps), channels_last)


def _of_features(name: str, arguments: Mapping[str, Any]) -> Any:
    """What timm builds for features alone."""
    short = name.removeprefix(TIMM)
    return extra("timm", "timm").create_model(short, pretrained=False, features_only=True, **arguments)


def _behind(network: nn.Module) -> tuple[str, ...]:
    """Of `BEHIND`, what the network has."""
    return BEHIND.get(type(network).__name__, ())


def _dotted(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names that timm gives to the modules of a row, to their own."""
    for name, module in network.named_children():
        yield name, name
        if isinstance(module, nn.Sequential):
            yield from ((f"{name}_{child}", f"{name}.{child}") for child, _ in module.named_children())


def _word(dotted: str) -> str:
    """A module's dotted name as a module may be called."""
    return dotted.replace(".", "_")


def _probed(name: str, row: _Row) -> tuple[bool, list[int], list[int]]:
    """Whether images must be padded, and channels and strides of the taps.

    Raises
    ------
    UserError
        If the features of an image of any size form no grids of a stride.
    """
    network = row.network(name).eval()
    for padded in (False, True):
        found = _grids(row, row.stages(network, 32 if padded else 0))
        strides = [_stride(grid, padded) for _, grid in found]
        if len(found) == 5 and all(strides) and strides == sorted(strides):
            return padded, [width for width, _ in found], strides
    raise UserError(f"backbone {name}: its features of an image of any size form no regular grids, as are needed here")


def _grids(row: _Row, stages: Sequence[nn.Module]) -> list[tuple[int, tuple[int, int]]]:
    """Channels and grid of each tap of `PROBE`; fewer than five if the network does not take it."""
    found: list[tuple[int, tuple[int, int]]] = []
    features: Any = torch.zeros(1, 3, *PROBE)
    for number, stage in enumerate(stages):
        try:
            with torch.no_grad():
                features = stage.eval()(features)
        except (RuntimeError, AssertionError, ValueError, NotImplementedError):
            return found
        if not isinstance(features, Tensor) or features.ndim != 4:
            return found
        second = features.permute(0, 3, 1, 2) if row.channels_last and number < 4 else features
        found.append((second.shape[1], (second.shape[2], second.shape[3])))
    return found


def _stride(grid: tuple[int, int], padded: bool) -> int:
    """The stride at which `PROBE`, padded or not, has this grid; 0 if there is none."""
    sides = [-(-side // 32) * 32 if padded else side for side in PROBE]
    fitting = (stride for stride in (1, 2, 4, 8, 16, 32) if grid == tuple(-(-side // stride) for side in sides))
    return next(fitting, 0)


def _fix_batch_norm(module: nn.Module) -> None:
    """Put `FixedBatchNorm` in the place of all batch normalisation, in a new network."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, _fixed(child))
        else:
            _fix_batch_norm(child)


def _fixed(norm: Any) -> FixedBatchNorm:
    if hasattr(norm, "act"):
        made: FixedBatchNorm = _FixedBatchNormAct(norm.num_features, norm.eps, norm.drop, norm.act)
    else:
        made = FixedBatchNorm(norm.num_features, norm.eps)
    made.load_state_dict({k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"})
    return made
