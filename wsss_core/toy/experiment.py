"""The toy experiment of RIB (NeurIPS 2021, sections 3.1 and 3.2): what reaches the layers of a classifier.

A classifier learns to tell digits 2 from 8; in a tenth of the images a circle goes with the 2 and a square with the 8.
For every layer l the gradient map G_l is taken with respect to the image, and the high gradient ratio (HGR) of a region
is the fraction of its pixels whose gradient is above 0.3. The paper's observations: the HGR of the marks, which are
class-relevant but not needed, falls most of all in the last layer; and adapting the classifier to an image with RIB
raises that of digits and marks, while that of the background stays.

The paper does not say how large the network, the marks and the steps of RIB are, nor the unit of a gradient. Here the
unit of a layer is the maximum of the image's map in that layer, and under RIB it is the maximum at iteration 0: divided
by its own maximum, a map whose gradients grow everywhere looks as if nothing had changed. The HGR of the undivided maps
is beside it in the tables. The measured images were not trained on, and each of them has a mark. RIB's rate is chosen
on other images, which are neither trained on nor measured.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core import keyed, training
from wsss_core.execution import Execution
from wsss_core.settings import setting
from wsss_core.toy.data import ToyImages
from wsss_core.toy.network import LAYERS, ToyNetwork, gradient_maps

log = logging.getLogger(__name__)

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
"""Rates of RIB to choose among."""


@dataclass(frozen=True)
class ToySettings:
    """The toy experiment of RIB, made by the target `toy` and by nothing else."""

    mnist: str | None = setting(
        None, "folder of MNIST's idx files (train, t10k or both); null: scikit-learn's digits of 8x8 pixels, enlarged"
    )
    marked: float = setting(0.1, "fraction of the training images with a circle or square", minimum=0, maximum=1)
    measured: int = setting(100, "images to measure, all with a mark, none of them trained on", minimum=2)
    iterations: int = setting(1500, "training steps of the classifier (Adam)", minimum=1)
    batch_size: int = setting(32, "images a training step", minimum=1)
    learning_rate: float = setting(2e-3, "of the classifier's training", exclusiveMinimum=0)
    tried: int = setting(
        40, "images to choose RIB's rate on, all with a mark, neither trained on nor measured", minimum=2
    )
    threshold: float = setting(
        0.3,
        "a gradient is high above this fraction of its unit: the maximum of a layer's map, at RIB iteration 0",
        minimum=0,
        maximum=1,
    )
    steps: int = setting(10, "RIB iterations K", minimum=0)
    rate: float | None = setting(
        None,
        "RIB's learning rate λ, of the mean loss of a batch; null: of 2.5e-4, 5e-4, 1e-3 and 2e-3 the one after which "
        "the HGR of digit and mark exceeds that of the background most, on the images `tried`",
        minimum=0,
    )
    rib_batch: int = setting(
        20, "images a RIB iteration B: the image itself and B - 1 of the training images", minimum=1
    )
    margin: float = setting(600.0, "RIB's margin m: logits above it do not count", exclusiveMinimum=0)


class ToyBatches:
    """``batches[k]`` is (images float32 [B, 1, 28, 28], one-hot labels float32 [B, 2]), a function of (seed, k)."""

    def __init__(self, images: ToyImages, iterations: int, batch_size: int, seed: int) -> None:
        self.images, self.labels = images_of(images), F.one_hot(torch.from_numpy(images.classes), 2).float()
        self.iterations, self.batch_size, self.seed = iterations, min(batch_size, len(images.images)), seed

    def __len__(self) -> int:
        return self.iterations

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        if not 0 <= step < len(self):
            raise IndexError(step)
        rng = keyed.generator(self.seed, "toy", "batch", step)
        chosen = rng.choice(len(self.images), self.batch_size, replace=False)
        return self.images[chosen], self.labels[chosen]


def images_of(images: ToyImages) -> Tensor:
    """The images as the network takes them, [N, 1, 28, 28]."""
    return torch.from_numpy(images.images)[:, None]


def train(images: ToyImages, settings: ToySettings, seed: int, execution: Execution) -> ToyNetwork:
    """A classifier trained with binary cross-entropy, in evaluation mode."""
    torch.manual_seed(keyed.integer(seed, "toy", "initial weights"))
    network = ToyNetwork()
    training.fit(
        network,
        ToyBatches(images, settings.iterations, settings.batch_size, seed),
        lambda batch: {"loss": F.binary_cross_entropy_with_logits(network(batch[0]), batch[1])},
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        training.polynomial(settings.iterations),
        seed=keyed.integer(seed, "toy"),
        execution=execution,
        log_every=250,
    )
    return network.cpu().eval()


@torch.no_grad()
def accuracy(network: ToyNetwork, images: ToyImages) -> float:
    """Fraction of the images that are classified correctly."""
    return float((network(images_of(images)).argmax(1).numpy() == images.classes).mean())


def adapt(
    network: ToyNetwork,
    images: ToyImages,
    number: int,
    others: ToyImages,
    settings: ToySettings,
    rate: float,
    seed: int,
) -> Iterator[ToyNetwork]:
    """The classifier at RIB iterations 0 to K for one image: θ_k = θ_(k-1) - λ ∇ L_RIB.

    L_RIB is the mean over the batch of -min(m, y) with y the logit of each image's class, pooled over all cells. The
    given network is not changed, and the one that is yielded changes with the next iteration.

    Parameters
    ----------
    number
        Which of `images`.
    others
        Where the B - 1 other images of an iteration are drawn from.
    rate
        λ.
    """
    adapted = copy.deepcopy(network)
    parameters = list(adapted.parameters())
    own, pool = images_of(images)[number : number + 1], images_of(others)
    count = min(settings.rib_batch - 1, len(pool))
    for step in range(settings.steps + 1):
        yield adapted
        if step < settings.steps:
            chosen = keyed.generator(seed, "toy", "rib", number, step).choice(len(pool), count, replace=False)
            classes = torch.from_numpy(np.append(images.classes[number], others.classes[chosen]))
            logits = adapted(torch.cat([own, pool[chosen]])).gather(1, classes[:, None])
            gradients = torch.autograd.grad(-logits.clamp(max=settings.margin).mean(), parameters)
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(rate * gradient)


def layer_maps(network: ToyNetwork, images: ToyImages) -> np.ndarray:
    """Absolute gradient maps |G_1| to |G_6| of all images, float32 [N, 6, 28, 28]."""
    return gradient_maps(network, images_of(images), torch.from_numpy(images.classes)).abs().numpy()


def iteration_maps(
    network: ToyNetwork, images: ToyImages, others: ToyImages, settings: ToySettings, rate: float, seed: int
) -> np.ndarray:
    """Absolute gradient maps |G_6| of all images at RIB iterations 0 to K, float32 [N, K + 1, 28, 28]; see `adapt`."""
    found = []
    for number, label in enumerate(torch.from_numpy(images.classes)):
        own = images_of(images)[number : number + 1]
        states = adapt(network, images, number, others, settings, rate, seed)
        found.append([gradient_maps(state, own, label[None])[0, LAYERS - 1].abs().numpy() for state in states])
        if (number + 1) % 20 == 0:
            log.info("image %d/%d", number + 1, len(images.images))
    return np.array(found)


def chosen_rate(network: ToyNetwork, tried: ToyImages, others: ToyImages, settings: ToySettings, seed: int) -> float:
    """The given rate, or that of `RATES` after which the HGR of digit and mark exceeds the background's most.

    Parameters
    ----------
    tried
        Images that are neither trained on nor measured.
    others
        As for `adapt`.
    """
    if settings.rate is not None:
        return settings.rate
    gains = {}
    for rate in RATES:
        maps = iteration_maps(network, tried, others, settings, rate, seed)
        last = scaled(maps, first_maximum(maps))[:, -1:]
        digit, mark, background = (
            float(np.nanmean(high_gradient_ratio(last, region, settings.threshold)))
            for region in tried.regions.values()
        )
        gains[rate] = (digit + mark) / 2 - background
        log.info(
            "rate %g on images to try rates on: HGR of digit %.1f, mark %.1f, background %.1f",
            *(rate, 100 * digit, 100 * mark, 100 * background),
        )
    return max(gains, key=gains.__getitem__)


def own_maximum(maps: np.ndarray) -> np.ndarray:
    """The unit of layers: of absolute gradient maps [N, M, H, W] each its own maximum, [N, M, 1, 1]."""
    return maps.max((-2, -1), keepdims=True)


def first_maximum(maps: np.ndarray) -> np.ndarray:
    """The unit of iterations: of the maps [N, M, H, W] of an image the maximum of the first, [N, 1, 1, 1]."""
    return own_maximum(maps[:, :1])


def scaled(maps: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Absolute gradient maps [..., H, W] divided by a unit that broadcasts with them; zeros where it is 0."""
    return maps / np.maximum(unit, np.finfo(maps.dtype).tiny)


