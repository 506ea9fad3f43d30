"""What several stages do with a trained classifier: open it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from wsss_core.models import restore_classifier
from wsss_core.models.cam import CamNetwork
from wsss_core.stages.inputs import check_classes
from wsss_core.store.checkpoints import load_network


def open_classifier(path: Path, class_names: Sequence[str], device: torch.device) -> CamNetwork:
    """A trained classifier in evaluation mode on a device, without gradients.

    Raises
    ------
    UserError
        If it cannot be read or was trained for another class list.
    """
    state, meta = load_network(path, "classifier")
    check_classes(path, meta["class_names"], class_names)
    network = restore_classifier(state, meta)
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
