"""Networks of Segmentation Models PyTorch, which join an encoder and a decoder.

SMP (P. Iakubovskii) is an extra of this package, ``wsss[smp]``. Nothing is ever fetched: networks are built with random
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.errors import UserError
from wsss_core.extras import extra
from wsss_core.models.segmentation import SegmentationNetwork
from wsss_core.store.checkpoints import require_finite

HEADS = ("fc.", "classifier.", "last_linear.", "head.", "_fc.")
"""Beginnings of the names of classifiers in weight files of encoders."""


class SmpNetwork(SegmentationNetwork):
    """A network of SMP; takes images as all networks here, and returns the logits [B, L, H, W] in every mode.

    Images whose sides are no multiples of the encoder's stride are continued by zeros, below and to the right, and the
    logits there are dropped.

    Parameters
    ----------
    decoder
        Name of an architecture of SMP.
    encoder
        Name of an encoder of SMP, such as resnet50, or of timm behind ``tu-``.
    n_labels
        Number of labels L with background.

    Raises
    ------
    UserError
        If SMP is not installed, or does not join these.
    """

    architecture = "smp"

    def __init__(self, decoder: str, encoder: str, n_labels: int) -> None:
        super().__init__()
        smp = extra("segmentation_models_pytorch", "smp")
        try:
            made = smp.create_model(decoder, encoder_name=encoder, encoder_weights=None, classes=n_labels)
        except (KeyError, ValueError, RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            text = str(error.args[0] if error.args else error).partition(", supported encoders")[0]
            raise UserError(f"smp cannot build {decoder} on the encoder {encoder!r}: {text}") from error
        self.network: Any = made
        self._encoder = encoder
        self.stride = int(made.encoder.output_stride) * (2 if decoder == "dpt" else 1)  # dpt halves its coarsest grid

    @property
    def about(self) -> dict[str, Any]:
        """Encoder and architecture."""
        return {"backbone": self._encoder, "architecture": self.architecture}

    @property
    def encoder(self) -> nn.Module:
        """The part that weight files are for."""
        return self.network.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, L, H, W]."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % self.stride, 0, -height % self.stride))
        return self.network(padded)[..., :height, :width]

    def load_encoder(self, state: Mapping[str, Tensor]) -> None:
        """Load the encoder from SMP's names, alone or behind ``encoder.``; those of a classifier are ignored.

        Names of torchvision are those of SMP for ResNet, MobileNetV2, VGG and DenseNet.

        Raises
        ------
        UserError
            Listing the names that are missing, unknown, of another shape or not finite.
        """
        inner = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
        own = self.encoder.state_dict()
        counters = ("num_batches_tracked",)
        found = {k: v for k, v in (inner or state).items() if not k.startswith(HEADS) and not k.endswith(counters)}
        wrong = {
            "missing": [name for name in own if name not in found and not name.endswith(counters)],
            "unknown": [name for name in found if name not in own],
            "of another shape": [name for name in own if name in found and found[name].shape != own[name].shape],
        }
        if any(wrong.values()):
            parts = [f"{len(v)} {k} ({', '.join(v[:3])}{', …' if len(v) > 3 else ''})" for k, v in wrong.items() if v]
            raise UserError(f"the weights do not fit the encoder {self._encoder}: parameters {'; '.join(parts)}")
        require_finite(found, f"the weights of the encoder {self._encoder}")
        self.encoder.load_state_dict(own | found)


def restored(encoder: str, n_labels: int, settings: Mapping[str, Any]) -> SmpNetwork:
    """The network that was trained with these settings of `wsss_core.segment.smp.SmpSettings`."""
    return SmpNetwork(settings["decoder"], encoder, n_labels)
