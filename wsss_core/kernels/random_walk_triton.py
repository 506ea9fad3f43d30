"""The random walk's recurrence as one Triton kernel a step, for GPUs; `random_walk` says what is computed.

In torch a step is one addition for each of the 68 neighbours, which reads and writes whole maps. Here a program holds a
block of cells, visits their neighbours and writes them once, for all images and channels in one launch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
"""Cells of one program."""


@triton.jit
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
    block: tl.constexpr,
):
    """``previous := scale * (2 S current - previous)``, of which c_k times is added to the result."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < cells
    channel = tl.program_id(1).to(tl.int64)
    image = channel // channels
    own = channel * cells + at
    total = tl.zeros((block,), dtype=current.dtype.element_ty)
    for number in range(n_offsets):
        offset = tl.load(offsets + number)
        pairs = weights + (image * n_offsets + number) * cells + at
        after, before = inside & (at + offset < cells), inside & (at >= offset)
        total += tl.load(pairs, mask=after, other=0) * tl.load(current + own + offset, mask=after, other=0)
        total += tl.load(pairs - offset, mask=before, other=0) * tl.load(current + own - offset, mask=before, other=0)
    total -= tl.load(previous + own, mask=inside, other=0)
    centre = tl.load(diagonal + image * cells + at, mask=inside, other=0)
    total += centre * tl.load(current + own, mask=inside, other=0)
    total *= scale
    tl.store(previous + own, total, mask=inside)
    summed = tl.load(result + own, mask=inside, other=0) + tl.load(coefficients + k) * total
    tl.store(result + own, summed, mask=inside)


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
    grid = (triton.cdiv(cells, BLOCK), images * channels)
    for k in range(1, len(coefficients)):
        maps = (current, previous, result, pairs, diagonal)
        scale = 0.5 if k == 1 else 1.0
        _step[grid](*maps, offsets, factors, k, scale, channels, cells, len(weights), BLOCK)
        current, previous = previous, current
    return result.div_(root)
