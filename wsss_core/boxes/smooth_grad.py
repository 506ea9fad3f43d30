"""SmoothGrad: the mean gradient of a detection's score over noisy copies of the image.

Smilkov, Thorat, Kim, Viégas & Wattenberg, "SmoothGrad: removing noise by adding noise", arXiv 1706.03825. The map is
the largest of the channels' absolute mean gradients. One of the methods that the BBAM paper compares itself with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.boxes import Detector, Scene, at_once
from wsss_core.boxes.simple_grad import as_attributions, slopes
from wsss_core.settings import setting
from wsss_core.store.attributions import Attributions


@dataclass(frozen=True)
class SmoothGradSettings:
    """Mean gradients over noisy images."""

    samples: int = setting(50, "noisy copies of the image", minimum=1)
    noise: float = setting(
        0.15, "standard deviation of the noise, as a part of the range of the image's values", minimum=0
    )


def attributions(
    detector: Detector, scenes: Sequence[Scene], settings: SmoothGradSettings, *key: int | str
) -> list[Attributions]:
    """Attribution of every object of some images, at the size of the views.

    Parameters
    ----------
    detector
        Trained, in evaluation mode. It and its gradients are left as they were.
    key
        What the noise is keyed by beside the image's id and the object's number: run seed and stage.
    """
    return [
        as_attributions(scene, [_map(detector, scene, number, settings, *key) for number in range(len(scene.boxes))])
        for scene in scenes
    ]


def _map(detector: Detector, scene: Scene, number: int, settings: SmoothGradSettings, *key: int | str) -> Tensor:
    """The map of one object, [h, w]."""
    draws = keyed.generator(*key, scene.image_id, number)
    deviation = settings.noise * (scene.view.max() - scene.view.min())
    total = torch.zeros_like(scene.view)
    for copies in torch.arange(settings.samples).split(at_once(scene.view)):
        noise = torch.from_numpy(draws.standard_normal((len(copies), *scene.view.shape))).to(scene.view)
        boxes = scene.seen_boxes[number].expand(len(copies), 4)
        columns = (scene.classes[number] + 1).expand(len(copies))
        total += slopes(detector, scene.view + deviation * noise, boxes, columns).sum(0)
    return (total / settings.samples).abs().amax(0)
