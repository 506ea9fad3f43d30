"""AdvCAM as the obvious loop: one class at a time, two backward passes a step, Grad-CAM by automatic differentiation.

The reference for the engine in `wsss_core.seeds.advcam` (variant official): same numbers, none of its savings.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from wsss_core.data.augment import scaled_pair
from wsss_core.seeds.advcam import steps_at


def advcam_loop(network, image: np.ndarray, classes, settings) -> dict[float, torch.Tensor]:
    """AdvCAM of one image, scale to [K, h_s, w_s]; `settings` with a step size."""
    return {
        scale: torch.stack([climb(network, scaled_pair(image, scale), c, settings, scale) for c in classes])
        for scale in settings.scales
    }


def climb(network, views: np.ndarray, c: int, settings, scale: float) -> torch.Tensor:
    """Summed maps [h, w] of one class at one scale, from the view pair [2, 3, H, W]."""
    images = torch.from_numpy(views).to(network.classifier.weight)
    iterations = steps_at(scale, settings.iterations)
    total = 0
    for step in range(iterations):
        images = images.detach().requires_grad_(True)
        features = network.features(images)
        features.retain_grad()
        logits = F.conv2d(features, network.classifier.weight)
        network.zero_grad()
        F.relu(logits[:, c]).sum().backward(retain_graph=True)
        gradient = features.grad
        weights = gradient.sum((2, 3), keepdim=True) / ((gradient > 0).sum() + 1e-12)
        heat = F.relu((weights.detach() * features).sum(1))
        attribution = heat[0] + heat[1].flip(-1)
        total = total + 2 * attribution.detach()
        if step == 0:
            first = attribution.detach()
        mask = attribution.detach() / attribution.detach().max() > settings.mask_threshold
        scores = F.relu(logits).mean((2, 3))
        objective = 2 * scores[:, c].sum() - scores.sum()
        objective = objective - settings.mask_weight * ((attribution - first).abs() * mask).sum()
        network.zero_grad()
        images.grad = None
        objective.backward()
        slope = images.grad / (images.grad.abs().max() + 1e-12)
        values = images.detach()
        images = (values + settings.step_size * slope).clamp(values.min(), values.max())
    network.zero_grad()
    return total
