"""The network of the reference vectors, rebuilt from its seed."""

import importlib.util
from pathlib import Path

import torch
import torchvision

from wsss_core.models import cam_network
from wsss_core.models.cam import CamNetwork


def reference_resnet50(shared: Path, seed: int) -> CamNetwork:
    """ResNet-50 with 20 classes and the weights of `seed`."""
    spec = importlib.util.spec_from_file_location("seeded_weights", shared / "reference" / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.device("meta"):
        published = torchvision.models.resnet50().state_dict()
    shapes = {name: tuple(value.shape) for name, value in published.items() if not name.startswith("fc.")}
    weights = module.seeded_weights(shapes | {"classifier.weight": (20, 2048, 1, 1)}, seed)
    state = {name: torch.from_numpy(value).float() for name, value in weights.items()}
    return cam_network("resnet50", 20, state).eval()
