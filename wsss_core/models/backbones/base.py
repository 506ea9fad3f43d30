"""What every backbone is: five stages, and weights under their published names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from wsss_core.errors import UserError, whole
from wsss_core.store.checkpoints import require_finite, require_tensors


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
        taps, output = [], images
        for number, stage in enumerate(self.stages):
            output = stage(output)
            taps.append(self.tap(number, output, images.shape[2:]))
        return taps

    def tap(self, stage: int, output: Tensor, size: Sequence[int]) -> Tensor:
        """The tap of a stage, of what it gives for images of a size (H, W): here the same.

        Other backbones may hand more from stage to stage than the tap shows; what the last one gives is always its tap.
        """
        return output

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load parameters in their published names (torchvision's, or see `backbone`); those of a head are ignored.

        The names may all stand behind the same words, such as ``module.`` or ``model.backbone.``; what does not stand
        behind these is ignored then.

        Raises
        ------
        UserError
            Listing the names that are missing, superfluous, of another shape or not finite; or the words, if behind
            several the whole backbone is found.
        """
        own = self.state_dict()
        found = {
            self._own_name(name): value for name, value in self._unprefixed(state).items() if not self._ignored(name)
        }
        require_tensors(found, f"the weights of the backbone {self.name}")
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
        require_finite(found, f"the weights of the backbone {self.name}")
        try:
            self.load_state_dict(found)
        except RuntimeError as error:  # tensors that cannot be copied, such as those without data
            raise UserError(f"the weights do not fit the backbone {self.name}: {whole(error)}") from error

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

    def _ignored(self, name: str) -> bool:
        """Whether a published name is of no use here: of a head, or of what no network in evaluation reads."""
        return name.endswith("num_batches_tracked") or name.startswith(_HEADS)

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
