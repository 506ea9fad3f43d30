"""Networks of refinements that were trained elsewhere: their parameters under published names, or a run's own file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from wsss_core.data.table import check_classes
from wsss_core.errors import UserError
from wsss_core.models import BackboneName
from wsss_core.models.backbones import BackboneNetwork, load_weights
from wsss_core.models.backbones import backbone as build
from wsss_core.store.checkpoints import load_file, load_network, require_finite

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=BackboneNetwork)


def adopted_network(
    path: Path,
    backbone: BackboneName,
    architecture: type[Network],
    published: Mapping[str, Sequence[str]],
    class_names: Sequence[str],
) -> Network:
    """The network of a file, in evaluation mode.

    Parameters
    ----------
    backbone
        Of the network, unless the file is a run's own.
    architecture
        A network that is built on a backbone alone.
    published
        Its parameters and buffers beside the backbone's, to the names that they may have in the file.
    class_names
        Those of the data set; a run's own network must be for the same.

    Raises
    ------
    UserError
        If the file is missing or unreadable, or does not hold such a network.
    """
    content = load_file(path, "weight file")
    if isinstance(content, dict) and {"kind", "meta", "state"} <= set(content):
        own, meta = load_network(path, architecture.kind)
        check_classes(path, meta["class_names"], class_names)
        network = architecture(build(meta["backbone"]))
        network.load_state_dict(own)
        return network.eval()
    state = load_weights(path)
    first = next(iter(published.values()))[0]
    words = min((name.removesuffix(first) for name in state if name.endswith(first)), key=len, default=None)
    if words is None:
        shown = ", ".join(list(state)[:3])
        raise UserError(f"{path}: no parameter is called {first}; the file holds {shown}, …")
    network = architecture(build(backbone))
    _fill(path, network, {name.removeprefix(words): value for name, value in state.items()}, published)
    layers = {first.partition(".")[0] for names in published.values() for first in names}
    rest = {name: value for name, value in state.items() if name.removeprefix(words).partition(".")[0] not in layers}
    try:
        network.backbone.load(rest)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    require_finite(network.state_dict(), str(path))
    log.info("%s: a network of the kind %s on %s", path, network.kind, backbone)
    return network.eval()


def _fill(
    path: Path, network: BackboneNetwork, state: Mapping[str, Tensor], published: Mapping[str, Sequence[str]]
) -> None:
    """Copy what stands beside the backbone."""
    own = network.state_dict()
    for name, names in published.items():
        found = next((called for called in names if called in state), None)
        if found is None:
            raise UserError(f"{path}: {names[0]} is missing")
        if state[found].shape != own[name].shape:
            had, wanted = ("x".join(map(str, one.shape)) for one in (state[found], own[name]))
            raise UserError(f"{path}: {found} is {had}, not {wanted}: is it another backbone's file?")
        own[name].copy_(state[found])
