"""AdvCAM: change the image so that its class scores higher, and sum the maps on the way.

Lee, Kim & Yoon, "Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic Segmentation",
CVPR 2021 (Lee's dissertation, section 3.3). For every class the image climbs its logit for T steps, while the other
logits are pushed down and regions that are already discriminative are held where they were.

The published code and the paper differ, and both are here (`AdvCamSettings.variant`):

========================  ====================================  ==========================================
\\                         official                              paper
========================  ====================================  ==========================================
maps in the sum           T, of the images before each step;    T + 1, the last image among them
                          half as many at scale 0.5
                          (`steps_at`)
each map                  Grad-CAM, as it is                    CAM of a view, divided by the maximum of
                                                                that of x_0
logits                    means of the maps' positive parts     means of the maps
step                      0.08                                  0.008
range of the image        never leaves that of the step before  not limited
held regions              Grad-CAM of both views added          CAM of each view
========================  ====================================  ==========================================

In both, a step follows the gradient divided by its largest entry. The paper does not say so, but its 0.008 of the plain
gradient would move no pixel by a grey level in all 27 steps. Nor does it say by what CAM is divided: with each map's
own maximum the growth of the peak, which the third term is there to hold, would cost nothing, while one scale for all
images gives its Fig. 3.3 (`growth`).

The engine computes the same numbers as the straightforward loop with less work. The classifier is linear in the last
features, so the channel weights of Grad-CAM, and with them its maps, follow from the logit maps without a backward
pass (`grad_cam`); gradients are taken with respect to the image alone; all classes and both views of a scale pass
through the network together, as far as memory allows; the last step, whose update nothing uses, has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss_core.constants import EPSILON
from wsss_core.data.table import ImageRecord
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import view_pair
from wsss_core.seeds.demands import check_pointwise
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps

CHUNK_PIXELS = {"cpu": 2**20, "cuda": 2**22}
"""Pixels that pass through the network together, unless one class needs more; bounds memory (2.4 kB a pixel with a
ResNet-50)."""

TINY = 1e-12
"""Added to denominators, as in the published code."""


@dataclass(frozen=True)
class AdvCamSettings:
    """AdvCAM; defaults as published for VOC with ResNet-50."""

    variant: Literal["official", "paper"] = setting(
        "official", "where the paper and its published code differ, which to follow (see the module's documentation)"
    )
    iterations: int = setting(27, "climbing steps T; about half of them at scale 0.5 (official)", minimum=2)
    step_size: float | None = setting(
        None,
        "step of the climb (xi), of the gradient divided by its largest entry, in units of the normalised image; null: "
        "0.08 (official) or 0.008 (paper)",
        minimum=0,
    )
    mask_weight: float = setting(7.0, "weight of holding discriminative regions (lambda); 0 for none", minimum=0)
    mask_threshold: float = setting(
        0.5, "regions are held where the map, divided by its maximum, exceeds this (tau)", minimum=0, maximum=1
    )
    scales: tuple[float, ...] = setting(
        (1.0, 0.5, 1.5, 2.0),
        "image scales whose maps are summed, each with its mirror image",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )


def maker(settings: AdvCamSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the step calls it."""
    check_pointwise(inputs.network, "advcam")
    return lambda record, image: advcam_seed(inputs.network, image, record.classes, settings)


