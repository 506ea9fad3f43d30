"""The losses of the inter-pixel relation network as they are usually written: index tables over all pairs.

For a 128 x 128 grid and radius 10 the tables hold 2134 x 13090 indices, the labels three times 152 x 13090
numbers an image.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache
def pair_tables(radius: int, height: int, width: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Cells on the path of every pair (one [cells, sources] table per direction), destinations and offsets [P, 2].

    Made once a process, as published.
    """
    reach = radius - 1
    index = torch.arange(height * width).reshape(height, width)
    paths, destinations, offsets = [], [], []
    for dy in range(radius):
        for dx in range(-reach, radius):
            if (dy == 0 and dx <= 0) or dy * dy + dx * dx >= radius * radius:
                continue
            cells = [
                (y, x)
                for y in range(dy + 1)
                for x in range(min(dx, 0), max(dx, 0) + 1)
                if (dy * x - dx * y) ** 2 / (dy * dy + dx * dx) < 1
            ]
            views = [index[y : y + height - reach, reach + x : x + width - reach].flatten() for y, x in cells]
            paths.append(torch.stack(views))
            destinations.append(index[dy : dy + height - reach, reach + dx : dx + width - reach].flatten())
            offsets.append((dy, dx))
    return paths, torch.stack(destinations), torch.tensor(offsets)


def pair_labels(labels: Tensor, source: Tensor, destinations: Tensor, n_labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Float arrays [P, sources]: pairs of equal background, of equal foreground, of different labels [h, w]."""
    flat = labels.flatten().long()
    ours, theirs = flat[source][None], flat[destinations]
    valid = (ours < n_labels) & (theirs < n_labels)
    equal = ours == theirs
    background = valid & equal & (ours == 0)
    foreground = valid & equal & (ours > 0)
    return background.float(), foreground.float(), (valid & ~equal).float()


def relation_loss_by_tables(
    boundary_logits: Tensor, displacements: Tensor, labels: Tensor, radius: int, n_labels: int
) -> Tensor:
    """As ``wsss_core.refine.irn.relation_loss(...)["loss"]``; labels of `n_labels` and above are unknown.

    Pair labels are made on the CPU, where the published loader makes them, and travel to the device.
    """
    device = boundary_logits.device
    height, width = labels.shape[-2:]
    reach = radius - 1
    paths, destinations, offsets = pair_tables(radius, height, width)
    index = torch.arange(height * width).reshape(height, width)
    source = index[: height - reach, reach : width - reach].flatten()
    pairs = (pair_labels(m, source, destinations, n_labels) for m in labels.cpu())
    background, foreground, different = (torch.stack(parts).to(device) for parts in zip(*pairs, strict=True))
    source, destinations, offsets = source.to(device), destinations.to(device), offsets.to(device)
    edge = boundary_logits.sigmoid().flatten(1)
    affinity = torch.stack([1 - edge[:, path].amax(1) for path in paths], 1)
    flat = displacements.flatten(2)
    shift = flat[:, :, None, source] - flat[:, :, destinations]
    positive, negative = -torch.log(affinity + 1e-5), -torch.log(1 + 1e-5 - affinity)
    loss_background = (background * positive).sum() / (background.sum() + 1e-5)
    loss_foreground = (foreground * positive).sum() / (foreground.sum() + 1e-5)
    loss_different = (different * negative).sum() / (different.sum() + 1e-5)
    error = (shift - offsets.T[None, :, :, None]).abs()
    shift_foreground = (error * foreground[:, None]).sum() / (2 * foreground.sum() + 1e-5)
    shift_background = (shift.abs() * background[:, None]).sum() / (2 * background.sum() + 1e-5)
    boundary = loss_background / 2 + loss_foreground / 2 + loss_different
    return boundary / 2 + (shift_foreground + shift_background) / 2
