r"""BBAM: the smallest part of an image from which a detector still finds an object.

Lee, Yi, Shin & Yoon, "BBAM: Bounding Box Attribution Map for Weakly Supervised Semantic and Instance Segmentation",
CVPR 2021 (Lee's dissertation, section 5.3). A mask M in [0, 1] on a coarse grid is enlarged to the image and multiplied
with it, so that hidden pixels have the mean colour. With o the proposals O+ that the detector finds the object from,
and t, p the offsets and the probability of its class, M is found by gradient descent::

    M* = argmin  lambda |M|_1 + mean over O+ of ( 1_box |t(I) - t(I M)|_1 + 1_cls |p(I) - p(I M)|_1 )

The published code and the paper differ, and both are here (`BbamSettings.variant`):

==================  =================================================  =================================
\                   official                                           paper
==================  =================================================  =================================
difference of t     mean over the four offsets, halved                 sum over the four offsets
difference of p     halved                                             as it is
variation of M      1e-4 times the sum of \|difference\|^3 of          none
                    neighbours, diagonal ones twice
positive proposals  IoU above 0.9; if these are not more than          IoU above 0.8
                    `positives`, above 0.85, then 0.8
==================  =================================================  =================================

At one lambda the official masks are sparser, since its box term weighs an eighth and its class term a half.

Chosen here, as neither says it or both leave it open: the grid is rounded up and has two cells a side at least (the
published code rounds down); IoU is that of real-valued boxes; the paper's masks start like the published code's, at 1
inside the boxes that the detector finds, for from 0 everywhere the gradient is that of an empty image. \|M\|_1 has no
gradient at 0, as in PyTorch and so in the published code.

The engine computes what the loop over boxes computes, to rounding, with less work: the masks of many boxes, of one
image or of several of one size, are enlarged in one product (bilinear interpolation is one), seen by the detector in
one pass, and followed back to the masks alone, so that no weight has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.boxes import Detector, Scene, at_once
from wsss_core.boxes.geometry import areas, clipped, decoded, overlaps
from wsss_core.settings import setting
from wsss_core.store.attributions import Attributions

CHUNK_PROPOSALS = 512
"""Proposals that pass through the detector's heads together where the positive ones are looked for; bounds memory."""

TERMS = ("box", "class", "size", "variation")
"""Parts of the objective, unweighed, as they stand in curves and statistics."""


@dataclass(frozen=True)
class BbamSettings:
    """Bounding box attribution maps; defaults as published for VOC."""

    variant: Literal["official", "paper"] = setting(
        "official", "where the paper and its published code differ, which to follow (see the module's documentation)"
    )
    heads: Literal["both", "box", "cls"] = setting("both", "heads of the detector whose answers the mask must keep")
    size_weight: float = setting(
        0.007, "weight of the sum of the mask (lambda); the published code has 0.07 for single detections", minimum=0
    )
    variation_weight: float | None = setting(
        None,
        "weight of the variation of the mask; null: 1e-4 (official) or 0 (paper); the published code has 1e-3 for "
        "single detections",
        minimum=0,
    )
    iterations: int = setting(300, "steps of Adam", minimum=1)
    rate: float = setting(0.02, "rate of Adam", exclusiveMinimum=0)
    strides: tuple[float, float] = setting(
        (16.0, 64.0),
        "pixels of the detector's view to a cell of the mask, for the smallest box and for one as large as the view; "
        "between them it grows with the root of the box's area (16 + 48 sqrt(a)); two equal numbers: for all boxes",
        ascending=True,
        items={"exclusiveMinimum": 0},
    )
    proposals: int = setting(1000, "proposals drawn around a box", minimum=1)
    jitter: float = setting(
        0.3,
        "corners of proposals are moved by up to this part of the box's width and height",
        minimum=0,
        exclusiveMaximum=0.5,
    )
    positives: int = setting(100, "most positive proposals that are used, the first drawn", minimum=1)


@dataclass(frozen=True)
class Subject:
    """One object whose mask is sought.

    Attributes
    ----------
    view
        The image as the detector takes it, [3, h, w].
    column
        Class among those of the detector, whose background is 0.
    proposals
        The positive proposals (x0, y0, x1, y1), [n, 4].
    probabilities
        Of the class, seen from each proposal in the unmasked view, [n].
    offsets
        Of the class's box, seen likewise, [n, 4].
    stride
        Pixels to a cell of the mask.
    """

    view: Tensor
    column: int
    proposals: Tensor
    probabilities: Tensor
    offsets: Tensor
    stride: float

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the view."""
        return self.view.shape[1], self.view.shape[2]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the mask."""
        return grid_of(self.size, self.stride)

    @property
    def boxes(self) -> Tensor:
        """The boxes that the detector finds in the unmasked view, clipped to it, [n, 4]."""
        return clipped(decoded(self.offsets, self.proposals), self.size)

    def start(self) -> Tensor:
        """The mask before the first step: 1 in the cells of every box found, one cell at least, and 0 elsewhere."""
        mask = self.view.new_zeros(self.grid)
        for x0, y0, x1, y1 in (self.boxes / self.stride).long().tolist():
            row, column = min(y0, self.grid[0] - 1), min(x0, self.grid[1] - 1)
            mask[row : max(y1, row + 1), column : max(x1, column + 1)] = 1
        return mask