def advcam_seed(network: CamNetwork, image: np.ndarray, classes: Sequence[int], settings: AdvCamSettings) -> SeedMaps:
    """AdvCAM of one image. The network and its gradients are left as they were.

    Parameters
    ----------
    network
        Trained classifier.
    image
        uint8 [H, W, 3], RGB.
    classes
        The K present classes, 0-based; each climbs on its own, and their order and company do not matter.

    Returns
    -------
    One map [K, h_s, w_s] a scale, on the network's device. Statistics, of every image at the first scale: ``target``,
    the classes' pooled logits, summed over classes and both views; ``discriminative`` and ``other``, by how much CAM
    grew in the regions of `growth`, on average over classes and views.
    """
    climb = {"official": _official, "paper": _paper}[settings.variant]
    sums: dict[float, Tensor] = {}
    curves: list[Tensor] = []
    for scale in settings.scales:
        views = view_pair(network, image, scale)
        climbs = [climb(network, views, part, settings, scale) for part in _parts(classes, views)]
        sums[scale] = torch.cat([maps for maps, _ in climbs])
        curves.append(sum((curve for _, curve in climbs), torch.zeros(())))
    target, discriminative, other = curves[0].T.tolist()
    views_seen = 2 * len(classes)
    statistics = {
        "target": target,
        "discriminative": [ratio / views_seen for ratio in discriminative],
        "other": [ratio / views_seen for ratio in other],
    }
    return SeedMaps(tuple(classes), sums, image.shape[:2], statistics, network.stride)


def steps_at(scale: float, iterations: int) -> int:
    """Climbing steps of the published code at a scale: at 0.5 half of them, but 5 of 6 to 10, and all of fewer.

    Examples
    --------
    >>> [steps_at(0.5, count) for count in (27, 12, 10, 6, 5, 2)], steps_at(1.0, 27)
    ([13, 6, 5, 5, 5, 2], 27)
    """
    if scale != 0.5:
        return iterations
    return iterations // 2 if iterations > 10 else min(iterations, 5)


def growth(maps: Tensor, first: Tensor) -> Tensor:
    """How much maps grew where those of the first image are discriminative, and where they are not (Fig. 3.3).

    Parameters
    ----------
    maps, first
        Positive parts of the logit maps of K classes for their view pairs, [K, 2, h, w], of an image and of the first.

    Returns
    -------
    Mean of CAM(x_t) / CAM(x_0) over the cells where CAM(x_0), divided by its maximum, is at least 0.5, and over those
    where it is between 0.1 and 0.5; each summed over classes and views: [2]. It is 1 where there are no such cells.
    """
    level = first / (first.amax((2, 3), keepdim=True) + EPSILON)
    ratio = maps / (first + TINY)
    regions = (level >= 0.5, (level > 0.1) & (level < 0.5))
    return torch.stack([_mean_in(ratio, region) for region in regions])


def _mean_in(values: Tensor, region: Tensor) -> Tensor:
    """Mean over the cells of a region, 1 where it is empty; summed over the K classes and their views."""
    cells = region.sum((2, 3))
    mean = torch.where(region, values, 0).sum((2, 3)) / cells.clamp_min(1)
    return torch.where(cells > 0, mean, 1).sum()


