"""Networks: backbones behind one interface, and what is built on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from wsss_core.constants import TIMM
from wsss_core.settings import Text

if TYPE_CHECKING:
    from torch import Tensor

    from wsss_core.models.cam import CamNetwork

BackboneName = Literal["resnet50", "resnet101", "resnet38d", "mobilenet_v2", "vgg16", "small"]
"""This project's own backbones."""

TimmName = Annotated[str, Text(rf"^{TIMM}[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$", f"{TIMM}NAME of a network of timm")]
"""Networks of timm, with the tag of published weights or without; never one that would be fetched."""

AnyBackboneName = BackboneName | TimmName
"""Backbones that settings may name."""

PyramidBackboneName = Literal["resnet50", "resnet101", "mobilenet_v2", "small"]
"""Backbones that a feature pyramid can be built on: those with an output stride of 32."""


def cam_network(backbone: str, n_classes: int, state: Mapping[str, Tensor] | None = None) -> CamNetwork:
    """A classifier whose class activation maps can be read off, at the backbone's own output stride.

    Parameters
    ----------
    backbone
        "resnet50", "resnet101", "mobilenet_v2", "vgg16" or "small", at output stride 16; "resnet38d", at 8; or
        "timm:<name>", at the stride that `wsss_core.models.backbones.backbone` says.
    n_classes
        Number of foreground classes C.
    state
        All parameters: either the ``state_dict()`` of such a network, or the backbone's in their published names
        (see `wsss_core.models.backbones.backbone`) with ``classifier.weight``. None leaves them random.

    Raises
    ------
    UserError
        If the backbone is unknown or the state does not fit.
    """
    from wsss_core.models.backbones import backbone as build
    from wsss_core.models.cam import CamNetwork

    network = CamNetwork(build(backbone), n_classes)
    if state is not None:
        network.load(state)
    return network


def restore_classifier(state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> CamNetwork:
    """A trained classifier from its checkpoint, on the CPU.

    Parameters
    ----------
    state, meta
        As `wsss_core.store.checkpoints.load_network` returns them; the meta data name the backbone, the classes and
        the architecture.

    Raises
    ------
    UserError
        If the state does not fit.
    """
    from wsss_core.models.backbones import backbone as build
    from wsss_core.registry import ARCHITECTURES, imported

    architecture = imported(ARCHITECTURES[meta["architecture"]])
    network = architecture(build(meta["backbone"]), len(meta["class_names"]), **meta["architecture_settings"])
    network.load(state)
    network.class_names = tuple(meta["class_names"])
    return network
