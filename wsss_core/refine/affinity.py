"""Pseudo-masks by a random walk of seed maps on how alike places look to a backbone, without any training.

The walk is that of Ahn & Kwak, CVPR 2018 (PSA), and Ahn et al., CVPR 2019 (IRN), exact; in place of their trained
networks, the affinity of two cells is the cosine c_ij of a backbone's own features, as unsupervised methods on
self-supervised transformers take it (Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery Using
Normalized Cut", CVPR 2022): ``a_ij = max(0, c_ij) ** beta`` for cells within a radius, or for all cells of the photo.
With the column sums D of A, ``M (A D^-1) ** t`` are the walked maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.data.resampling import normalised, sent
from wsss_core.errors import UserError
from wsss_core.evaluate.sweep import RULES, Rule
from wsss_core.evaluate.sweep import ScoresSettings as MapScoresSettings
from wsss_core.kernels.paths import directions
from wsss_core.kernels.random_walk import walk as walk_near
from wsss_core.kernels.random_walk import walk_on_matrix
from wsss_core.models import BackboneName
from wsss_core.models.backbones import backbone as build
from wsss_core.models.backbones import load_weights
from wsss_core.models.features import FeatureNetwork
from wsss_core.refine import MaskInputs, MaskMaker, Threshold
from wsss_core.refine import threshold as masks_at
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.checkpoints import fitting, load_file, load_network
from wsss_core.store.scores import ScoreMaps
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True, kw_only=True)
class FeaturesSettings:
    """The backbone whose features say what is alike."""

    file: str = setting(
        REQUIRED,
        "its weights: a file with the names of torchvision or timm, or the model.pt of a classifier or another network "
        "of a run, whose backbone is taken as it was trained there",
    )
    backbone: BackboneName = setting("resnet50", "the backbone, also timm:NAME; a run's own file says it itself")


@dataclass(frozen=True)
class WalkSettings:
    """Random walk of seed maps on the likeness of features."""

    taps: tuple[int, ...] = setting(
        (3, 4, 5),
        "taps of the backbone whose features count, 1 to 5; the cosines of several are averaged",
        minItems=1,
        items={"minimum": 1, "maximum": 5},
    )
    centred: bool = setting(
        True, "take the photo's mean away from each channel first: what all cells have in common tells none apart"
    )
    stride: int = setting(16, "side in pixels of the cells that are walked between", minimum=1)
    radius: int | None = setting(
        None, "cells closer than this are neighbours; null: all cells of the photo are", minimum=2
    )
    beta: float = setting(4.0, "exponent of the affinities", exclusiveMinimum=0)
    log2_steps: int = setting(4, "binary logarithm of the number of steps", minimum=0, maximum=14)
    power: float = setting(1.0, "seed maps are raised to this power before the walk", exclusiveMinimum=0)


@dataclass(frozen=True)
class ScoresSettings(MapScoresSettings):
    """How the walked maps are scored; the decision that needs no masks by default, as none was published."""

    rule: Rule = setting("otsu", RULES)


@dataclass(frozen=True)
class MasksSettings(masks_at.ThresholdSettings):
    """Label masks from the walked maps."""

    threshold: Threshold = setting(
        "otsu",
        "background threshold on the walked maps, scaled to [0, 1] over all classes of an image together; otsu: that "
        "of each image's own, no masks used; score: what the score rule of this stage chose; oracle: the best value in "
        "hindsight, which uses the masks",
        minimum=0,
        maximum=1,
    )


NETWORK = FeatureNetwork

MOST_CELLS = 12_000
"""Cells of a photo between which all affinities are held, some 2 GB; a photo of 2000 x 1500 pixels at a stride of 16.
"""


def adopted(settings: FeaturesSettings, class_names: Sequence[str]) -> FeatureNetwork:
    """The backbone of a file, whatever classes it was trained for.

    Raises
    ------
    UserError
        If the file is missing or unreadable, or does not hold the backbone.
    """
    path = Path(settings.file)
    content = load_file(path, "weight file")
    if isinstance(content, dict) and {"kind", "meta", "state"} <= set(content):
        state, meta = load_network(path, content["kind"])
        if not isinstance(meta.get("backbone"), str):
            raise UserError(f"{path}: is a network of the kind {content['kind']}, which is built on no backbone alone")
        network = FeatureNetwork(build(meta["backbone"]))
        own = {name: value for name, value in state.items() if name.startswith("backbone.")}
        with fitting(path):
            network.load_state_dict(own)
        return network.eval()
    network = FeatureNetwork(build(settings.backbone))
    try:
        network.backbone.load(load_weights(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return network.eval()


def cosines_near(features: Tensor, radius: float) -> Tensor:
    """Cosines of every cell's features with its neighbours' in a half plane.

    Parameters
    ----------
    features
        [N, D, h, w], unit vectors.

    Returns
    -------
    [N, P, h, w], P as in `paths.directions`; 0 where the neighbour lies outside the grid.
    """
    height, width = features.shape[2:]
    planes = []
    for dy, dx in directions(radius):
        plane = features.new_zeros(len(features), height, width)
        if dy < height and abs(dx) < width:
            left, right = max(0, -dx), width - max(0, dx)
            here, there = features[..., : height - dy, left:right], features[..., dy:, left + dx : right + dx]
            plane[:, : height - dy, left:right] = (here * there).sum(1)
        planes.append(plane)
    return torch.stack(planes, 1)


def walked(scores: Tensor, features: Tensor, settings: WalkSettings) -> Tensor:
    """Scores of one image after the walk.

    Parameters
    ----------
    scores
        [K, h, w].
    features
        [D, h, w], unit vectors.

    Returns
    -------
    [K, h, w], not negative.

    Raises
    ------
    UserError
        If a walk between all cells would take more than `MOST_CELLS` of them.

    Examples
    --------
    Two cells of four are alike, and what is known of one comes to be known of the other:

    >>> features = torch.tensor([[[1.0, 0, 0, 1]], [[0.0, 1, -1, 0]]])
    >>> walked(torch.tensor([[[1.0, 0, 0, 0]]]), features, WalkSettings(radius=None)).round(decimals=3).tolist()
    [[[0.5, 0.0, 0.0, 0.5]]]
    """
    if settings.radius is None:
        if scores[0].numel() > MOST_CELLS:
            height, width = scores.shape[1:]
            raise UserError(
                f"{height} x {width} cells are too many to walk between all of them (at most {MOST_CELLS}); "
                "enlarge walk.stride, or give walk.radius"
            )
        flat = features.flatten(1)
        affinities = (flat.T @ flat).clamp(0, 1) ** settings.beta
        found = walk_on_matrix(scores, affinities.fill_diagonal_(1), log2_steps=settings.log2_steps)
    else:
        affinities = cosines_near(features[None], settings.radius)[0].clamp(0, 1) ** settings.beta
        found = walk_near(scores, affinities, radius=settings.radius, log2_steps=settings.log2_steps)
    return found.clamp_min(0)


@torch.no_grad()
def walk(
    network: FeatureNetwork, images: Sequence[np.ndarray], maps: Sequence[SeedMaps], settings: WalkSettings
) -> list[ScoreMaps]:
    """Seed maps of images of one size after the random walk on the likeness of their features.

    Parameters
    ----------
    network
        In evaluation mode; the walks run on its device.
    images
        uint8 [H, W, 3] each; every one has a class.
    """
    device = next(network.parameters()).device
    features = network(normalised(sent(images, device)), settings.taps, settings.stride, settings.centred)
    return [
        ScoreMaps(
            one.classes,
            walked(_cells(one, settings.stride).to(device) ** settings.power, of_it, settings).cpu(),
            one.size,
            settings.stride,
        )
        for one, of_it in zip(maps, features, strict=True)
    ]


def _cells(maps: SeedMaps, stride: int) -> Tensor:
    """Mean of the K maps over cells, those that the border cuts over what is left of them, [K, h, w]."""
    return F.avg_pool2d(maps.full(), stride, ceil_mode=True)


def nothing(size: tuple[int, int]) -> ScoreMaps:
    """The scores of an image [H, W] without classes, on cells of the default's size."""
    stride = WalkSettings.stride
    return ScoreMaps((), torch.zeros(0, -(-size[0] // stride), -(-size[1] // stride)), size, stride)


def maker(settings: MasksSettings, inputs: MaskInputs) -> MaskMaker:
    """`wsss_core.refine.threshold.maker`, of the walked maps."""
    return masks_at.maker(settings, inputs)
