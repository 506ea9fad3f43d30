"""What the benchmarks work on: drawn pictures, networks with harmless random weights, and counts of operations."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wsss_core.models import cam_network
from wsss_core.models.backbones import FixedBatchNorm
from wsss_core.models.cam import CamNetwork


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colour regions with soft edges and texture, uint8 [H, W, 3]."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=draw) * 255
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    grain = 12 * torch.randn(smooth.shape, generator=draw)
    return (smooth + grain).clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def photo_files(count: int, size: tuple[int, int]) -> list[Path]:
    """Drawn photos of a size (H, W) as JPEG files, in a folder of their own that lasts as long as the process."""
    folder = tempfile.TemporaryDirectory()
    _FOLDERS.append(folder)
    paths = [Path(folder.name) / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(photo(*size, seed=number)).save(path, quality=90)
    return paths


_FOLDERS: list[tempfile.TemporaryDirectory] = []


def classifier(backbone: str, n_classes: int, device: torch.device) -> CamNetwork:
    """A classifier in evaluation mode whose random weights keep activations in range."""
    torch.manual_seed(0)
    network = cam_network(backbone, n_classes).eval()
    calm(network)
    nn.init.normal_(network.classifier.weight, std=0.5)
    return network.to(device, memory_format=torch.channels_last)


def calm(network: nn.Module) -> None:
    """Damp the batch normalisation, which with random weights lets residual networks grow without bound."""
    for module in network.modules():
        if isinstance(module, FixedBatchNorm):
            nn.init.constant_(module.weight, 0.6)


def multiplications(run: Callable[[], object]) -> float:
    """Floating-point operations of the products and convolutions in `run`, two for each multiplication."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def pair_operations(
    backbone: str, n_classes: int, size: tuple[int, int], scales: Sequence[float]
) -> dict[float, tuple[float, float]]:
    """Operations of a forward pass of a view pair at every scale: of the unchanging stages, and of the rest."""
    with torch.device("meta"):
        network = cam_network(backbone, n_classes)
    found = {}
    with torch.no_grad():
        for scale in scales:
            views = torch.empty(2, 3, *(round(side * scale) for side in size), device="meta")
            features: list[Tensor] = []
            prefix = multiplications(lambda views=views, into=features: into.append(network.prefix(views)))
            rest = multiplications(lambda into=features: network.classify(network.trunk(into[0])))
            found[scale] = prefix, rest
    return found
