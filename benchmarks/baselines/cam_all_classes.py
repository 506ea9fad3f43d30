"""Multi-scale class activation maps as the published loop makes them: every class, both stored resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.data.augment import scaled_pair


@torch.no_grad()
def cam_all_classes(
    network, image: np.ndarray, classes: Sequence[int], scales: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Maps at stride 4 and at full resolution, as `SeedMaps.strided` and `SeedMaps.full` of plain CAM."""
    outputs = []
    for scale in scales:
        maps = _maps(network, torch.from_numpy(scaled_pair(image, scale)))
        outputs.append((maps[0] + maps[1].flip(-1))[None])
    return _stored(outputs, classes, image.shape[:2])


@torch.no_grad()
def cam_view_by_view(
    network, image: np.ndarray, classes: Sequence[int], scales: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """`cam_all_classes` with a forward pass for each view."""
    outputs = []
    for scale in scales:
        views = torch.from_numpy(scaled_pair(image, scale))
        outputs.append(_maps(network, views[:1]) + _maps(network, views[1:]).flip(-1))
    return _stored(outputs, classes, image.shape[:2])


def _maps(network, views: Tensor) -> Tensor:
    """Non-negative maps of all classes, [B, C, h, w], of views [B, 3, H, W]."""
    weight = network.classifier.weight
    return F.relu(F.conv2d(network.features(views.to(weight.device)), weight))


def _stored(outputs: Sequence[Tensor], classes: Sequence[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Both stored resolutions of maps [1, C, h, w] at each scale."""
    height, width = size
    strided = ((height - 1) // 4 + 1, (width - 1) // 4 + 1)
    padded = (((height - 1) // 16 + 1) * 16, ((width - 1) // 16 + 1) * 16)
    found = []
    for target in (strided, padded):
        summed = sum(F.interpolate(o, target, mode="bilinear", align_corners=False)[0] for o in outputs)
        kept = summed[list(classes), :height, :width]
        found.append(kept / (kept.amax((1, 2), keepdim=True) + 1e-5))
    return found[0].cpu(), found[1].cpu()
