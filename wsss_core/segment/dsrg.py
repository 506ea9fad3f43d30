"""DSRG: training of DeepLab-v2 on seeds that grow while it learns (deep seeded region growing).

Huang et al., "Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region Growing", CVPR 2018; J. Lee's
dissertation, section 2.3.2, Eq. 2.3 and 2.4. The seeds are sparse label maps: background, foreground, and 255 where
nothing is known. At every step, on the network's grid, with H its class probabilities and S_c the cells of class c
after growing::

    L = - 1/sum_c |S_c| sum_{c in C} sum_{u in S_c} log H_uc  -  1/|S_0| sum_{u in S_0} log H_u0      seeding
        + 1/|U| sum_u sum_c Q_uc log(Q_uc / H_uc)                                                     boundary

C holds the foreground classes and 0 is the background; Q is the posterior of the dense CRF whose unary is -log H. No
gradient flows through Q or through the growing, which starts from the given seeds at every step.

Choices where the dissertation is silent follow the authors' published code: H is mixed with a little of the uniform
distribution, the seeding terms are means over the images, the CRF runs on the image reduced to the grid. What is
different from that code: there the gradient also flows through Q, Q / H is limited to 0.05..20, the CRF's unary is -H
(without the logarithm), and cells grow by Q, which `grow_by` offers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.kernels.dense_crf import dense_crf_batch, unary_from_probabilities
from wsss_core.segment.deeplab import DeepLabSettings, reduced, training_plan
from wsss_core.settings import setting
from wsss_core.training import Inputs, Plan

FLOOR = 1e-4
"""Added to every probability before they are normalised again."""


@dataclass(frozen=True)
class BoundarySettings:
    """Dense CRF on the network's grid; the published deviations are a twelfth of 3 and of 80."""

    gaussian: tuple[float, float] = setting(
        (0.25, 3.0), "smoothness: deviation in cells of the grid, weight", positive=1, items={"minimum": 0}
    )
    bilateral: tuple[float, float, float] = setting(
        (6.67, 13.0, 10.0),
        "appearance: deviation in cells of the grid, deviation in grey levels, weight",
        positive=2,
        items={"minimum": 0},
    )
    iterations: int = setting(10, "mean-field iterations", minimum=0)


@dataclass(frozen=True)
class DsrgSettings(DeepLabSettings):
    """Training of DeepLab-v2 on growing seeds; schedule as published for VOC with VGG-16."""

    msc_scales: tuple[float, ...] = setting(
        (),
        "input scales beside 1 whose logits are trained, each with seeds grown on its own grid, and maximised over",
        items={"exclusiveMinimum": 0},
    )
    iterations: int = setting(8000, "training steps", minimum=1)
    batch_size: int = setting(20, "images a step", minimum=1)
    learning_rate: float = setting(
        5e-4, "of the backbone's weights; 10 times for the pyramid's weights, 20 times for its biases", minimum=0
    )
    foreground: float = setting(
        0.85, "a cell joins a foreground region if its probability is above", minimum=0, maximum=1
    )
    background: float = setting(0.99, "a cell joins the background if its probability is above", minimum=0, maximum=1)
    grow_by: Literal["network", "crf"] = setting(
        "network",
        "probabilities that regions grow by: network: H, as in the papers; crf: Q, as in the published code",
    )
    boundary_weight: float = setting(1.0, "weight of the boundary loss", minimum=0)
    crf: BoundarySettings = setting(BoundarySettings, "dense CRF of the boundary loss")


def plan(settings: DsrgSettings, inputs: Inputs) -> Plan:
    """Training of a new network on the seeds."""
    return training_plan(settings, inputs, lambda grids, batch: loss_terms(grids, batch, settings))


def loss_terms(grids: Sequence[Tensor], batch: dict[str, Tensor], settings: DsrgSettings) -> dict[str, Tensor]:
    """Seeding and boundary loss, each added up over the logit grids.

    Parameters
    ----------
    grids
        Logits [B, L, h, w], each at its own size.
    batch
        As `wsss_core.segment.batches.SegmentationBatches` makes it.

    Returns
    -------
    "loss"; its parts "seeding" and "boundary"; "grown", the fraction of the cells of the first grid that have a label
    after growing.
    """
    seeding, boundary, grown = zip(*(_grid_terms(logits.float(), batch, settings) for logits in grids), strict=True)
    parts = {"seeding": torch.stack(seeding).sum(), "boundary": torch.stack(boundary).sum()}
    return {"loss": parts["seeding"] + settings.boundary_weight * parts["boundary"], **parts, "grown": grown[0]}


def _grid_terms(logits: Tensor, batch: dict[str, Tensor], settings: DsrgSettings) -> tuple[Tensor, Tensor, Tensor]:
    size = tuple(logits.shape[2:])
    probabilities = class_probabilities(logits)
    inside = cells_inside(batch["inside"], batch["labels"].shape[1:], size)
    posterior = crf_posterior(probabilities.detach(), batch["images"], inside, settings.crf)
    growing = posterior if settings.grow_by == "crf" else probabilities.detach()
    seeds = reduced(batch["labels"], size)
    grown = grow_batch(seeds, growing, batch["present"], inside, settings)
    labelled = (grown != IGNORE).sum() / inside.sum().clamp_min(1)
    return seeding_loss(probabilities, grown), boundary_loss(probabilities, posterior, inside), labelled


