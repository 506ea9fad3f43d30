"""AffinityNet, trained elsewhere: a file as the published code saves it, or ``network.pt`` of a run.

The published code (Ahn & Kwak, CVPR 2018; SEAM and SC-CAM share it) projects the last three taps of a ResNet-38d by
``f8_3``, ``f8_4`` and ``f8_5``, and mixes them by ``f9``. Files on the VGG-16 of that code, which has two more layers
than the one here, do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.models import BackboneName
from wsss_core.models.affinity import AffinityNetwork
from wsss_core.refine.pretrained import adopted_network
from wsss_core.settings import REQUIRED, setting


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings:
    """AffinityNet from a file."""

    file: str = setting(
        REQUIRED, "file of its parameters: resnet38_aff.pth of the published code, or network.pt of a run"
    )
    backbone: BackboneName = setting("resnet38d", "its backbone; a network.pt says it itself")


PUBLISHED = {
    "taps.0.0.weight": ("f8_3.weight",),
    "taps.1.0.weight": ("f8_4.weight",),
    "taps.2.0.weight": ("f8_5.weight",),
    "mix.weight": ("f9.weight",),
}
"""Parameters beside the backbone's, to their published names."""


def adopted(settings: PretrainedSettings, class_names: Sequence[str]) -> AffinityNetwork:
    """The network of a file; errors as for `adopted_network`."""
    return adopted_network(Path(settings.file), settings.backbone, AffinityNetwork, PUBLISHED, class_names)
