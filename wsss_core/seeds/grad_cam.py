"""Grad-CAM: features of any stage, weighed by how much the class logit depends on them.

Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra, "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017. With T the features of a stage, [D, h, w], and y_c a class's logit::

    w_k = mean over cells of dy_c / dT_k,    G_c = ReLU(sum_k w_k T_k)

y_c is taken as the sum of the class's logit map, not as its mean: within an image of one scale that is a constant
factor, and it keeps the scales' maps comparable. For the last stage and a classifier that is a 1x1 convolution w_k is
then the classifier's weight, and G_c the class activation map.

J. Lee's dissertation writes Grad-CAM without the mean (Eq. 2.2), each cell weighed by its own gradient::

    G_c = ReLU(sum_k T_k dy_c / dT_k)

which is `GradCamSettings.gradient: cell`. At the last stage, where the gradient is the same in all cells, both are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.table import ImageRecord
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import flip_sum, view_pair
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class GradCamSettings:
    """Grad-CAM."""

    stage: int = setting(
        5, "stage of the backbone whose features are weighed, of 5; earlier ones are finer", minimum=1, maximum=5
    )
    gradient: Literal["mean", "cell"] = setting(
        "mean",
        "what weighs the features: mean: of each channel, as published; cell: of each cell itself (Eq. 2.2 of J. Lee's "
        "dissertation)",
    )
    scales: tuple[float, ...] = setting(
        (1.0, 0.5, 1.5, 2.0),
        "image scales whose maps are summed, each with its mirror image",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )


def maker(settings: GradCamSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the step calls it."""
    return lambda record, image: grad_cam_seed(inputs.network, image, record.classes, settings)


def grad_cam_seed(
    network: CamNetwork, image: np.ndarray, classes: Sequence[int], settings: GradCamSettings
) -> SeedMaps:
    """Grad-CAM of one image. The network and its gradients are left as they were.

    Parameters
    ----------
    network
        Trained classifier.
    image
        uint8 [H, W, 3], RGB.
    classes
        The K present classes, 0-based.

    Returns
    -------
    One map [K, h_s, w_s] a scale, at the stride of the stage, on the network's device.
    """
    maps = {}
    for scale in settings.scales:
        views = view_pair(network, image, scale)
        output, logits = features_and_logits(network, views, classes, settings.stage)
        gradients = [torch.autograd.grad(logit, output, retain_graph=True)[0] for logit in logits]
        features, *gradients = (
            network.backbone.tap(settings.stage - 1, values, views.shape[2:])
            for values in (output.detach(), *gradients)
        )
        weighed = _WEIGHED[settings.gradient]
        maps[scale] = flip_sum(torch.stack([weighed(features, gradient) for gradient in gradients], 1))
    stride = network.backbone.strides[settings.stage - 1]
    return SeedMaps(tuple(classes), maps, image.shape[:2], stride=stride)


def features_and_logits(
    network: CamNetwork, images: Tensor, classes: Sequence[int], stage: int
) -> tuple[Tensor, Tensor]:
    """What a stage gives, 1 to 5, and the classes' logit maps summed over cells and images, [K]."""
    taken = []

    def take(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        taken.append(output.detach().requires_grad_(True))
        return taken[0]

    hook = network.backbone.stages[stage - 1].register_forward_hook(take)
    try:
        with torch.enable_grad():
            logits = network.maps(images, classes).sum((0, 2, 3))
    finally:
        hook.remove()
    return taken[0], logits


def weighed_by_channel(features: Tensor, gradient: Tensor) -> Tensor:
    """Features [B, D, h, w], channels weighed by the spatial mean of the gradient and summed: [B, h, w], any sign."""
    return (features * gradient.mean((2, 3), keepdim=True)).sum(1)


def weighed_by_cell(features: Tensor, gradient: Tensor) -> Tensor:
    """Features [B, D, h, w], each weighed by its own gradient and summed: [B, h, w], any sign."""
    return (features * gradient).sum(1)


_WEIGHED = {"mean": weighed_by_channel, "cell": weighed_by_cell}
