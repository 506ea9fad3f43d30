"""Grad-CAM of a detection: the features it is pooled from, weighed by how much its score depends on them.

Selvaraju et al., "Grad-CAM", ICCV 2017, for a two-stage detector with a feature pyramid. With T the features of the
level that a box is pooled from, [D, h, w], and S the probability of the object's class, seen from its box::

    w_k = mean over cells of dS / dT_k,    G = ReLU(sum_k w_k T_k)

One of the gradient methods that the BBAM paper compares itself with; which features it takes there is not said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.boxes import LevelledDetector, Scene
from wsss_core.boxes.simple_grad import as_attributions
from wsss_core.store.attributions import Attributions


@dataclass(frozen=True)
class GradCamSettings:
    """Grad-CAM of detections, which has no settings."""


def attributions(
    detector: LevelledDetector, scenes: Sequence[Scene], settings: GradCamSettings, *key: int | str
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


def _maps(detector: LevelledDetector, scene: Scene) -> list[Tensor]:
    if not len(scene.boxes):
        return []
    boxes = scene.seen_boxes
    size = (scene.view.shape[1], scene.view.shape[2])
    with torch.no_grad():
        taken = detector.features(scene.view[None])
    features = [level.detach().requires_grad_(True) for level in taken]
    with torch.enable_grad():
        probabilities, _ = detector.heads(features, [boxes], size)
        scores = probabilities.gather(1, scene.classes[:, None] + 1)[:, 0]
    found = []
    for score, level in zip(scores, detector.levels(boxes).tolist(), strict=True):
        values = features[level]
        (gradient,) = torch.autograd.grad(score, values, retain_graph=True)
        cells = (values.detach() * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
        found.append(F.interpolate(cells, size, mode="bilinear", align_corners=False)[0, 0])
    return found
