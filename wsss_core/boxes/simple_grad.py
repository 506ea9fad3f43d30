"""SimpleGrad: how much each pixel would change the score of a detection.

Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency
Maps", ICLR 2014 (workshop). With S the score of an object's class, seen from its box: the largest of the channels'
``|dS / dx|``. One of the gradient methods that the BBAM paper compares itself with. S is the logarithm of the class's
odds: its gradient is that of the probability but for a factor p (1 - p), with which a sure detection would have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsss_core.boxes import Detector, Scene, at_once
from wsss_core.store.attributions import Attributions


@dataclass(frozen=True)
class SimpleGradSettings:
    """Gradients of detections, which have no settings."""


def attributions(
    detector: Detector, scenes: Sequence[Scene], settings: SimpleGradSettings, *key: int | str
) -> list[Attributions]:
    """Attribution of every object of some images, at the size of the views.

    Parameters
    ----------
    detector
        Trained, in evaluation mode. It and its gradients are left as they were.
    key
        Not used: nothing is drawn.
    """
    return [as_attributions(scene, _maps(detector, scene)) for scene in scenes]


def as_attributions(scene: Scene, maps: Sequence[Tensor]) -> Attributions:
    """The record of an image from non-negative maps [gh, gw], each divided by its maximum; 0 is no attribution."""
    found = [bool(one.any()) for one in maps]
    scaled = [one / one.max() if there else one for one, there in zip(maps, found, strict=True)]
    return scene.attributed(scaled, found, {"without": found.count(False)})


def slopes(detector: Detector, views: Tensor, boxes: Tensor, columns: Tensor) -> Tensor:
    """Gradient of a class's score with respect to the image, [B, 3, h, w].

    Parameters
    ----------
    views
        [B, 3, h, w].
    boxes
        The proposal in each view, [B, 4].
    columns
        Its class among those of the detector, int64 [B].
    """
    with torch.enable_grad():
        images = views.detach().requires_grad_(True)
        probabilities, _ = detector(images, list(boxes.split(1)))
        return torch.autograd.grad(log_odds(probabilities, columns).sum(), images)[0]


def log_odds(probabilities: Tensor, columns: Tensor) -> Tensor:
    """Logarithm of p / (1 - p) of a class in each row, [n].

    Parameters
    ----------
    probabilities
        [n, C + 1], which add up to one.
    columns
        Number of the class in each row, int64 [n].

    Examples
    --------
    >>> log_odds(torch.tensor([[0.2, 0.8]]), torch.tensor([1])).exp().round(decimals=3).tolist()
    [4.0]
    """
    own = probabilities.gather(1, columns[:, None])[:, 0]
    others = probabilities.scatter(1, columns[:, None], 0).sum(1)  # 1 - p would be 0 long before
    least = torch.finfo(probabilities.dtype).tiny
    return own.clamp(min=least).log() - others.clamp(min=least).log()


def _maps(detector: Detector, scene: Scene) -> list[Tensor]:
    found: list[Tensor] = []
    count = at_once(scene.view)
    for boxes, classes in zip(scene.seen_boxes.split(count), scene.classes.split(count), strict=True):
        if len(boxes):
            views = scene.view.expand(len(boxes), -1, -1, -1)
            found += slopes(detector, views, boxes, classes + 1).abs().amax(1)
    return found
