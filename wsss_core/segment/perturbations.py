"""The perturbations of features under which CCT's auxiliary decoders must agree with the main one.

Ouali et al., CVPR 2020, section 3.2. Features are [B, D, h, w], on any device; random draws come from torch's
generators, which the training loop seeds for every step. Masks carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(features: Tensor, rate: float) -> Tensor:
    """Whole channels set to 0, each at this rate, and the others divided by 1 - rate."""
    return F.dropout2d(features, rate)


def feature_noise(features: Tensor, bound: float) -> Tensor:
    """``x + x n``, n from U(-bound, bound) for every channel and cell, one draw for the batch."""
    noise = torch.empty(features.shape[1:], device=features.device).uniform_(-bound, bound)
    return features + features * noise


def feature_dropout(features: Tensor, low: float, high: float) -> Tensor:
    """Cells set to 0 whose mean over the channels reaches a part of its maximum over the image: the most active ones.

    Parameters
    ----------
    low, high
        The part is drawn from U(low, high), once for the batch.
    """
    activity = features.detach().mean(1, keepdim=True)
    part = low + (high - low) * float(torch.rand(()))
    return features * (activity < part * activity.amax((2, 3), keepdim=True))


def guided_cut_out(features: Tensor, foreground: Tensor, side: float, points: int) -> Tensor:
    """Cells set to 0 in a random box within the bounding box of every predicted object.

    Parameters
    ----------
    foreground
        bool [B, H, W], predicted on a finer grid. Objects are its contours, inner ones too.
    side
        Sides of the box, as a part of those of the bounding box.
    points
        A contour needs more corners than these, or it is left alone.
    """
    kept = np.stack([_cut_out(mask, side, points) for mask in foreground.cpu().numpy()])
    return features * _reduced(torch.from_numpy(kept).to(features.device), features)


def _cut_out(foreground: np.ndarray, side: float, points: int) -> np.ndarray:
    """False [H, W] in a box of every contour."""
    kept = np.ones(foreground.shape, dtype=bool)
    contours, _ = cv2.findContours(foreground.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        if len(contour) > points:
            left, top, width, height = cv2.boundingRect(contour)
            left, right = _inner(left, width, side)
            top, bottom = _inner(top, height, side)
            kept[top:bottom, left:right] = False
    return kept


def _inner(start: int, length: int, part: float) -> tuple[int, int]:
    """Both ends of a random part of a range."""
    inner = round(length * part)
    first = start + int(torch.randint(length - inner + 1, ()))
    return first, first + inner


def context_masking(features: Tensor, foreground: Tensor) -> Tensor:
    """Features of the predicted foreground, bool [B, H, W] on a finer grid, alone: the context is masked."""
    return features * _reduced(foreground, features)


def object_masking(features: Tensor, foreground: Tensor) -> Tensor:
    """Features of the predicted background alone: the objects are masked."""
    return features * _reduced(~foreground, features)


def _reduced(mask: Tensor, features: Tensor) -> Tensor:
    """A mask [B, H, W] on the grid of the features, [B, 1, h, w]."""
    return F.interpolate(mask[:, None].to(features.dtype), features.shape[2:], mode="nearest-exact")


def adversarial_noise(features: Tensor, decoder: Callable[[Tensor], Tensor], length: float) -> Tensor:
    """``x + r``, where r of a length changes a decoder's prediction the most (intermediate virtual adversarial noise).

    Of the Kullback-Leibler divergence between the predictions of x and of x + r, whose gradient vanishes at r = 0, the
    second derivative decides: r points along its product with a random direction d (one step of power iteration; Miyato
    et al., "Virtual Adversarial Training", TPAMI 2019). With J the derivative of the decoder and p its softmax::

        r = length * g / |g|,      g = J' (diag(p) - p p') J d

    The published code takes the finite difference of the gradient at x + 1e-6 d, |d| = 1, instead. Of features with
    hundreds of thousands of numbers each entry of that step is lost in float32, and rounding alone gives the direction;
    this is what it tends to.

    Parameters
    ----------
    decoder
        From features to logits [B, L, H, W].
    length
        Euclidean length of r, of every image.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = features.detach().float().requires_grad_()
        start = _directions(torch.rand_like(x) - 0.5)
        logits = decoder(x)
        weights = torch.zeros_like(logits, requires_grad=True)
        (back,) = torch.autograd.grad(logits, x, weights, create_graph=True)  # J' w, which is linear in w
        (moved,) = torch.autograd.grad(back, weights, start, retain_graph=True)  # J d
        probabilities = logits.detach().softmax(1)
        weighted = probabilities * moved
        (steepest,) = torch.autograd.grad(logits, x, weighted - probabilities * weighted.sum(1, keepdim=True))
    return features + length * _directions(steepest)


def _directions(values: Tensor) -> Tensor:
    """Every image [D, h, w] of a batch divided by its Euclidean length; zeros stay zeros."""
    lengths = values.flatten(1).norm(dim=1).clamp_min(torch.finfo(values.dtype).tiny)
    return values / lengths[:, None, None, None]