def attributions(
    detector: Detector, scenes: Sequence[Scene], settings: BbamSettings, *key: int | str
) -> list[Attributions]:
    """Attribution of every object of some images. The detector and its gradients are left as they were.

    Parameters
    ----------
    detector
        Trained, in evaluation mode.
    scenes
        Images with their objects. Those with views of one size are worked on together.
    key
        What the draws of proposals are keyed by beside the image's id and the object's number: run seed and stage.

    Returns
    -------
    One record a scene. Objects that no proposal finds have no attribution. Statistics, a list each with one entry an
    object: ``positives``, the positive proposals used; ``iou``, the IoU that they exceed (0: none); ``proposal_iou``,
    the mean IoU of positive proposals and the boxes found from them; ``losses``, the `TERMS` before the last step; and
    ``without``, the number of objects without attribution.
    """
    sought = [[_subject(detector, scene, n, settings, *key) for n in range(len(scene.boxes))] for scene in scenes]
    found = [(scene, number) for scene, row in enumerate(sought) for number, (one, _) in enumerate(row) if one]
    masks, curves = optimised(detector, [one for row in sought for one, _ in row if one], settings)
    made = dict(zip(found, zip(masks, curves, strict=True), strict=True))
    return [
        _record(scene, row, [made.get((number, k)) for k in range(len(row))], settings)
        for number, (scene, row) in enumerate(zip(scenes, sought, strict=True))
    ]


def subjects(detector: Detector, view: Tensor, proposals: Tensor, settings: BbamSettings) -> list[Subject]:
    """One subject for each single proposal, of the class that the detector finds there (Eq. 5.1 and 5.2).

    Parameters
    ----------
    view
        The image as the detector takes it, [3, h, w].
    proposals
        (x0, y0, x1, y1) in pixels of the view, [n, 4].

    Returns
    -------
    n subjects; their strides follow from the boxes that are found.
    """
    probabilities, offsets = _seen(detector, view, proposals)
    columns = probabilities[:, 1:].argmax(1) + 1
    rows = torch.arange(len(proposals), device=view.device)
    likely, moves = probabilities[rows, columns], offsets[rows, columns]
    size = (view.shape[1], view.shape[2])
    found = clipped(decoded(moves, proposals), size)
    strides = [stride_of(box, size, settings) for box in found]
    each = zip(columns.tolist(), proposals.split(1), likely.split(1), moves.split(1), strides, strict=True)
    return [Subject(view, *one) for one in each]


def stride_of(box: Tensor, size: tuple[int, int], settings: BbamSettings) -> float:
    """Pixels to a cell of the mask of a box [4] in a view of the size (h, w).

    Examples
    --------
    >>> stride_of(torch.tensor([0.0, 0, 50, 50]), (100, 100), BbamSettings())
    40.0
    """
    finest, coarsest = settings.strides
    share = float(areas(box[None])) / (size[0] * size[1])
    return finest + (coarsest - finest) * math.sqrt(max(share, 0.0))


def grid_of(size: tuple[int, int], stride: float) -> tuple[int, int]:
    """Rows and columns of a mask with so many pixels to a cell, over a view of the size (h, w).

    Examples
    --------
    >>> grid_of((33, 10), 16.0)
    (3, 2)
    """
    return max(2, math.ceil(size[0] / stride)), max(2, math.ceil(size[1] / stride))


def proposals_around(box: Tensor, size: tuple[int, int], settings: BbamSettings, *key: int | str) -> Tensor:
    """Proposals drawn around a box: each corner's coordinates moved by a uniform draw of their own.

    Parameters
    ----------
    box
        (x0, y0, x1, y1), [4].
    size
        (h, w) of the view, to which the proposals are clipped.
    key
        What the draws are keyed by.

    Returns
    -------
    [proposals, 4].
    """
    draws = keyed.generator(*key).uniform(-settings.jitter, settings.jitter, (settings.proposals, 4))
    sides = (box[2:] - box[:2]).repeat(2)
    return clipped(box + torch.from_numpy(draws).to(box) * sides, size)


