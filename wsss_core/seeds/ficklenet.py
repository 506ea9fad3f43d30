"""FickleNet: many localisation maps of one image, each from another random choice of cells, made into one.

Lee et al., CVPR 2019 (Lee's dissertation, section 3.2.1); needs a classifier of the objective ``ficklenet``. Every pass
drops other cells from the windows of the last convolution, and its map is Grad-CAM with element-wise gradients,
``ReLU(sum_d x_d dS_c/dx_d)`` with x the features before any window is cut. The paper gives a pixel to class c if its
score, divided by the map's maximum, exceeds 0.35 in any of 200 passes, and to the class with the larger mean score if
several claim it; the background comes from a saliency detector.

**As seed maps.** Seed maps are thresholded when they are read: a pixel is of the class whose map, divided by its
maximum, is largest, if that exceeds the threshold t. `aggregate: any` gives maps that say what the paper's rule says:

* the map of a class is, cell by cell, its largest score of all passes, so it exceeds t where a pass does, for every t;
* where several classes exceed `threshold`, their values there change places, so that the class with the larger mean
  score has the larger value. Whether any class exceeds t is as before;
* a class that lost its maximum in such an exchange keeps it at one cell, as maps are divided by their maximum.

So at t = `threshold` the labels of the cells are the paper's, but for at most one cell a class. At other thresholds
the foreground is, and a cell that several classes claim has the label of `threshold`. Between the cells maps are
interpolated after aggregation, which flattens a maximum slightly, and several scales would be added: the default is the
image itself, once. A threshold takes the place of the saliency detector. `aggregate: mean` gives the mean score.

The engine computes the same numbers as a loop over passes with a backward pass each: the backbone runs once, all passes
share the cells' votes, and the classifier is linear, so a pass and its Grad-CAM are one weighted sum of votes
(`wsss_core.models.ficklenet`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.data.table import ImageRecord
from wsss_core.evaluate.sweep import ScoresSettings
from wsss_core.models.ficklenet import FickleNetwork, relevance
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import view_pair
from wsss_core.seeds.demands import check_objective
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps

Draws = Callable[[float, int], np.random.Generator]
"""Scale and number of a pass to the generator of its choice of cells."""

CHUNK_VOTES = 2**24
"""Votes that are weighed together (4 bytes each), unless one pass has more; bounds memory."""


@dataclass(frozen=True)
class FickleNetSeedSettings:
    """FickleNet's maps; defaults as published for VOC."""

    passes: int = setting(200, "random passes N", minimum=1)
    aggregate: Literal["any", "mean"] = setting(
        "any", "a cell's value: its largest score of all passes, conflicts settled by the mean (the paper), or its mean"
    )
    threshold: float = setting(
        0.35, "classes whose score exceeds this in any pass claim a cell (any)", minimum=0, maximum=1
    )
    scales: tuple[float, ...] = setting(
        (1.0,), "image scales whose maps are summed, without mirror images", minItems=1, items={"exclusiveMinimum": 0}
    )


@dataclass(frozen=True)
class FickleNetScoresSettings(ScoresSettings):
    """How the maps are scored; at 0.35, the `threshold` that the paper's rule settles conflicts at."""

    threshold: float = setting(
        0.35,
        "background threshold under rule fixed, on maps in [0, 1]; the seed's own `threshold` (aggregate any)",
        minimum=0,
        exclusiveMaximum=1,
    )


