"""Random walk of class scores on pair affinities, without the (hw) x (hw) transition matrix.

Pixels i and j within a radius have an affinity ``a_ij``, and ``a_ii = 1``: ``(1 - max boundary on the path) ** beta``
in IRN, the closeness of two features in AffinityNet. With the column sums D of A, the published codes multiply the
scores, as row vectors, by ``(A D^-1) ** 256``, squaring a dense matrix eight times. A is symmetric, so that power is
``D^-1/2 S^256 D^1/2`` with ``S = D^-1/2 A D^-1/2``, whose eigenvalues lie in [-1, 1]; and
``s^n = sum_k c_k T_k(s)`` in Chebyshev polynomials has coefficients so close to zero beyond degree
``sqrt(2 n log(2 / tolerance))`` that some 80 applications of the 69-tap stencil S take the place of 256.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from math import comb
from typing import Any

import torch
from torch import Tensor

from wsss_core.kernels import as_tensor
from wsss_core.kernels.paths import directions, path_maxima

log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}
"""Sum of the neglected Chebyshev coefficients, per precision."""

SERIAL = 32767
"""Most elements of one operation for which torch uses one CPU thread."""


def propagate(scores: Any, boundary: Any, *, radius: float = 5, beta: float = 10.0, log2_steps: int = 8) -> Any:
    """Walk ``scores * (1 - boundary)`` for ``2 ** log2_steps`` steps.

    Parameters
    ----------
    scores
        [K, h, w], or [N, K, h, w] for N images of one size; array or tensor. float64 is computed in float64,
        anything else in float32.
    boundary
        [h, w] or [1, h, w] in [0, 1]; [N, h, w] or [N, 1, h, w] for N images.
    radius
        Pairs of pixels closer than this many cells are neighbours.
    beta
        Exponent of the affinities.
    log2_steps
        Binary logarithm of the number of steps.

    Returns
    -------
    Walked scores, of the shape and kind of `scores`.

    Raises
    ------
    ValueError
        If the shapes do not match.

    Examples
    --------
    Scores spread over their side of a boundary and do not cross it.

    >>> import numpy as np
    >>> scores = np.zeros((1, 9, 11), dtype=np.float32)
    >>> scores[0, 4, 2] = 1
    >>> boundary = np.zeros((9, 11), dtype=np.float32)
    >>> boundary[:, 5] = 1
    >>> walked = propagate(scores, boundary, radius=3)
    >>> (walked[0, 4] > 0.01).astype(int).tolist()
    [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    """
    x, edge, restore = _inputs(scores, boundary, 1, "boundary")
    edge = edge.to(x.dtype)
    affinities = boundary_affinities(edge[:, 0].double(), radius, beta)
    return restore(_power(x * (1 - edge), affinities, radius, log2_steps))


def walk(scores: Any, affinities: Any, *, radius: float = 5, log2_steps: int = 8) -> Any:
    """Walk `scores` for ``2 ** log2_steps`` steps on given affinities.

    Parameters
    ----------
    scores
        [K, h, w], or [N, K, h, w] for N images of one size; array or tensor. float64 is computed in float64,
        anything else in float32.
    affinities
        [P, h, w] or [N, P, h, w], P as in `paths.directions`: of every pixel to its neighbours in a half plane, not
        negative, and 0 where the neighbour lies outside the map. A pixel has the affinity 1 to itself.
    radius
        Pairs of pixels closer than this many cells are neighbours.
    log2_steps
        Binary logarithm of the number of steps.

    Returns
    -------
    Walked scores, of the shape and kind of `scores`.

    Raises
    ------
    ValueError
        If the shapes do not match.
    """
    x, affinities, restore = _inputs(scores, affinities, len(directions(radius)), "affinities")
    return restore(_power(x, affinities.double(), radius, log2_steps))


def walk_on_matrix(scores: Tensor, affinities: Tensor, *, log2_steps: int = 8) -> Tensor:
    """Walk `scores` for ``2 ** log2_steps`` steps between any cells, near or far.

    Parameters
    ----------
    scores
        [K, h, w].
    affinities
        [h w, h w], symmetric and not negative, with ones on the diagonal.
    log2_steps
        Binary logarithm of the number of steps.

    Returns
    -------
    Walked scores, [K, h, w], in the precision of `scores` and computed in that of `affinities`.

    Raises
    ------
    ValueError
        If the shapes do not match.

    Examples
    --------
    The first and the last cell are alike, the one between them is not:

    >>> alike = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    >>> walk_on_matrix(torch.tensor([[[1.0, 0, 0]]]), alike, log2_steps=3).round(decimals=3).tolist()
    [[[0.5, 0.0, 0.5]]]
    """
    cells = scores.shape[-2] * scores.shape[-1]
    if scores.ndim != 3 or tuple(affinities.shape) != (cells, cells):
        raise ValueError(
            f"scores {tuple(scores.shape)} and affinities {tuple(affinities.shape)} do not belong together"
        )
    root = affinities.sum(0).sqrt()
    symmetric = affinities / (root[:, None] * root)
    # T_k by their recurrence, on rows
    before, current = None, scores.flatten(1).to(affinities.dtype) * root
    coefficients = chebyshev_power(2**log2_steps, TOLERANCE[affinities.dtype])
    result = coefficients[0] * current
    for coefficient in coefficients[1:]:
        moved = current @ symmetric
        before, current = current, moved if before is None else 2 * moved - before
        result += coefficient * current
    return (result / root).to(scores.dtype).reshape(scores.shape)


def boundary_affinities(boundary: Tensor, radius: float, beta: float) -> Tensor:
    """Affinities of every pixel to its neighbours in a half plane.

    Parameters
    ----------
    boundary
        [..., h, w].

    Returns
    -------
    [..., P, h, w], P as in `paths.directions`: ``(1 - max boundary on the path) ** beta``, 0 where the neighbour
    lies outside the map.
    """
    return (1 - torch.stack(path_maxima(boundary, radius, border=1.0), -3)).pow_(beta)


@lru_cache
def chebyshev_power(exponent: int, tolerance: float) -> tuple[float, ...]:
    """Coefficients c_0, c_1, ... of ``s ** exponent`` in Chebyshev polynomials, as far as they matter.

    The coefficients are positive and sum to 1; the neglected ones sum to at most `tolerance`, which therefore
    bounds the error on [-1, 1]. They are binomial probabilities, ``c_k = 2 ** (1 - n) binomial(n, (n - k) / 2)``
    (half of it for k = 0), and exactly rounded.

    Examples
    --------
    >>> chebyshev_power(2, 0.0), chebyshev_power(3, 0.0)
    ((0.5, 0.0, 0.5), (0.0, 0.75, 0.0, 0.25))
    >>> len(chebyshev_power(256, 1e-6))
    79
    """
    n = exponent
    coefficients = [0.0 if (n - k) % 2 else comb(n, (n - k) // 2) / 2 ** (n - 1 if k else n) for k in range(n + 1)]
    neglected = 0.0
    while len(coefficients) > 1 and neglected + coefficients[-1] <= tolerance:
        neglected += coefficients.pop()
    return tuple(coefficients)


def _inputs(scores: Any, pairs: Any, planes: int, what: str) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    """Scores [N, K, h, w], the other map [N, planes, h, w], and the function that restores shape and kind."""
    x, to_kind = as_tensor(scores)
    values, _ = as_tensor(pairs)
    shape, kind = tuple(x.shape), x.dtype
    lead, size = shape[:-3], shape[-2:]
    allowed = [(*lead, planes, *size)] + [(*lead, *size)] * (planes == 1)
    if len(shape) not in (3, 4) or tuple(values.shape) not in allowed:
        raise ValueError(f"scores {shape} and {what} {tuple(values.shape)} do not belong together")
    x = x.to(torch.float64 if kind == torch.float64 else torch.float32)[(None,) * (4 - len(shape))]
    values = values.to(x.device).reshape(len(x), planes, *size)
    return x, values, lambda result: to_kind(result.to(kind).reshape(shape))


def _power(x: Tensor, affinities: Tensor, radius: float, log2_steps: int) -> Tensor:
    """The walk of `x` [N, K, h, w] on float64 affinities [N, P, h, w], in the precision of `x`."""
    state, affinities = x.flatten(2), affinities.flatten(2)
    offsets = _flat_offsets(radius, x.shape[-1], state.shape[-1])
    coefficients = chebyshev_power(2**log2_steps, TOLERANCE[x.dtype])
    polynomial = polynomial_on(x.device.type)
    walked = torch.empty_like(state)
    for images, channels in _parts(state):
        stencil = _symmetric_stencil(affinities[images], offsets, x.dtype)
        for few in channels:
            walked[images, few] = polynomial(coefficients, *stencil, state[images, few])
    return walked.reshape(x.shape)


def _flat_offsets(radius: float, width: int, cells: int) -> list[tuple[int, int]]:
    """(direction, offset) in a flattened map, for the directions that stay inside it somewhere.

    A flat offset may wrap to the next row, but then the pair leaves the map and its affinity is 0.
    """
    flat = [(i, dy * width + dx) for i, (dy, dx) in enumerate(directions(radius))]
    return [(i, offset) for i, offset in flat if 0 < offset < cells]


def _degrees(affinities: Tensor, offsets: list[tuple[int, int]]) -> Tensor:
    """Column sums [N, 1, h * w] of the matrix of affinities [N, P, h * w], its diagonal of ones included."""
    total = torch.ones_like(affinities[:, :1])
    for i, offset in offsets:
        weights = affinities[:, i, None, :-offset]
        total[..., :-offset] += weights
        total[..., offset:] += weights
    return total


def _parts(state: Tensor) -> list[tuple[slice, list[slice]]]:
    """Images, and channels of these, to work on at a time.

    All at once on a GPU. On a CPU so few that torch does not hand the thousands of small products to several threads:
    two idle cores gain a fifth that way, while on busy ones every product waits for the slowest thread.
    """
    images, channels, cells = state.shape
    if state.device.type != "cpu":
        return [(slice(None), [slice(None)])]
    few = max(1, SERIAL // cells)
    return [(slice(i, i + 1), [slice(k, k + few) for k in range(0, channels, few)]) for i in range(images)]


@cache
def polynomial_on(device: str) -> Callable[..., Tensor]:
    """The recurrence for a kind of device: on a GPU in Triton, or, with a line in the log, in torch.

    Whether Triton works is tried on two cells.
    """
    if device != "cuda":
        return _polynomial
    try:
        from wsss_core.kernels.random_walk_triton import polynomial

        two = torch.ones(1, 1, 2, device=device)
        polynomial((0.0, 1.0), [(1, two[..., :1])], two, two, two)
    except Exception as error:
        log.warning("random walk without its Triton kernel, by slower operations of torch: %r", error)
        return _polynomial
    return polynomial


def _symmetric_stencil(
    affinities: Tensor, offsets: list[tuple[int, int]], work: torch.dtype
) -> tuple[list[tuple[int, Tensor]], Tensor, Tensor]:
    """The symmetrised transition S of `affinities`: twice its neighbours' weights by offset, twice its diagonal, and
    the square roots of D between it and the transition."""
    total = _degrees(affinities, offsets)
    scale = total.rsqrt()
    pairs = [(o, 2 * affinities[:, i, None, :-o] * scale[..., :-o] * scale[..., o:]) for i, o in offsets]
    weights = [(offset, pair.to(work)) for offset, pair in pairs]
    return weights, (2 / total).to(work), total.sqrt()


def _polynomial(
    coefficients: Sequence[float], weights: list[tuple[int, Tensor]], diagonal: Tensor, root: Tensor, start: Tensor
) -> Tensor:
    """``root^-1 (sum_k c_k T_k(S)) root`` applied to `start` [N, K, h * w], in its precision.

    The recurrence ``T_{k+1} = 2 S T_k - T_{k-1}`` runs in two buffers whose views are made once. The 68 small
    products are summed before they meet the larger terms, which makes float32 some twenty times more accurate.
    """
    current = (start * root).to(start.dtype)
    previous = torch.zeros_like(current)
    neighbours = torch.empty_like(current)

    def products(x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        pairs = [[(neighbours[..., :-o], w, x[..., o:]), (neighbours[..., o:], w, x[..., :-o])] for o, w in weights]
        return [product for pair in pairs for product in pair]

    result = coefficients[0] * current
    here, there = products(current), products(previous)
    for k, coefficient in enumerate(coefficients[1:], 1):
        neighbours.zero_()
        for out, weight, x in here:
            out.addcmul_(weight, x)
        torch.sub(neighbours, previous, out=previous)
        previous.addcmul_(diagonal, current)
        if k == 1:
            previous.mul_(0.5)
        current, previous, here, there = previous, current, there, here
        if coefficient:
            result.add_(current, alpha=coefficient)
    return result.div_(root)
