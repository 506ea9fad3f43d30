"""Pictures of label masks and class maps laid over their photo, as data URIs for the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from wsss_core.constants import IGNORE
from wsss_core.store.masks import voc_palette

PALETTE = voc_palette()
OPACITY = 0.62
OUTLINE = np.array([255.0, 255.0, 255.0])
CONTOUR = np.array([20.0, 20.0, 24.0])
HATCH = np.array([224.0, 224.0, 192.0])


def fitted(height: int, width: int, long: int) -> tuple[int, int]:
    """(H, W) of the same proportions with the longer side `long`.

    Examples
    --------
    >>> fitted(100, 200, 320)
    (160, 320)
    """
    scale = long / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] photo at another (H, W)."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W] labels at another (H, W), nearest neighbour."""
    return np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def resized_maps(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [K, H, W] maps at another (H, W), bilinear."""
    planes = [cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR) for plane in maps]
    return np.stack(planes) if planes else np.zeros((0, *size), np.float32)


def mask_overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels in the VOC colours over a photo, regions outlined in white, ignored pixels hatched.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    labels
        uint8 [H, W]: 0 background, c + 1 class c, 255 ignored.

    Returns
    -------
    uint8 [H, W, 3].
    """
    base = image.astype(np.float64)
    foreground = (labels != 0) & (labels != IGNORE)
    base[foreground] += OPACITY * (PALETTE[labels[foreground]] - base[foreground])
    rows, columns = np.nonzero(labels == IGNORE)
    strength = np.where((rows + columns) % 7 < 2, 0.9, 0.35)[:, None]
    base[rows, columns] += strength * (HATCH - base[rows, columns])
    base[edges(labels)] = OUTLINE
    return base.round().astype(np.uint8)


def heat_overlay(
    image: np.ndarray, maps: np.ndarray, classes: Sequence[int], threshold: float | None = None
) -> np.ndarray:
    """The strongest class map of every pixel in its class colour over a pale grey photo.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    maps
        [K, H, W] in [0, 1].
    classes
        The K classes, 0-based.
    threshold
        Background threshold, drawn as a dark contour.

    Returns
    -------
    uint8 [H, W, 3]; the pale photo alone if K is 0.
    """
    grey = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    base = np.repeat((255 - 0.55 * (255 - grey))[:, :, None], 3, axis=2)
    if not len(classes):
        return base.round().astype(np.uint8)
    winner, highest = maps.argmax(0), np.clip(maps.max(0), 0, 1)
    colours = PALETTE[np.asarray(classes) + 1][winner].astype(np.float64)
    base += (0.9 * highest**0.8)[:, :, None] * (colours - base)
    if threshold is not None:
        base[edges(np.where(highest > threshold, winner + 1, 0).astype(np.uint8))] = CONTOUR
    return base.round().astype(np.uint8)


def objects_overlay(
    image: np.ndarray, masks: np.ndarray, classes: Sequence[int], ignored: np.ndarray | None = None
) -> np.ndarray:
    """Objects in the colours of their classes over a photo, each outlined in white; small ones lie on large ones.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    masks, ignored
        bool [n, H, W]; pixels that an object ignores and none holds are hatched.
    classes
        The n classes, 0-based.

    Returns
    -------
    uint8 [H, W, 3].
    """
    labels = np.zeros(image.shape[:2], dtype=np.uint8)
    numbers = np.zeros(image.shape[:2], dtype=np.int32)
    if ignored is not None and len(ignored):
        labels[ignored.any(0)] = IGNORE
    for number in sorted(range(len(masks)), key=lambda k: -int(masks[k].sum())):
        labels[masks[number]], numbers[masks[number]] = classes[number] + 1, number + 1
    drawn = mask_overlay(image, labels)
    drawn[edges(numbers)] = OUTLINE
    return drawn


def boxes_overlay(image: np.ndarray, boxes: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Frames in the colours of their classes over a photo.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    boxes
        (x0, y0, x1, y1) in pixels, [n, 4].
    classes
        The n classes, 0-based.

    Returns
    -------
    uint8 [H, W, 3].
    """
    drawn = image.copy()
    for label, (x0, y0, x1, y1) in zip(classes, np.round(boxes).astype(int).tolist(), strict=True):
        colour = tuple(int(value) for value in PALETTE[label + 1])
        cv2.rectangle(drawn, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), colour, 2)
    return drawn


def edges(labels: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels whose right or lower neighbour has another label."""
    found = np.zeros(labels.shape, dtype=bool)
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    found[:-1] |= labels[:-1] != labels[1:]
    return found


def data_uri(image: np.ndarray, quality: int = 80) -> str:
    """uint8 [H, W, 3] as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