def maker(settings: FickleNetSeedSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the step calls it; what is drawn depends on the image's id, the scale and the pass.

    Raises
    ------
    UserError
        If the classifier is not one of FickleNet.
    """
    network = check_objective(inputs.network, FickleNetwork)

    def make(record: ImageRecord, image: np.ndarray) -> SeedMaps:
        def draws(scale: float, number: int) -> np.random.Generator:
            return keyed.generator(inputs.seed, inputs.stage, "pass", record.id, str(scale), number)

        return ficklenet_seed(network, image, record.classes, settings, draws)

    return make


@torch.no_grad()
def ficklenet_seed(
    network: FickleNetwork, image: np.ndarray, classes: Sequence[int], settings: FickleNetSeedSettings, draws: Draws
) -> SeedMaps:
    """FickleNet's maps of one image.

    Parameters
    ----------
    network
        Trained classifier.
    image
        uint8 [H, W, 3], RGB.
    classes
        The K present classes, 0-based.
    draws
        See `Draws`.

    Returns
    -------
    One map [K, h_s, w_s] a scale in 0..1, on the network's device. Statistics, over the cells of the first scale:
    ``conflicts``, the part that several classes claim; ``spread``, the mean standard deviation of scores over passes.
    """
    aggregate = {"any": _any_pass, "mean": _mean}[settings.aggregate]
    maps: dict[float, Tensor] = {}
    statistics: dict[str, float] = {}
    for scale in settings.scales:
        votes = network.votes(network.features(view_pair(network, image, scale)[:1]), classes)
        summary = Summary.of(scores(network, votes, settings.passes, partial(draws, scale)))
        maps[scale] = aggregate(summary, settings.threshold)
        if not statistics:
            claims = (summary.largest > settings.threshold).sum(0)
            statistics = {"conflicts": (claims > 1).float().mean().item(), "spread": summary.deviation.mean().item()}
    return SeedMaps(tuple(classes), maps, image.shape[:2], statistics, network.stride)


def scores(
    network: FickleNetwork, votes: Tensor, passes: int, draws: Callable[[int], np.random.Generator]
) -> Iterator[Tensor]:
    """Scores of all passes, in parts that fit into memory.

    Parameters
    ----------
    votes
        [1, K, s * s, h, w], of one image.

    Yields
    ------
    [n, K, h, w], the Grad-CAM of n passes, each divided by its maximum; 0 where no cell is positive.
    """
    shape = votes.shape[2:]
    for numbers in torch.arange(passes).split(max(1, CHUNK_VOTES // shape.numel())):
        drawn = np.stack([draws(number).random(shape, np.float32) for number in numbers.tolist()])
        maps = relevance(votes, network.weights(torch.from_numpy(drawn).to(votes))).relu()
        peaks = maps.amax((2, 3), keepdim=True)
        yield maps / peaks.where(peaks > 0, 1)


@dataclass(frozen=True)
class Summary:
    """Scores [K, h, w] over all passes: the largest, the mean and the standard deviation."""

    largest: Tensor
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, parts: Iterator[Tensor]) -> Summary:
        """Sum up scores [n, K, h, w] part by part."""
        count, largest, total, squares = 0, torch.tensor(-torch.inf), torch.zeros(()), torch.zeros(())
        for part in parts:
            count += len(part)
            largest = torch.maximum(largest, part.amax(0))
            total, squares = total + part.sum(0), squares + part.square().sum(0)
        mean = total / count
        return cls(largest, mean, (squares / count - mean.square()).clamp_min(0).sqrt())


def _mean(summary: Summary, threshold: float) -> Tensor:
    return summary.mean


def _any_pass(summary: Summary, threshold: float) -> Tensor:
    """Maps that follow the paper's rule when they are thresholded (see the module's documentation)."""
    settled = settle(summary.largest, summary.mean, threshold)
    lost = settled.amax((1, 2)) < summary.largest.amax((1, 2))
    for c in lost.nonzero().flatten().tolist():
        peaks = summary.largest[c] == summary.largest[c].max()
        cell = summary.mean[c].where(peaks, -1).argmax()
        settled[c].view(-1)[cell] = summary.largest[c].max()
    return settled


def settle(largest: Tensor, mean: Tensor, threshold: float) -> Tensor:
    """Where several classes exceed the threshold, reorder their values to the order of their mean.

    Parameters
    ----------
    largest, mean
        Scores [K, h, w].

    Returns
    -------
    [K, h, w]; in every cell the same values as in `largest`, in another order.
    """
    claimed = largest > threshold
    places = mean.where(claimed, -1).argsort(dim=0, descending=True, stable=True)
    values = largest.where(claimed, -1).sort(0, descending=True).values
    return torch.zeros_like(largest).scatter_(0, places, values).where(claimed, largest)
