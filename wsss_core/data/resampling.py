"""Images and their views where a GPU wants them: the same bytes as `augment` makes, computed on the GPU.

Pillow resizes rows, then columns. Each pass adds up pixels times weights that are integers of 22 binary places, and
rounds and clips the sum to a byte; integers have no rounding of their own, so a GPU finds the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.augment import normalise, scaled_pair, scaled_size

PLACES = 22
"""Binary places of the weights."""

SUPPORT = 2.0
"""The filter's reach on either side, in pixels of the coarser image."""


def views(images: Sequence[np.ndarray], scale: float, device: torch.device) -> Tensor:
    """Images of one size at a scale, each followed by its mirror image, normalised.

    Parameters
    ----------
    images
        N arrays uint8 [H, W, 3], RGB.

    Returns
    -------
    float32 [2 N, 3, H_s, W_s] on the device, as `augment.scaled_pair` makes them; on a GPU, images travel as bytes and
    are resized there.
    """
    if device.type == "cpu":
        return torch.from_numpy(np.concatenate([scaled_pair(image, scale) for image in images]))
    return pairs(sent(images, device), scale)


def sent(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Images of one size, uint8 [H, W, 3] each, as uint8 [N, 3, H, W] on the device."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)


def pairs(images: Tensor, scale: float) -> Tensor:
    """`views` of images uint8 [N, 3, H, W], where these are."""
    height, width = images.shape[2:]
    shown = normalised(resized(images, scaled_size((height, width), scale)))
    return torch.stack([shown, shown.flip(-1)], 1).flatten(0, 1)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [..., H, W] of uint8 in another size (H', W'), as `augment.resize` makes it.

    Examples
    --------
    >>> from wsss_core.data.augment import resize
    >>> image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    >>> there = torch.from_numpy(image).permute(2, 0, 1)
    >>> bool((resized(there, (45, 62)).permute(1, 2, 0).numpy() == resize(image, (45, 62))).all())
    True
    """
    rows = _along_last(images, size[1])
    return _along_last(rows.transpose(-1, -2), size[0]).transpose(-1, -2)


def normalised(images: Tensor) -> Tensor:
    """`augment.normalise` of images uint8 [..., 3, H, W], to the same bits: float32."""
    table = _normalised_levels(images.device)
    channels = images.int().unbind(-3)
    return torch.stack([table[channel][levels] for channel, levels in enumerate(channels)], -3)


def _along_last(pixels: Tensor, length: int) -> Tensor:
    """One pass, along the last axis."""
    if pixels.shape[-1] == length:
        return pixels
    places, weights = _taps(pixels.shape[-1], length, pixels.device)
    total = (pixels[..., places] * weights).sum(-2, dtype=torch.int32)
    return ((total + (1 << (PLACES - 1))) >> PLACES).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=2048)
def _taps(length: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each of T taps the pixels that the wanted ones are made from, int64 [T, wanted], and their weights, int32."""
    scale = length / wanted
    coarser = max(scale, 1.0)
    centres = (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centres - SUPPORT * coarser + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + SUPPORT * coarser + 0.5).astype(np.int64), length)
    places = first[None] + np.arange((last - first).max())[:, None]
    weights = np.where(places < last, _bicubic((places - centres + 0.5) / coarser), 0.0)
    total = np.zeros(wanted)
    for row in weights:  # in Pillow's order, one after another
        total += row
    fixed = weights / total * (1 << PLACES)
    fixed = np.trunc(fixed + np.where(fixed < 0, -0.5, 0.5)).astype(np.int32)
    places = np.minimum(places, length - 1)
    return torch.from_numpy(places).to(device), torch.from_numpy(fixed).to(device)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -0.5 (IEEE Transactions on ASSP 29, 1981)."""
    x, a = np.abs(distance), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


@lru_cache(maxsize=8)
def _normalised_levels(device: torch.device) -> Tensor:
    """The normalised value of each level of each channel, float32 [3, 256]."""
    levels = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2)
    return torch.from_numpy(normalise(levels)[..., 0]).to(device)
