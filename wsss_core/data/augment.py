"""Images and tags as networks take them: resizing, colours, normalising, flipping and cropping, pixel for pixel as the
IRN family of methods does it.

Order in training: decode, resize and perhaps change colours (on uint8), normalise, flip, crop. Every random function
draws from the generator it is given, always the same number of draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB values in 0..1, as torchvision's weights expect."""

ColourJitter = tuple[float, float, float, float]
"""Ranges of brightness, contrast, saturation and hue, see `random_colour_jitter`."""

Labels = TypeVar("Labels", np.ndarray, None)
"""Labels that go with an image, or none."""

_NORMALISED = ((np.arange(256)[:, None] / 255.0 - MEAN) / STD).astype(np.float32)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize with Pillow's bicubic filter, rounded and clipped to uint8: first the width, then the height.

    Pillow itself takes the height of some tall images first from version 13 on, which changes single levels.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    size
        Target (H, W); at the image's own size it is returned untouched.
    """
    wider = _resized(image, (image.shape[0], size[1]), Image.Resampling.BICUBIC)
    return _resized(wider, size, Image.Resampling.BICUBIC)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels, uint8 [H, W], to (H, W) `size` with Pillow's nearest neighbour."""
    return _resized(labels, size, Image.Resampling.NEAREST)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) times a scale, each side rounded half to even, and at least 1."""
    return max(1, int(np.round(size[0] * scale))), max(1, int(np.round(size[1] * scale)))


def random_resize_long(image: np.ndarray, lo: int, hi: int, rng: np.random.Generator) -> np.ndarray:
    """Resize so that the longer side is a uniform integer in [lo, hi], both ends included.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    """
    target = int(rng.integers(lo, hi + 1))
    return resize(image, scaled_size(image.shape[:2], target / max(image.shape[:2])))


def random_rescale(
    image: np.ndarray, labels: Labels, lo: float, hi: float, rng: np.random.Generator
) -> tuple[np.ndarray, Labels]:
    """Scale image, uint8 [H, W, 3], and labels, uint8 [H, W], by a uniform factor in [lo, hi)."""
    size = scaled_size(image.shape[:2], float(rng.uniform(lo, hi)))
    return resize(image, size), None if labels is None else resize_labels(labels, size)


def random_colour_jitter(image: np.ndarray, ranges: ColourJitter, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue at random, one after the other in random order, as PSA does.

    The first three blend the image, on uint8, with black, with the mean of its grey picture, and with its grey picture;
    a factor of 1 leaves the image as it is, 0 leaves the other one alone. The hue is turned in Pillow's HSV.

    Parameters
    ----------
    image
        uint8 [H, W, 3], RGB.
    ranges
        (b, c, s, h): factors of brightness, contrast and saturation are uniform in [1 - b, 1 + b] and so on, not below
        0; the shift of the hue is uniform in [-h, h], where 1 is the whole circle. PSA: (0.3, 0.3, 0.3, 0.1).
    """
    *spreads, shift = ranges
    low, high = np.array([*(max(0.0, 1 - s) for s in spreads), -shift]), np.array([*(1 + s for s in spreads), shift])
    amounts = rng.uniform(low, high)
    picture = Image.fromarray(image)
    for index in rng.permutation(len(_COLOUR_CHANGES)):
        picture = _COLOUR_CHANGES[index](picture, float(amounts[index]))
    return np.array(picture)


def normalise(image: np.ndarray) -> np.ndarray:
    """(x / 255 - mean) / std, computed in float64 and stored as float32.

    Parameters
    ----------
    image
        uint8 [H, W, 3], RGB.

    Returns
    -------
    float32 [3, H, W].
    """
    return np.stack([_NORMALISED[image[..., channel], channel] for channel in range(3)])


def random_flip(image: np.ndarray, labels: Labels, rng: np.random.Generator) -> tuple[np.ndarray, Labels]:
    """Mirror image, [3, H, W], and labels, [H, W], left to right with probability one half."""
    if rng.random() < 0.5:
        return image, labels
    return image[..., ::-1].copy(), None if labels is None else labels[..., ::-1].copy()