def positive(right: Tensor, ious: Tensor, settings: BbamSettings) -> tuple[Tensor, float]:
    """Which proposals find the object.

    Parameters
    ----------
    right
        Whether the class is the likeliest, background included, bool [n].
    ious
        IoU of the box found with the true one, [n].

    Returns
    -------
    Their numbers in order of drawing, `settings.positives` at most, and the IoU that they exceed (0 if there are none).
    """
    steps = (0.9, 0.85, 0.8) if settings.variant == "official" else (0.8,)
    for least in steps:
        numbers = (right & (ious > least)).nonzero()[:, 0]
        if len(numbers) > settings.positives:
            break
    return numbers[: settings.positives], least if len(numbers) else 0.0


def optimised(
    detector: Detector, sought: Sequence[Subject], settings: BbamSettings, *, most: int | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """The masks of some objects.

    Parameters
    ----------
    detector
        Trained, in evaluation mode.
    sought
        The objects, of any views and grids.
    most
        Objects that pass through the detector together; None for `at_once`. Every mask is that of the object alone, to
        rounding.

    Returns
    -------
    For each object its mask [gh, gw] in [0, 1], and the `TERMS` of its objective before each step, [iterations, 4]:
    those of both heads, also of one that is not optimised.
    """
    masks: dict[int, Tensor] = {}
    curves: dict[int, Tensor] = {}
    alike: dict[tuple[int, int], list[int]] = {}
    for number, one in enumerate(sought):
        alike.setdefault(one.size, []).append(number)
    for numbers in alike.values():
        count = most or at_once(sought[numbers[0]].view)
        for first in range(0, len(numbers), count):
            together = numbers[first : first + count]
            found, terms = _together(detector, [sought[n] for n in together], settings)
            masks |= zip(together, found, strict=True)
            curves |= zip(together, terms, strict=True)
    return [masks[n] for n in range(len(sought))], [curves[n] for n in range(len(sought))]


def enlarging(cells: int, pixels: int, like: Tensor) -> Tensor:
    """Weights [pixels, cells] of the bilinear interpolation from a row of cells, corner cells on corner pixels.

    Examples
    --------
    >>> enlarging(2, 3, torch.zeros(())).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    places = torch.linspace(0, cells - 1, pixels, dtype=torch.float64)
    weights = (1 - (places[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return weights.to(like)


def variation(masks: Tensor, cells: Tensor) -> Tensor:
    """Sum of |difference|^3 over neighbouring cells of each mask, [B]; diagonal neighbours count twice.

    Parameters
    ----------
    masks
        [B, gh, gw].
    cells
        1 where a mask has a cell, 0 where it was filled up to the size of others, [B, gh, gw].
    """
    total = masks.new_zeros(len(masks))
    for rows, columns, weight in ((0, 1, 1), (1, 0, 1), (1, 1, 2), (1, -1, 2)):
        difference = _shifted(masks, rows, columns)
        both = _shifted(cells, rows, columns)
        total = total + weight * ((difference[0] - difference[1]).abs() ** 3 * (both[0] * both[1])).sum((1, 2))
    return total


def _shifted(values: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """The values [B, h, w] that have a neighbour so many rows below and columns to the right (-1: to the left), and
    these neighbours."""
    height, width = values.shape[1:]
    left, right = max(0, -columns), width - max(0, columns)
    one = values[:, : height - rows, left:right]
    return one, values[:, rows:, left + columns : right + columns]


@torch.no_grad()
def _seen(detector: Detector, view: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and offsets of proposals in one view."""
    answers = [detector(view[None], [some]) for some in proposals.split(CHUNK_PROPOSALS)]
    probabilities, offsets = zip(*answers, strict=True)
    return torch.cat(probabilities), torch.cat(offsets)


def _subject(
    detector: Detector, scene: Scene, number: int, settings: BbamSettings, *key: int | str
) -> tuple[Subject | None, dict[str, Any]]:
    """An object of a scene, None if no proposal finds it, and what is to be recorded of its proposals."""
    size = (scene.view.shape[1], scene.view.shape[2])
    box, column = scene.seen_boxes[number], int(scene.classes[number]) + 1
    drawn = proposals_around(box, size, settings, *key, scene.image_id, number)
    probabilities, offsets = _seen(detector, scene.view, drawn)
    found = clipped(decoded(offsets[:, column], drawn), size)
    ious = overlaps(found, box.expand_as(found))
    chosen, least = positive(probabilities.argmax(1) == column, ious, settings)
    about: dict[str, Any] = {"positives": len(chosen), "iou": least, "proposal_iou": 0.0}
    if not len(chosen):
        return None, about
    about["proposal_iou"] = overlaps(drawn[chosen], found[chosen]).mean().item()
    stride = stride_of(box, size, settings)
    return Subject(
        scene.view, column, drawn[chosen], probabilities[chosen, column], offsets[chosen, column], stride
    ), about


def _record(
    scene: Scene,
    sought: Sequence[tuple[Subject | None, dict[str, Any]]],
    made: Sequence[tuple[Tensor, Tensor] | None],
    settings: BbamSettings,
) -> Attributions:
    """The record of a scene from its subjects, and from the mask and the curve of each."""
    maps, losses = [], []
    size = (scene.view.shape[1], scene.view.shape[2])
    for box, one in zip(scene.seen_boxes, made, strict=True):
        nothing = scene.view.new_zeros(grid_of(size, stride_of(box, size, settings)))
        maps.append(nothing if one is None else one[0])
        losses.append([0.0] * len(TERMS) if one is None else one[1][-1].tolist())
    statistics = {name: [about[name] for _, about in sought] for name in ("positives", "iou", "proposal_iou")}
    found = [one is not None for one in made]
    return scene.attributed(maps, found, {**statistics, "losses": losses, "without": found.count(False)})


def _together(
    detector: Detector, sought: Sequence[Subject], settings: BbamSettings
) -> tuple[list[Tensor], list[Tensor]]:
    """Masks and curves of objects whose views are of one size."""
    views = torch.stack([one.view for one in sought])
    starts, cells, upright, across = _filled_up(sought)
    masks = starts.requires_grad_(True)
    proposals = [one.proposals for one in sought]
    rows = torch.arange(sum(map(len, proposals)), device=views.device)
    columns = torch.cat([one.probabilities.new_full((len(one.proposals),), one.column) for one in sought]).long()
    probabilities = torch.cat([one.probabilities for one in sought])
    offsets = torch.cat([one.offsets for one in sought])
    mean = _means(proposals, views)
    weights = views.new_tensor(_weights(settings))
    adam = torch.optim.Adam([masks], lr=settings.rate)
    curves = []
    for _ in range(settings.iterations):
        with torch.enable_grad():
            seen = views * (upright @ masks @ across.transpose(1, 2))[:, None]
            likely, moves = detector(seen, proposals)
            box = mean @ (offsets - moves[rows, columns]).abs().sum(1)
            cls = mean @ (probabilities - likely[rows, columns]).abs()
            terms = torch.stack([box, cls, masks.abs().sum((1, 2)), variation(masks, cells)], 1)
            (masks.grad,) = torch.autograd.grad((terms @ weights).sum(), masks)
        adam.step()
        with torch.no_grad():
            masks.clamp_(0, 1)
        curves.append(terms.detach())
    found = [mask[: one.grid[0], : one.grid[1]] for mask, one in zip(masks.detach(), sought, strict=True)]
    return found, list(torch.stack(curves, 1))


def _weights(settings: BbamSettings) -> list[float]:
    """Weights of the `TERMS`, box being the sum over the four offsets."""
    official = settings.variant == "official"
    box, cls = (1 / 8, 1 / 2) if official else (1.0, 1.0)
    default = 1e-4 if official else 0.0
    vary = default if settings.variation_weight is None else settings.variation_weight
    return [box * (settings.heads != "cls"), cls * (settings.heads != "box"), settings.size_weight, vary]


def _filled_up(sought: Sequence[Subject]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Starts of the masks filled up with 0 to one size [B, gh, gw], where their own cells are, and the weights
    [B, h, gh] and [B, w, gw] that enlarge each: 0 at what was filled up."""
    rows, columns = (max(one.grid[axis] for one in sought) for axis in (0, 1))
    height, width = sought[0].size
    like = sought[0].view
    starts, cells = like.new_zeros(2, len(sought), rows, columns)
    upright, across = like.new_zeros(len(sought), height, rows), like.new_zeros(len(sought), width, columns)
    for number, one in enumerate(sought):
        r, c = one.grid
        starts[number, :r, :c] = one.start()
        cells[number, :r, :c] = 1
        upright[number, :, :r] = enlarging(r, height, like)
        across[number, :, :c] = enlarging(c, width, like)
    return starts.clone(), cells, upright, across


def _means(proposals: Sequence[Tensor], like: Tensor) -> Tensor:
    """Matrix [B, N] that takes the N proposals' values to the mean of each of the B objects."""
    return torch.block_diag(*[like.new_full((1, len(some)), 1 / len(some)) for some in proposals])
