"""Regions pooled from a feature pyramid, of which only the parts that they touch are worked out.

A detector that looks for objects needs its whole pyramid. One that is asked again and again about regions around one
object does not: most of a pyramid's arithmetic is the convolution that ends each level, the finest four times as much
as the next, and a region is pooled from a window of one level. RoIAlign, in turn, is a mean of points that are bilinear
in either direction: a product with a matrix from each side, which is followed back by products. (torchvision's adds up
points one by one on the way back, which takes longer, and on a GPU in an order that is not the same twice.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign


def pooled(
    fpn: FeaturePyramidNetwork, pool: MultiScaleRoIAlign, taps: Sequence[Tensor], proposals: Sequence[Tensor]
) -> Tensor:
    """What `pool` makes of the levels that `fpn` makes of `taps`, to rounding.

    Parameters
    ----------
    fpn
        Pyramid whose levels end in a 3x3 convolution without normalisation.
    pool
        RoIAlign with scales, `map_levels` and a sampling ratio; one scale a tap.
    taps
        Features of B images, the finest first, [B, D_l, h_l, w_l].
    proposals
        (x0, y0, x1, y1) in pixels of the input, [n_i, 4] for each image. The closer those of an image lie together,
        the less there is to do; where they are spread, torchvision's own way is the faster one.

    Returns
    -------
    [N, D, cells, cells] for all N regions in order.
    """
    assert pool.scales is not None and pool.map_levels is not None
    if not any(map(len, proposals)):
        return taps[0].new_zeros(0, fpn.layer_blocks[0][0].out_channels, *pool.output_size)
    boxes, levels = torch.cat(list(proposals)), pool.map_levels(list(proposals))
    owners = torch.arange(len(proposals)).repeat_interleave(torch.tensor([len(some) for some in proposals]))
    owners = owners.to(boxes.device)
    found, order = [], []
    merged: Tensor | None = None
    for level in reversed(range(int(levels.min()), len(taps))):
        lateral = fpn.get_result_from_inner_blocks(taps[level], level)
        merged = lateral if merged is None else lateral + F.interpolate(merged, lateral.shape[-2:], mode="nearest")
        here = (levels == level).nonzero()[:, 0]
        if len(here):
            (convolution,) = fpn.layer_blocks[level]
            cells = boxes[here] * pool.scales[level]
            upright, across = (
                sampling(cells[:, axis], cells[:, axis + 2], length, bins, pool.sampling_ratio)
                for axis, length, bins in zip((1, 0), merged.shape[2:], pool.output_size, strict=True)
            )
            found.append(_from_windows(convolution.weight, convolution.bias, merged, owners[here], upright, across))
            order.append(here)
    return torch.cat(found)[torch.cat(order).argsort()]


def sampling(low: Tensor, high: Tensor, length: int, bins: int, points: int) -> Tensor:
    """How much of each cell is in each bin of regions along one direction, as RoIAlign has it.

    Parameters
    ----------
    low, high
        Where the regions begin and end in cells, [n]. Those of less than a cell are taken for one.
    length
        Cells in this direction.
    points
        Points sampled in a bin.

    Returns
    -------
    [n, bins, length].

    Examples
    --------
    >>> sampling(torch.tensor([1.0]), torch.tensor([3.0]), 5, 2, 2).tolist()
    [[[0.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.0]]]
    """
    steps = (torch.arange(bins * points, dtype=low.dtype, device=low.device) + 0.5) / (bins * points)
    places = low[:, None] + (high - low).clamp(min=1)[:, None] * steps
    there = (places >= -1) & (places <= length)
    distances = places.clamp(0, length - 1)[:, :, None] - torch.arange(length, device=low.device)
    weights = (1 - distances.abs()).clamp(min=0) * there[:, :, None]
    return weights.unflatten(1, (bins, points)).mean(2)


def _from_windows(
    weight: Tensor, bias: Tensor | None, merged: Tensor, owners: Tensor, upright: Tensor, across: Tensor
) -> Tensor:
    """Regions of the images `owners` [n] pooled from a 3x3 convolution of `merged`.

    Parameters
    ----------
    weight, bias
        Of the convolution.
    merged
        [B, D, h, w].
    owners
        Ascending.
    upright, across
        As `sampling` gives them, [n, bins, h] and [n, bins, w].

    Returns
    -------
    [n, D, bins, bins].
    """
    images, counts = owners.unique_consecutive(return_counts=True)
    uprights, acrosses = (one.split(counts.tolist()) for one in (upright, across))
    (tops, height), (lefts, width) = _windows(uprights), _windows(acrosses)
    padded = F.pad(merged[images], (1, 1, 1, 1))
    windows = torch.stack(
        [
            one[:, top : top + height + 2, left : left + width + 2]
            for one, top, left in zip(padded.unbind(), tops, lefts, strict=True)
        ]
    )
    values = F.conv2d(windows, weight, bias).permute(0, 2, 3, 1)
    found = []
    for window, rows, columns, top, left in zip(values, uprights, acrosses, tops, lefts, strict=True):
        rows, columns = (
            rows[:, :, top : top + height].to(window.dtype),
            columns[:, :, left : left + width].to(window.dtype),
        )
        lines = (rows.flatten(0, 1) @ window.flatten(1)).view(*rows.shape[:2], *window.shape[1:])
        found.append(columns[:, None] @ lines)
    return torch.cat(found).permute(0, 3, 1, 2)


def _windows(weights: Sequence[Tensor]) -> tuple[list[int], int]:
    """Where a window begins in each image that holds all cells of its regions' weights [n, bins, length], and its
    length, which is one for all images."""
    length = weights[0].shape[2]
    used = [one.any(0).any(0).nonzero()[:, 0].tolist() or [0] for one in weights]
    size = max(cells[-1] - cells[0] + 1 for cells in used)
    return [min(cells[0], length - size) for cells in used], size
