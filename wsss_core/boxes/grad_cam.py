"""Grad-CAM of a detection: the features it is pooled from, weighed by how much its score depends on them.

Selvaraju et al., "Grad-CAM", ICCV 2017, for a two-stage detector with a feature pyramid. With T the features of the
level that a box is pooled from, [D, h, w], and S the log-odds of the object's class, seen from its box::

    w_k = mean over cells of dS / dT_k,    G = ReLU(sum_k w_k T_k)

One of the gradient methods that the BBAM paper compares itself with; which features it takes there is not said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.boxes import PyramidDetector, Scene
from wsss_core.boxes.simple_grad import as_attributions, log_odds
from wsss_core.store.attributions import Attributions


@dataclass(frozen=True)
class GradCamSettings:
    """Grad-CAM of detections, which has no settings."""


def attributions(
    detector: PyramidDetector, scenes: Sequence[Scene], settings: GradCamSettings, *key: int | str
) -> list[Attributions]:
    """Attribution of every object of some images, enlarged to the size of the views.

    Parameters
    ----------
    detector
        Trained, in evaluation mode. It and its gradients are left as they were.
    key
        Not used: nothing is drawn.
    """
    return [as_attributions(scene, _maps(detector, scene)) for scene in scenes]


def _maps(detector: PyramidDetector, scene: Scene) -> list[Tensor]:
    if not len(scene.boxes):
        return []
    with torch.no_grad():
        taken = detector.pyramid(scene.view[None])
    features = {name: level.detach().requires_grad_(True) for name, level in taken.items()}
    with torch.enable_grad():
        probabilities, _ = detector.judged(features, [scene.seen_boxes])
        scores = log_odds(probabilities, scene.classes + 1)
    return [_map(score, list(features.values()), scene) for score in scores]


def _map(score: Tensor, features: Sequence[Tensor], scene: Scene) -> Tensor:
    """The map of one score, [h, w]; levels that a box is not pooled from have no gradient, and add nothing."""
    gradients = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)
    total = scene.view.new_zeros(scene.view.shape[1:])
    for values, gradient in zip(features, gradients, strict=True):
        if gradient is not None:
            cells = (values.detach() * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
            total += F.interpolate(cells, total.shape, mode="bilinear", align_corners=False)[0, 0]
    return total
