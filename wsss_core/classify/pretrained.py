"""A classifier that was trained elsewhere: from a file that a paper's authors have released, or from an earlier run.

What a file holds is told by the names of its parameters, as the published code has them:

===================================  ===================================================================================
``resnet50.…``, ``classifier``       IRN, AdvCAM, RIB (``res50_cam.pth``): ResNet-50 and a last layer without bias
``conv1a`` … ``bn7``, ``fc8``        PSA, and SC-CAM's first round: ResNet-38d
… and ``f8_3``, ``f8_4``, ``f9``     SEAM: with its correlation; the first output of ``fc8`` is the background
… and ``fc8_20``, ``fc8_200``        SC-CAM after a round of clustering
``fc`` or ``classifier.1``           a network of torchvision, whose last layer is of the data set's classes
``model.pt`` of this program         any classifier of a run, whose names of classes are compared
===================================  ===================================================================================

A bias of the last layer is left out: class activation maps never have one, and it moves all scores of a class alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.models import AnyBackboneName, restore_classifier
from wsss_core.models.backbones import backbone as build
from wsss_core.models.backbones import load_weights
from wsss_core.models.cam import CamNetwork
from wsss_core.models.sc_cam import ScCamNetwork
from wsss_core.models.seam import SeamNetwork
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.checkpoints import fitting, load_file, load_network, require_finite

log = logging.getLogger(__name__)

HEADS = ("classifier.weight", "fc8.weight", "fc8_20.weight", "fc.weight", "classifier.1.weight")
"""Names of the last layer's weights, behind whatever words stand before all names."""

OF_SEAM = {
    "f8_3.weight": "correlation.reduce.0",
    "f8_4.weight": "correlation.reduce.1",
    "f9.weight": "correlation.embed",
}
"""Parameters of SEAM's correlation, and their modules here."""

SUBCLASSES = "fc8_200.weight"


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings:
    """A classifier from a file."""

    file: str = setting(REQUIRED, "file of its parameters: one of the published forms, or model.pt of a run")
    backbone: AnyBackboneName = setting("resnet50", "its backbone; a model.pt says it itself")
    classes: tuple[str, ...] = setting(
        (), "names of its outputs in their order, each a class of the data set; []: the classes in the data set's order"
    )


def adopted(settings: PretrainedSettings, class_names: Sequence[str]) -> CamNetwork:
    """The classifier of a file, for the classes of a data set.

    Raises
    ------
    UserError
        If the file is missing or unreadable, does not hold such a classifier, or one for other classes.
    """
    path = Path(settings.file)
    content = load_file(path, "weight file")
    if isinstance(content, dict) and {"kind", "meta", "state"} <= set(content):
        return _own(path, class_names)
    state = load_weights(path)
    words = _words(state)
    if words is None:
        shown = ", ".join(list(state)[:3])
        raise UserError(f"{path}: no parameter is called {' or '.join(HEADS)}; the file holds {shown}, …")
    heads = {name: state[words + name] for name in (*HEADS, *OF_SEAM, SUBCLASSES) if words + name in state}
    rest = {name: value for name, value in state.items() if not _of_a_head(name.removeprefix(words))}
    network = _network(path, settings, heads, class_names)
    try:
        network.backbone.load(rest)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    require_finite(network.state_dict(), str(path))
    network.class_names = tuple(class_names)
    log.info("%s: a classifier of the form %s on %s", path, network.architecture, settings.backbone)
    return network.eval()


def _own(path: Path, class_names: Sequence[str]) -> CamNetwork:
    state, meta = load_network(path, "classifier")
    if list(meta.get("class_names", ())) != list(class_names):
        held = ", ".join(meta.get("class_names", ()))
        raise UserError(f"{path}: is for the classes {held}, in this order; the data set has {', '.join(class_names)}")
    with fitting(path):
        return restore_classifier(state, meta).eval()


def _words(state: Mapping[str, Tensor]) -> str | None:
    """What stands before all names, such as ``module.``; None without a last layer."""
    found = [name.removesuffix(head) for name in state for head in HEADS if name == head or name.endswith(f".{head}")]
    return min(found, key=len, default=None)


def _of_a_head(name: str) -> bool:
    return name in (*OF_SEAM, SUBCLASSES) or any(name.rsplit(".", 1)[0] == head.rsplit(".", 1)[0] for head in HEADS)


def _network(
    path: Path, settings: PretrainedSettings, heads: Mapping[str, Tensor], class_names: Sequence[str]
) -> CamNetwork:
    """The network around the backbone, its last layers filled."""
    trunk, count = build(settings.backbone), len(class_names)
    layer = next(heads[name] for name in HEADS if name in heads)
    if set(OF_SEAM) <= set(heads):
        network: CamNetwork = SeamNetwork(trunk, count)
        for name, module in OF_SEAM.items():
            _fill(path, network.get_submodule(module).get_parameter("weight"), heads[name], name)
        layer = layer[1:]  # the background, whose output nothing uses
    elif SUBCLASSES in heads:
        clusters = len(heads[SUBCLASSES]) // max(1, len(layer))
        network = ScCamNetwork(trunk, count, clusters=clusters)
        grouped = heads[SUBCLASSES].unflatten(0, (len(layer), clusters))[_order(path, settings, layer, class_names)]
        _fill(path, network.get_submodule("subclassifier").get_parameter("weight"), grouped.flatten(0, 1), SUBCLASSES)
    else:
        network = CamNetwork(trunk, count)
    chosen = layer[_order(path, settings, layer, class_names)].reshape(count, -1, 1, 1)
    _fill(path, network.classifier.weight, chosen, "its last layer")
    return network


def _order(path: Path, settings: PretrainedSettings, layer: Tensor, class_names: Sequence[str]) -> list[int]:
    """Numbers of the outputs of the data set's classes, in their order."""
    names = settings.classes or tuple(class_names)
    if len(names) != len(layer):
        told = "the setting classes names" if settings.classes else "the data set has"
        raise UserError(f"{path}: its classifier has {len(layer)} outputs, {told} {len(names)} classes")
    missing = [name for name in class_names if name not in names]
    if missing:
        raise UserError(f"{path}: the setting classes does not name {', '.join(missing)}, which the data set has")
    return [names.index(name) for name in class_names]


def _fill(path: Path, parameter: Tensor, value: Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        had, wanted = ("x".join(map(str, one.shape)) for one in (value, parameter))
        raise UserError(f"{path}: {name} is {had}, this backbone takes {wanted}: is it another backbone's file?")
    parameter.data.copy_(value)