def class_probabilities(logits: Tensor) -> Tensor:
    """Softmax over the labels [B, L, h, w], mixed with the uniform distribution so that its logarithm is bounded."""
    raised = logits.softmax(1) + FLOOR
    return raised / raised.sum(1, keepdim=True)


def cells_inside(inside: Tensor, crop: Sequence[int], size: Sequence[int]) -> Tensor:
    """Which cells of a grid show the image and not padding.

    Parameters
    ----------
    inside
        int64 [B, 4]: top, bottom, left and right end of the image in the crop.
    crop, size
        (S, S) of the crop in pixels and (h, w) of the grid.

    Returns
    -------
    bool [B, h, w], true where the pixel at the centre of the cell is inside.
    """
    along = []
    for axis, (pixels, cells) in enumerate(zip(crop, size, strict=True)):
        centres = ((torch.arange(cells, device=inside.device) + 0.5) * (pixels / cells)).long()
        along.append((centres >= inside[:, 2 * axis, None]) & (centres < inside[:, 2 * axis + 1, None]))
    return along[0][:, :, None] & along[1][:, None]


def crf_posterior(probabilities: Tensor, images: Tensor, inside: Tensor, settings: BoundarySettings) -> Tensor:
    """Posterior Q of the dense CRF on the grid.

    Parameters
    ----------
    probabilities
        [B, L, h, w]; the unary energies are their negative logarithms.
    images
        uint8 [B, S, S, 3], reduced to the grid bilinearly.
    inside
        bool [B, h, w], a rectangle an image. Outside of it the posterior is the probabilities.
    """
    size = probabilities.shape[2:]
    colours = F.interpolate(images.permute(0, 3, 1, 2).float(), size, mode="bilinear", align_corners=False)
    colours = colours.round().to(torch.uint8).permute(0, 2, 3, 1)
    windows = {}
    for number, mask in enumerate(inside.cpu().numpy()):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if len(rows):
            windows[number] = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    refined = dense_crf_batch(
        [colours[number][window] for number, window in windows.items()],
        [unary_from_probabilities(probabilities[number][:, *window]) for number, window in windows.items()],
        gaussian=settings.gaussian,
        bilateral=settings.bilateral,
        iterations=settings.iterations,
    )
    posterior = probabilities.clone()
    for (number, window), found in zip(windows.items(), refined, strict=True):
        posterior[number][:, *window] = found
    return posterior


def grow_batch(seeds: Tensor, probabilities: Tensor, present: Tensor, inside: Tensor, settings: DsrgSettings) -> Tensor:
    """`grow` every image of a batch: seeds [B, h, w], probabilities [B, L, h, w] to labels int64 [B, h, w]."""
    arrays = (tensor.cpu().numpy() for tensor in (seeds, probabilities, present, inside))
    grown = [
        grow(known, growing, tags, cells, settings.foreground, settings.background)
        for known, growing, tags, cells in zip(*arrays, strict=True)
    ]
    return torch.from_numpy(np.stack(grown)).to(seeds.device)


def grow(
    seeds: np.ndarray,
    probabilities: np.ndarray,
    present: np.ndarray,
    inside: np.ndarray,
    foreground: float,
    background: float,
) -> np.ndarray:
    """Grow the seeds of one image.

    A cell without a label that touches a region (8 neighbours) joins it if the region's class is the most probable
    of the present ones there, and probable enough; then the cells that touch this one, until nothing changes. Which
    is to say: a region is the connected components of seeds and such cells that hold a seed.

    Parameters
    ----------
    seeds
        Labels [h, w], 255 where unknown.
    probabilities
        [L, h, w].
    present
        bool [L]: the labels that may grow.
    inside
        bool [h, w]: the cells that may be labelled.
    foreground, background
        Thresholds of the probability, exclusive.

    Returns
    -------
    Labels like `seeds`; no seed is changed.
    """
    candidates = np.flatnonzero(present)
    best = candidates[probabilities[candidates].argmax(0)]
    sure = probabilities[candidates].max(0) > np.where(best == 0, background, foreground)
    joins = (seeds == IGNORE) & inside & sure
    grown = seeds.copy()
    for label in np.intersect1d(seeds, candidates):
        own = seeds == label
        region = own | (joins & (best == label))
        count, component = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
        reached = np.zeros(count, dtype=bool)
        reached[component[own]] = True
        grown[reached[component]] = label
    return grown


def seeding_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Balanced seeding loss (dissertation, Eq. 2.3): the mean over images of both terms; an empty set costs nothing.

    Parameters
    ----------
    probabilities
        [B, L, h, w].
    labels
        int64 [B, h, w], 255 where unknown.
    """
    known = labels != IGNORE
    costs = -probabilities.gather(1, torch.where(known, labels, 0)[:, None])[:, 0].log()
    sets = (known & (labels != 0), labels == 0)
    means = (((costs * cells).sum((1, 2)) / cells.sum((1, 2)).clamp_min(1)).mean() for cells in sets)
    return sum(means, costs.new_zeros(()))


def boundary_loss(probabilities: Tensor, posterior: Tensor, inside: Tensor) -> Tensor:
    """Constrain-to-boundary loss (dissertation, Eq. 2.4): mean over the cells inside of KL(Q || H).

    Parameters
    ----------
    probabilities, posterior
        H and Q, [B, L, h, w].
    inside
        bool [B, h, w].
    """
    divergence = F.kl_div(probabilities.log(), posterior, reduction="none").sum(1)
    return (divergence * inside).sum() / inside.sum().clamp_min(1)
