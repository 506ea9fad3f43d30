"""Masks of single objects from tags: displacements tell objects apart, random walks carry each one's maps.

Ahn, Cho & Kwak, CVPR 2019, section 3.4, with the constants of the published code. Every cell follows the displacements
to the centre of its object; the cells that end in one still region are one object, and the maps of every class, cut to
each object, walk at random as for semantic masks (`wsss_core.refine.irn.walk`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from wsss_core.kernels.random_walk import propagate
from wsss_core.models.irn import STRIDE
from wsss_core.refine.irn.walk import WalkSettings
from wsss_core.settings import setting
from wsss_core.store.instances import Instances


@dataclass(frozen=True)
class InstancesSettings(WalkSettings):
    """Masks of single objects by displacements and a random walk of each one's maps; defaults as published."""

    power: float = setting(1.0, "seed maps are raised to this power before the walk", exclusiveMinimum=0)

    moves: int = setting(300, "times that a cell is moved by the displacement where it is", minimum=1)
    still: float = setting(
        2.5,
        "displacements shorter than this many cells of stride 4 are those of an object's centre",
        exclusiveMinimum=0,
    )
    threshold: float = setting(0.25, "background threshold of the walked scores", minimum=0, exclusiveMaximum=1)
    fragment: float = setting(
        0.01, "masks of a smaller part of the image than this are kept with a score of 0", minimum=0, maximum=1
    )


def instances(
    displacement: Tensor,
    boundary: Tensor,
    maps: Tensor,
    classes: Sequence[int],
    size: tuple[int, int],
    settings: InstancesSettings,
) -> Instances:
    """The objects of one image.

    Parameters
    ----------
    displacement
        [2, h, w] in cells of stride 4, (dy, dx), without its mean over the training.
    boundary
        [h, w] in [0, 1].
    maps
        Seed maps at stride 4, [K, h, w], each class scaled to [0, 1] (`SeedMaps.strided`).
    classes
        The K present classes, 0-based; with none, there are no objects.
    size
        (H, W) of the image in pixels, h = (H-1)//4+1 and w = (W-1)//4+1.

    Returns
    -------
    Objects by class, each with its tightest box and the highest walked score in it, in [0, 1]. Their masks do not
    overlap, and each is one piece.
    """
    if not classes:
        return Instances.of(size)
    owners = owner_map(displacement.cpu().numpy(), settings.moves, settings.still)
    n_owners = int(owners.max()) + 1
    own = torch.from_numpy(owners[None] == np.arange(n_owners)[:, None, None]).to(maps)
    walked = propagate(
        (maps[:, None] ** settings.power * own).flatten(0, 1),
        boundary,
        radius=settings.radius,
        beta=settings.beta,
        log2_steps=settings.log2_steps,
    )
    scores, winner = _strongest(walked, size, settings.threshold)
    labels, boxes, masks, confidences = [], [], [], []
    for channel in np.unique(winner[winner >= 0]):
        pieces, _ = ndimage.label(winner == channel)
        for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), 1):
            mask = pieces == number
            small = mask.sum() < settings.fragment * mask.size
            labels.append(classes[channel // n_owners])
            boxes.append((columns.start, rows.start, columns.stop, rows.stop))
            masks.append(mask)
            confidences.append(0.0 if small else scores[mask].max())
    return Instances.of(size, labels, boxes, masks, confidences)


def owner_map(displacement: np.ndarray, moves: int, still: float) -> np.ndarray:
    """The object that every cell belongs to.

    Parameters
    ----------
    displacement
        [2, h, w] in cells, (dy, dx).
    moves, still
        See `InstancesSettings`.

    Returns
    -------
    int [h, w], numbers from 0 without gaps: the cells that end in one 4-connected region of short displacements are one
    object, and those that end in none are one too.

    Examples
    --------
    Two rows of cells, whose left half moves to column 1 and whose right half to column 6.

    >>> columns = np.arange(8.0)
    >>> to_centre = np.where(columns < 4, 1, 6) - columns
    >>> owner_map(np.stack([np.zeros((2, 8)), np.tile(to_centre, (2, 1))]), 300, 1.5).tolist()
    [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]]
    """
    shape = displacement.shape[1:]
    limits = np.array(shape, dtype=np.float64)[:, None, None] - 1
    places = np.indices(shape).astype(np.float64)
    for _ in range(moves):
        step = [ndimage.map_coordinates(plane, places, np.float64, order=1, mode="nearest") for plane in displacement]
        places = np.clip(places + np.stack(step), 0, limits)
    regions, _ = ndimage.label(np.hypot(*displacement) < still)
    ends = regions[tuple(np.rint(places).astype(int))]
    return np.unique(ends, return_inverse=True)[1].reshape(shape)


def _strongest(walked: Tensor, size: tuple[int, int], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The highest of the walked scores [N, h, w], relative to the image's maximum, and which of them it is, -1 where it
    does not exceed the threshold; both [H, W]. One score at a time is enlarged, as there may be hundreds."""
    highest = torch.zeros(size)
    winner = torch.full(size, -1)
    for number, scores in enumerate(walked.float().cpu()):
        full = F.interpolate(scores[None, None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0, 0]
        full = full[: size[0], : size[1]]
        winner[full > highest] = number
        highest = torch.maximum(full, highest)
    highest = highest / highest.max().clamp_min(torch.finfo(torch.float32).tiny)
    winner[highest <= threshold] = -1
    return highest.numpy(), winner.numpy()
