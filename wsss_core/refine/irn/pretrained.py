"""IRN's network, trained elsewhere: a file as the published code saves it, or ``network.pt`` of a run.

The published code (Ahn et al., CVPR 2019) has ResNet-50 as ``resnet50`` and calls the boundary branch ``fc_edge1`` to
``fc_edge6``, the displacement branch ``fc_dp1`` to ``fc_dp7``, each with a convolution and its group normalisation. The
mean displacement is the running mean of the last part of ``fc_dp7``. What a file holds twice (``edge_layers``,
``stage1`` …) and its tables of paths are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.models import BackboneName
from wsss_core.models.irn import IrnNetwork
from wsss_core.refine.pretrained import adopted_network
from wsss_core.settings import REQUIRED, setting


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings:
    """IRN's network from a file."""

    file: str = setting(REQUIRED, "file of its parameters: res50_irn.pth of the published code, or network.pt of a run")
    backbone: BackboneName = setting("resnet50", "its backbone; a network.pt says it itself")


def _published() -> dict[str, tuple[str, ...]]:
    """Parameters beside the backbone's, to their published names."""
    blocks = {f"edge_taps.{k}": f"fc_edge{k + 1}" for k in range(5)}
    blocks |= {f"displacement_taps.{k}": f"fc_dp{k + 1}" for k in range(5)}
    blocks |= {"displacement_coarse": "fc_dp6", "displacement_head.0": "fc_dp7"}
    parts = ("0.weight", "1.weight", "1.bias")
    names: dict[str, tuple[str, ...]] = {
        f"{own}.{part}": (f"{published}.{part}",) for own, published in blocks.items() for part in parts
    }
    names |= {f"edge_head.{part}": (f"fc_edge6.{part}",) for part in ("weight", "bias")}
    names["displacement_head.2.weight"] = ("fc_dp7.3.weight",)
    names["mean_shift"] = ("fc_dp7.4.running_mean", "mean_shift.running_mean")
    return names


PUBLISHED = _published()


def adopted(settings: PretrainedSettings, class_names: Sequence[str]) -> IrnNetwork:
    """The network of a file; errors as for `adopted_network`."""
    return adopted_network(Path(settings.file), settings.backbone, IrnNetwork, PUBLISHED, class_names)
