"""The random walk's recurrence as one Triton kernel a step, for GPUs; `random_walk` says what is computed.

In torch a step is one addition for each of the 68 neighbours, which reads and writes whole maps. Here a program holds a
block of cells of several channels, which share their weights, visits the neighbours and writes each cell once, for all
images and channels in one launch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
"""Cells of one program."""

CHANNELS = 8
"""Most channels of one program."""


@triton.jit(do_not_specialize=("k", "channels", "cells"))
def _step(  # type: ignore[no-untyped-def]  # Triton compiles it anew for the types that it is called with
    current,
    previous,
    result,
    weights,
    diagonal,
    offsets,
    coefficients,
    k,
    scale,
    channels,
    cells,
    n_offsets: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """``previous := scale * (2 S current - previous)``, of which c_k times is added to the result."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < cells
    image = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * width + tl.arange(0, width)
    ours = (channel < channels)[:, None]
    own = (image * channels + channel)[:, None] * cells + at[None, :]
    total = tl.zeros((width, block), dtype=current.dtype.element_ty)
    for number in range(n_offsets):
        offset = tl.load(offsets + number)
        pairs = weights + (image * n_offsets + number) * cells + at
        after, before = inside & (at + offset < cells), inside & (at >= offset)
        later = tl.load(current + own + offset, mask=ours & after[None, :], other=0)
        total += tl.load(pairs, mask=after, other=0)[None, :] * later
        earlier = tl.load(current + own - offset, mask=ours & before[None, :], other=0)
        total += tl.load(pairs - offset, mask=before, other=0)[None, :] * earlier
    here = ours & inside[None, :]
    total -= tl.load(previous + own, mask=here, other=0)
    centre = tl.load(diagonal + image * cells + at, mask=inside, other=0)
    total += centre[None, :] * tl.load(current + own, mask=here, other=0)
    total *= scale
    tl.store(previous + own, total, mask=here)
    summed = tl.load(result + own, mask=here, other=0) + tl.load(coefficients + k) * total
    tl.store(result + own, summed, mask=here)


def polynomial(
    coefficients: Sequence[float], weights: Sequence[tuple[int, Tensor]], diagonal: Tensor, root: Tensor, start: Tensor
) -> Tensor:
    """``root^-1 (sum_k c_k T_k(S)) root`` applied to `start`, in its precision.

    Parameters
    ----------
    coefficients
        c_0, c_1, ...
    weights
        Offset in a flattened map, and twice the entries of S between a cell and the one that far after it,
        [N, 1, h * w - offset].
    diagonal
        Twice the diagonal of S, [N, 1, h * w].
    root
        [N, 1, h * w].
    start
        [N, K, h * w].
    """
    images, channels, cells = start.shape
    offsets = torch.tensor([offset for offset, _ in weights], dtype=torch.int32, device=start.device)
    pairs = start.new_zeros(images, max(1, len(weights)), cells)
    for number, (offset, values) in enumerate(weights):
        pairs[:, number, : cells - offset] = values[:, 0]
    diagonal = diagonal.contiguous()
    current = (start * root).to(start.dtype).contiguous()
    previous, result = torch.zeros_like(current), coefficients[0] * current
    factors = torch.tensor(coefficients, dtype=start.dtype, device=start.device)
    width = min(CHANNELS, triton.next_power_of_2(channels))
    grid = (triton.cdiv(cells, BLOCK), images, triton.cdiv(channels, width))
    for k in range(1, len(coefficients)):
        maps = (current, previous, result, pairs, diagonal)
        scale = 0.5 if k == 1 else 1.0
        _step[grid](*maps, offsets, factors, k, scale, channels, cells, len(weights), width, BLOCK)
        current, previous = previous, current
    return result.div_(root)
