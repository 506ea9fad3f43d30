"""Pixel-adaptive refinement: planes of scores flow to neighbours of like colour, near and far.

Ru, Zhan, Yu & Du, "Learning Affinity from Attention: End-to-End Weakly-Supervised Semantic Segmentation with
Transformers", CVPR 2022 (PAR), as the published code has it. A pixel i has 8 neighbours j at each dilation; beyond the
border stand the pixels of the edge. With the colours I (three channels), s_c the standard deviation of channel c over
the neighbours of i, d_ij their distance in pixels and s the standard deviation of all distances::

    k_ij = softmax_j( -mean_c ((I_ic - I_jc) / (w_1 s_c))^2 ) + w_2 softmax_j( -(d_ij / (w_1 s))^2 )
    M_i  <- sum_j k_ij M_j,   several times

The published code holds the planes of all neighbours at once; here one neighbour is added after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-8
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Steps (down, right) to the 8 neighbours at dilation 1."""


def affinities(image: Tensor, dilations: Sequence[int], colour: float = 0.3, position: float = 0.01) -> Tensor:
    """How much each neighbour of a pixel counts.

    Parameters
    ----------
    image
        Colours [3, H, W], in any unit.
    dilations
        Distances of the neighbours in pixels.
    colour
        w_1: below how many standard deviations colours are alike.
    position
        w_2: what nearness counts beside colour.

    Returns
    -------
    [N, H, W], N = 8 x dilations, in the order of `neighbours`; they add up to 1 + w_2 for every pixel.

    Examples
    --------
    >>> image = torch.zeros(3, 5, 6)
    >>> image[:, :, 3:] = 200
    >>> found = affinities(image, (1,), position=0)
    >>> bool(found[4, 2, 2] < 1e-6), round(float(found[3, 2, 2]), 3)
    (True, 0.2)
    """
    count = len(AROUND) * len(dilations)
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for neighbour in neighbours(image, dilations):
        total += neighbour
    for neighbour in neighbours(image, dilations):
        squares += (neighbour - total / count) ** 2
    spread = (squares / (count - 1)).sqrt() + TINY
    alike = torch.stack([-((near - image) / spread / colour).square().mean(0) for near in neighbours(image, dilations)])
    distances = image.new_tensor([d * (dy * dy + dx * dx) ** 0.5 for d in dilations for dy, dx in AROUND])
    near = -(distances / (distances.std() + TINY) / colour).square()
    return alike.softmax(0) + position * near.softmax(0)[:, None, None]


def refine(planes: Tensor, weights: Tensor, dilations: Sequence[int], iterations: int) -> Tensor:
    """Planes [L, H, W] after their scores have flowed for some iterations by `affinities` [N, H, W]."""
    for _ in range(iterations):
        flowed = torch.zeros_like(planes)
        for weight, neighbour in zip(weights, neighbours(planes, dilations), strict=True):
            flowed += weight * neighbour
        planes = flowed
    return planes


def neighbours(planes: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Planes [L, H, W] as each of the neighbours has them, one after the other: those of `AROUND` at each dilation."""
    height, width = planes.shape[1:]
    for d in dilations:
        padded = F.pad(planes[None], (d, d, d, d), mode="replicate")[0]
        for dy, dx in AROUND:
            top, left = d + d * dy, d + d * dx
            yield padded[:, top : top + height, left : left + width]
