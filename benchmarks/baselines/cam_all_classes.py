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
    height, width = image.shape[:2]
    outputs = []
    for scale in scales:
        views = torch.from_numpy(scaled_pair(image, scale)).to(network.classifier.weight.device)
        maps = F.relu(F.conv2d(network.features(views), network.classifier.weight))
        outputs.append((maps[0] + maps[1].flip(-1))[None])
    strided = ((height - 1) // 4 + 1, (width - 1) // 4 + 1)
    padded = (((height - 1) // 16 + 1) * 16, ((width - 1) // 16 + 1) * 16)
    found = []
    for size in (strided, padded):
        summed = sum(F.interpolate(o, size, mode="bilinear", align_corners=False)[0] for o in outputs)
        kept = summed[list(classes), :height, :width]
        found.append(kept / (kept.amax((1, 2), keepdim=True) + 1e-5))
    return found[0].cpu(), found[1].cpu()
