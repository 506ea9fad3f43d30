"""A trained classifier, opened for a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from wsss_core.data.table import check_classes
from wsss_core.models import trained
from wsss_core.models.cam import CamNetwork


def open_classifier(path: Path, class_names: Sequence[str], device: torch.device) -> CamNetwork:
    """A trained classifier in evaluation mode on a device, without gradients.

    Raises
    ------
    UserError
        If it cannot be read or was trained for another class list.
    """
    network = trained.open_classifier(path, device)
    check_classes(path, network.class_names, class_names)
    return network