def _parts(classes: Sequence[int], views: Tensor) -> list[Tensor]:
    """Classes whose views pass through the network together: all of them, as far as memory allows."""
    together = max(1, CHUNK_PIXELS[views.device.type] // views[:, 0].numel())
    return list(torch.tensor(classes, device=views.device).split(together))


def _official(
    network: CamNetwork, views: Tensor, classes: Tensor, settings: AdvCamSettings, scale: float
) -> tuple[Tensor, Tensor]:
    """The published code's loop (see the module's table): summed maps [K, h, w], and of every image the target and the
    `growth` [T, 3]."""
    iterations = steps_at(scale, settings.iterations)
    size = 0.08 if settings.step_size is None else settings.step_size
    weights = network.classifier.weight.detach()[classes].flatten(1)
    images = views.repeat(len(classes), 1, 1, 1)
    total, curve = torch.zeros(()), []
    for step in range(iterations):
        last = step == iterations - 1
        with torch.set_grad_enabled(not last):
            maps = network.maps(images.requires_grad_(not last)).relu().unflatten(0, (-1, 2))
            own = _of_classes(maps, classes)
            attribution = grad_cam(own, weights)
        present = attribution.detach()
        total = total + 2 * present
        if step == 0:
            first, first_cam = present, own.detach()
        curve.append(_curve(own.detach(), own.detach(), first_cam))
        if last:
            break
        held = present / present.amax((1, 2), keepdim=True) > settings.mask_threshold
        growth = ((attribution - first).abs() * held).sum()
        score = 2 * own.mean((2, 3)).sum() - maps.mean((3, 4)).sum()
        (score - settings.mask_weight * growth).backward(inputs=images)
        assert images.grad is not None  # backward has set it
        pairs = images.detach().unflatten(0, (-1, 2))
        climbed = pairs + size * _direction(images.grad.unflatten(0, (-1, 2)))
        axes = (1, 2, 3, 4)
        images = climbed.clamp(pairs.amin(axes, keepdim=True), pairs.amax(axes, keepdim=True)).flatten(0, 1)
    return total, torch.stack(curve)


def _curve(own: Tensor, cam: Tensor, first_cam: Tensor) -> Tensor:
    """The target's pooled logits and the growth of its maps [K, 2, h, w]: [3]."""
    return torch.cat([own.mean((2, 3)).sum()[None], growth(cam, first_cam)])


def grad_cam(maps: Tensor, weights: Tensor) -> Tensor:
    """Grad-CAM of the positive parts of logit maps, in closed form, both views added.

    The published code takes the gradient g of the sum of a class's positive logits, over both views, with respect to
    the features F; weighs channel k of view b by the sum of g over cells divided by the number of positive entries of
    all g; and maps ``ReLU(sum_k weight_bk F_bk)``. As g is the classifier's weight where a logit is positive, and 0
    elsewhere, that is ``ReLU(L_b) N_b / ((N_0 + N_1) P)`` with N_b positive cells and P positive weights.

    Parameters
    ----------
    maps
        Positive parts of the logit maps of K classes for their view pairs, [K, 2, h, w].
    weights
        The classifier's weights of these classes, [K, D].

    Returns
    -------
    [K, h, w]; gradients flow through `maps`, not through the counts.
    """
    cells = (maps > 0).sum((2, 3), keepdim=True, dtype=maps.dtype)
    channels = (weights > 0).sum(1)[:, None, None, None]
    return _added(maps * (cells / (cells.sum(1, keepdim=True) * channels + TINY)))


def _direction(gradient: Tensor) -> Tensor:
    """Gradients [N, ...], each divided by its largest entry."""
    return gradient / (gradient.abs().flatten(1).amax(1).reshape(-1, *[1] * (gradient.ndim - 1)) + TINY)


def _paper(
    network: CamNetwork, views: Tensor, classes: Tensor, settings: AdvCamSettings, scale: float
) -> tuple[Tensor, Tensor]:
    """The paper's equations (see the module's table): summed maps [K, h, w], and of every image the target and the
    `growth` [T + 1, 3]."""
    size = 0.008 if settings.step_size is None else settings.step_size
    images = views.repeat(len(classes), 1, 1, 1)
    total, curve = torch.zeros(()), []
    for step in range(settings.iterations + 1):
        last = step == settings.iterations
        with torch.set_grad_enabled(not last):
            maps = network.maps(images.requires_grad_(not last)).unflatten(0, (-1, 2))
            own = _of_classes(maps, classes)
            if step == 0:
                peak = own.detach().relu().amax((2, 3), keepdim=True) + EPSILON
            cam = own.relu() / peak
        present = cam.detach()
        total = total + _added(present)
        if step == 0:
            first = present
        curve.append(_curve(own.detach(), present, first))
        if last:
            break
        growth = ((cam - first).abs() * (present > settings.mask_threshold)).sum()
        score = 2 * own.mean((2, 3)).sum() - maps.mean((3, 4)).sum()
        (score - settings.mask_weight * growth).backward(inputs=images)
        assert images.grad is not None  # backward has set it
        images = images.detach() + size * _direction(images.grad)
    return total, torch.stack(curve)


def _of_classes(maps: Tensor, classes: Tensor) -> Tensor:
    """The map of its own class for each of K view pairs: [K, 2, C, h, w] to [K, 2, h, w]."""
    return maps[torch.arange(len(classes), device=maps.device), :, classes]


def _added(maps: Tensor) -> Tensor:
    """The map of the first view and the mirrored one of the second: [K, 2, h, w] to [K, h, w]."""
    return maps[:, 0] + maps[:, 1].flip(-1)
