"""The trained network of a refinement that walks, opened for the images of a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch

from wsss_core.data.table import check_classes
from wsss_core.execution import placed
from wsss_core.models.backbones import BackboneNetwork, backbone
from wsss_core.store.checkpoints import fitting, load_network

Network = TypeVar("Network", bound=BackboneNetwork)


def open_walk_network(
    path: Path, architecture: type[Network], class_names: Sequence[str], device: torch.device
) -> Network:
    """A network that is built on a backbone alone, in evaluation mode on a device.

    Raises
    ------
    UserError
        If the file cannot be read, holds another kind of network, or one for other classes.
    """
    state, meta = load_network(path, architecture.kind)
    check_classes(path, meta.get("class_names", ()), class_names)
    with fitting(path):
        network = architecture(backbone(meta["backbone"]))
        network.load_state_dict(state)
    return placed(network, device).eval()
