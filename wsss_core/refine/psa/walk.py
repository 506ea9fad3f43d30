"""Pseudo-masks by a random walk of seed maps and background on learned affinities (Ahn & Kwak, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wsss_core.data.resampling import normalised, sent
from wsss_core.kernels import random_walk
from wsss_core.kernels.paths import mean_differences
from wsss_core.models.affinity import STRIDE, AffinityNetwork
from wsss_core.refine.psa.labels import background_score
from wsss_core.settings import setting
from wsss_core.store.scores import ScoreMaps
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class WalkSettings:
    """Random walk of seed maps and background at stride 8."""

    alpha: float = setting(
        16.0,
        "exponent of the background score (1 - highest map), which walks as a channel of its own (PSA 16; SEAM 6)",
        exclusiveMinimum=0,
    )
    radius: int = setting(5, "cells closer than this are neighbours", minimum=2)
    beta: float = setting(8.0, "exponent of the affinities", exclusiveMinimum=0)
    log2_steps: int = setting(8, "binary logarithm of the number of steps (PSA 8; SEAM 6)", minimum=0, maximum=14)


NETWORK = AffinityNetwork


@torch.no_grad()
def predict_affinities(network: AffinityNetwork, images: Sequence[np.ndarray], radius: float, beta: float) -> Tensor:
    """Affinities of every cell of images of one size to its neighbours.

    Parameters
    ----------
    network
        In evaluation mode, on the device of the result.
    images
        N arrays uint8 [H, W, 3]; padded with the mean colour, right and below, to multiples of 8.

    Returns
    -------
    float64 [N, P, ceil(H / 8), ceil(W / 8)], P as in `paths.directions`: ``exp(-beta mean |f_i - f_j|)``, 0 where the
    neighbour lies outside the grid.
    """
    height, width = images[0].shape[:2]
    device = next(network.parameters()).device
    pixels = normalised(sent(images, device))
    features = network(F.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE)))
    differences = torch.stack(mean_differences(features, radius, border=torch.inf), 1)
    return (-beta * differences.double()).exp()


def walk(
    network: AffinityNetwork, images: Sequence[np.ndarray], maps: Sequence[SeedMaps], settings: WalkSettings
) -> list[ScoreMaps]:
    """Seed maps and background of images of one size after the random walk on their predicted affinities.

    Maps and background are averaged over cells of 8 x 8 pixels, 0 outside the image, as in the published code.

    Parameters
    ----------
    network
        In evaluation mode; the walks run on its device, together.
    images
        uint8 [H, W, 3] each; every one has a class.
    """
    affinities = predict_affinities(network, images, settings.radius, settings.beta)
    channels = pad_sequence([_cells(one, settings.alpha) for one in maps], batch_first=True).to(affinities.device)
    walked = random_walk.walk(channels, affinities, radius=settings.radius, log2_steps=settings.log2_steps)
    walked = walked.clamp_min(0).cpu()
    return [
        ScoreMaps(m.classes, scores[: len(m.classes)], m.size, STRIDE, scores[len(m.classes)])
        for m, scores in zip(maps, walked, strict=True)
    ]


def _cells(maps: SeedMaps, alpha: float) -> Tensor:
    """Mean of the K maps and of the background over cells, [K + 1, ceil(H / 8), ceil(W / 8)]."""
    height, width = maps.size
    full = maps.full()
    channels = torch.cat([full, background_score(full, alpha)])
    return F.avg_pool2d(F.pad(channels, (0, -width % STRIDE, 0, -height % STRIDE)), STRIDE)


def nothing(size: tuple[int, int]) -> ScoreMaps:
    """The scores of an image [H, W] without classes: background everywhere."""
    rows, columns = -(-size[0] // STRIDE), -(-size[1] // STRIDE)
    return ScoreMaps((), torch.zeros(0, rows, columns), size, STRIDE, torch.ones(rows, columns))
