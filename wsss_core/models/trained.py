"""Trained networks, opened from their checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from wsss_core.execution import placed
from wsss_core.models import restore_classifier
from wsss_core.models.cam import CamNetwork
from wsss_core.store.checkpoints import fitting, load_network


def open_classifier(path: Path | str, device: torch.device | str = "cpu") -> CamNetwork:
    """A trained classifier in evaluation mode on a device, without gradients.

    Parameters
    ----------
    path
        ``model.pt`` of a run's stage of the section "classifiers".
    device
        Such as "cpu" or "cuda".

    Returns
    -------
    The network; its ``class_names`` are those of the classes that it tells apart.

    Raises
    ------
    UserError
        If the file is missing or is not the checkpoint of a classifier.

    Examples
    --------
    >>> from wsss_core.models import cam_network
    >>> from wsss_core.store.checkpoints import save_network
    >>> meta = {"backbone": "small", "architecture": "cam", "architecture_settings": {}, "class_names": ["cat", "dog"]}
    >>> save_network(Path("model.pt"), "classifier", cam_network("small", 2).state_dict(), meta)
    >>> network = open_classifier("model.pt")
    >>> network.class_names, network(torch.zeros(1, 3, 64, 64)).shape
    (('cat', 'dog'), torch.Size([1, 2]))
    """
    state, meta = load_network(Path(path), "classifier")
    with fitting(path):
        network = restore_classifier(state, meta)
    if torch.device(device).type == "cpu":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack this
    return placed(network, torch.device(device)).eval().requires_grad_(False)