def high_gradient_ratio(maps: np.ndarray, region: np.ndarray, threshold: float) -> np.ndarray:
    """HGR of a region: the fraction of its pixels whose gradient is above the threshold.

    Parameters
    ----------
    maps
        [N, M, H, W]: M gradient maps of each image.
    region
        bool [N, H, W].

    Returns
    -------
    [N, M]; NaN for an image without the region.
    """
    high = (maps > threshold) & region[:, None]
    area = region.sum((1, 2), dtype=float)
    area[area == 0] = np.nan
    return high.sum((2, 3)) / area[:, None]


def hgr_table(
    maps: np.ndarray,
    unit: np.ndarray,
    regions: Mapping[str, np.ndarray],
    threshold: float,
    column: str,
    values: Sequence[int],
) -> pd.DataFrame:
    """HGR of every region, averaged over the images.

    Parameters
    ----------
    maps
        Absolute gradient maps [N, M, H, W].
    unit
        What they are divided by, such as their `first_maximum`.
    column, values
        What the M maps of an image are, such as "layer" and 1 to 6.

    Returns
    -------
    Rows of `column`, "region", "hgr" and "deviation" (its standard deviation over the images) of maps divided by their
    unit, and "hgr_unscaled" of the maps as they are.
    """
    rows = []
    for name, region in regions.items():
        ratios = high_gradient_ratio(scaled(maps, unit), region, threshold)
        unscaled = high_gradient_ratio(maps, region, threshold)
        for index, value in enumerate(values):
            rows.append(
                {
                    column: value,
                    "region": name,
                    "hgr": np.nanmean(ratios[:, index]),
                    "deviation": np.nanstd(ratios[:, index]),
                    "hgr_unscaled": np.nanmean(unscaled[:, index]),
                }
            )
    return pd.DataFrame(rows)