def random_crop(image: np.ndarray, labels: Labels, size: int, rng: np.random.Generator) -> tuple[np.ndarray, Labels]:
    """Square random window; along an axis shorter than the window, the image lies at a random place in it.

    Parameters
    ----------
    image
        float32 [3, H, W], normalised, so that the filling of 0 is the mean colour.
    labels
        uint8 [H, W] or None; filled with 255.
    size
        Side of the window in pixels.

    Returns
    -------
    float32 [3, size, size] and uint8 [size, size] or None.
    """
    top, left = (int(rng.integers(abs(length - size) + 1)) for length in image.shape[1:])
    return _window(image, labels, size, (top, left))


def top_left_crop(image: np.ndarray, labels: Labels, size: int) -> tuple[np.ndarray, Labels]:
    """As `random_crop`, but always from the top left corner, filled at the right and the bottom."""
    return _window(image, labels, size, (0, 0))


def training_crop(
    image: np.ndarray,
    long_side: tuple[int, int],
    crop: int,
    rng: np.random.Generator,
    colour_jitter: ColourJitter | None = None,
) -> np.ndarray:
    """Resize by the longer side, flip and crop at random, as the IRN family trains its classifiers.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    colour_jitter
        Ranges for `random_colour_jitter` after resizing, as the PSA family does it too; None leaves colours alone.

    Returns
    -------
    Normalised float32 [3, crop, crop]; 0 where the image does not reach.
    """
    resized = random_resize_long(image, *long_side, rng)
    if colour_jitter is not None:
        resized = random_colour_jitter(resized, colour_jitter, rng)
    flipped, _ = random_flip(normalise(resized), None, rng)
    return random_crop(flipped, None, crop, rng)[0]


def scaled_pair(image: np.ndarray, scale: float) -> np.ndarray:
    """An image at one scale with its mirror image, as multi-scale inference takes it.

    Parameters
    ----------
    image
        uint8 [H, W, 3].

    Returns
    -------
    float32 [2, 3, H_s, W_s] with H_s = round(H * scale), normalised; [1] is mirrored left to right.
    """
    scaled = normalise(resize(image, scaled_size(image.shape[:2], scale)))
    return np.stack([scaled, scaled[..., ::-1]])


def multi_hot(classes: Sequence[Sequence[int]], n_classes: int) -> Tensor:
    """Class indices of N images as float32 [N, C] of zeros and ones."""
    labels = torch.zeros(len(classes), n_classes)
    for row, present in zip(labels, classes, strict=True):
        row[list(present)] = 1.0
    return labels


def tags_of(records: Sequence[ImageRecord], n_classes: int) -> Tensor:
    """Tags of N images, float32 [N, C]: 1 present, 0 absent, NaN unknown, as the image's data set was not annotated for
    the class.

    `tag_loss` leaves out what is unknown. Any other arithmetic is to say what it means by it: a NaN that is forgotten
    shows, a zero would pass for an absent class.
    """
    labels = multi_hot([record.classes for record in records], n_classes)
    labels[multi_hot([record.unknown for record in records], n_classes).bool()] = math.nan
    return labels


def tag_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Mean binary cross-entropy over the tags that are known.

    Parameters
    ----------
    logits, tags
        [B, C]; tags in [0, 1], NaN where unknown.

    Examples
    --------
    >>> unknown = torch.tensor([[1.0, torch.nan]])
    >>> round(tag_loss(torch.tensor([[0.0, 9.0]]), unknown).item(), 4)
    0.6931
    """
    known = ~tags.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, tags.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp_min(1)


def _turned_hue(picture: Image.Image, shift: float) -> Image.Image:
    steps = int(shift * 255)
    if not steps:
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue, dtype=np.int16) + steps) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


_COLOUR_CHANGES = (
    lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    _turned_hue,
)


def _resized(pixels: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    if tuple(size) == pixels.shape[:2]:
        return pixels
    return np.array(Image.fromarray(pixels).resize((size[1], size[0]), method))


def _window(image: np.ndarray, labels: Labels, size: int, starts: tuple[int, int]) -> tuple[np.ndarray, Labels]:
    source, target = [], []
    for length, start in zip(image.shape[1:], starts, strict=True):
        shown = min(length, size)
        source.append(slice(start, start + shown) if length > size else slice(0, shown))
        target.append(slice(0, shown) if length > size else slice(start, start + shown))
    canvas = np.zeros((image.shape[0], size, size), dtype=image.dtype)
    canvas[:, target[0], target[1]] = image[:, source[0], source[1]]
    if labels is None:
        return canvas, None
    cropped = np.full((size, size), IGNORE, dtype=labels.dtype)
    cropped[target[0], target[1]] = labels[source[0], source[1]]
    return canvas, cropped
