"""Mean-field inference in a fully connected CRF (Krähenbühl & Koltun, NeurIPS 2011), behind one call.

Energies: a unary term, and Potts terms with a spatial and a bilateral Gaussian kernel under symmetric
normalisation. One iteration is ``Q <- softmax(-U + sum_k w_k K_k Q)``, starting at ``softmax(-U)``; nothing tests
for convergence.

Two backends approximate the kernels by the same permutohedral lattice and differ by rounding alone. Which one runs
follows from the backend asked for and from where the unary lies; the one fallback, on a machine without pydensecrf, is
logged.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.kernels import as_tensor, parts
from wsss_core.kernels.permutohedral import Lattice

log = logging.getLogger(__name__)

BACKENDS = ("pydensecrf", "torch")

CLIP = 1e-5
"""Probabilities below this are raised to it before the logarithm."""

NORM_EPSILON = 1e-20
"""Added to a kernel's row sums before the inverse square root."""

PIXELS = 2**22
"""Pixels of one joint lattice: 22 images of 500x375. Building it takes about 1 KB of memory for each."""


def dense_crf(
    image: Any,
    unary: Any,
    *,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int = 10,
    backend: str = "auto",
) -> Any:
    """Posterior of the dense CRF.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    unary
        Energies ``-log p``, [L, H, W]; or [U, L, H, W] for several passes over one image, which then share the
        kernels' lattices.
    gaussian
        Spatial kernel: standard deviation in pixels, weight.
    bilateral
        Bilateral kernel: standard deviation in pixels, standard deviation in grey levels, weight.
    iterations
        Mean-field updates after the initial softmax.
    backend
        "pydensecrf": the authors' C++ code, one CPU thread. "torch": the same arithmetic on `permutohedral.Lattice`,
        on the device of `unary`; slower than pydensecrf on a CPU. "auto": torch for a `unary` on a GPU, else
        pydensecrf; where that cannot be imported, torch, which a line in the log says.

    Returns
    -------
    Posterior in [0, 1], float32, of the shape and kind of `unary`. Those of one label are 1.

    Raises
    ------
    ValueError
        If the backend is unknown or the shapes do not match.
    UserError
        If the backend that was asked for cannot be used on this machine.

    Examples
    --------
    Labels that reach two columns too far are drawn back to the edge in the image.

    >>> image = np.zeros((20, 30, 3), dtype=np.uint8)
    >>> image[:, 15:] = 255
    >>> labels = np.zeros((20, 30), dtype=np.int64)
    >>> labels[:, 13:] = 1
    >>> unary = unary_from_labels(labels, 2, confidence=0.7)
    >>> posterior = dense_crf(image, unary, gaussian=(1, 3), bilateral=(10, 5, 10))
    >>> posterior.shape, posterior.argmax(0)[10, 11:17].tolist()
    ((2, 20, 30), [0, 0, 0, 0, 1, 1])
    """
    return dense_crf_batch(
        [image], [unary], gaussian=gaussian, bilateral=bilateral, iterations=iterations, backend=backend
    )[0]


def dense_crf_batch(
    images: Sequence[Any],
    unaries: Sequence[Any],
    *,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int = 10,
    backend: str = "auto",
    pixels: int = PIXELS,
) -> list[Any]:
    """Posteriors of several images, each of its own size and number of labels; arguments as for `dense_crf`.

    In torch, images with equally many passes and labels share one lattice, in which they do not touch, and their mean
    fields run together. Every posterior is that of the image alone to rounding, and the same bits in every run.
    pydensecrf takes one image after another.

    Parameters
    ----------
    pixels
        Most pixels of images that share a lattice; an image is never divided.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"unknown dense CRF backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    found: list[Any] = [None] * len(images)
    work: dict[tuple, list[tuple[int, Tensor, Tensor]]] = {}
    for number, (image, unary) in enumerate(zip(images, unaries, strict=True)):
        photo, passes = _checked(image, unary)
        if passes.shape[1] == 1 or passes.numel() == 0:
            found[number] = torch.ones_like(passes)
        elif _chosen(backend, passes.device) == "torch":
            work.setdefault((passes.device, passes.shape[:2]), []).append((number, photo, passes))
        else:
            found[number] = _pydensecrf(photo, passes, gaussian, bilateral, iterations)
    for group in (part for same in work.values() for part in parts(same, lambda item: item[1][..., 0].numel(), pixels)):
        numbers, photos, energies = zip(*group, strict=True)
        for number, posterior in zip(numbers, _torch(photos, energies, gaussian, bilateral, iterations), strict=True):
            found[number] = posterior
    return [_as_given(posterior, unary) for posterior, unary in zip(found, unaries, strict=True)]


def unary_from_labels(labels: Any, n_labels: int, confidence: float) -> Any:
    """Energies of a label map that is right with probability `confidence`.

    Parameters
    ----------
    labels
        Integers in 0..n_labels - 1, [H, W].

    Returns
    -------
    ``-log(confidence)`` at the label, ``-log((1 - confidence) / (L - 1))`` elsewhere; float32 [L, H, W], 0 if
    there is one label.
    """
    values, restore = as_tensor(labels)
    if n_labels == 1:
        return restore(torch.zeros(1, *values.shape))
    at_label = values[None] == torch.arange(n_labels, device=values.device)[:, None, None]
    probabilities = torch.tensor([(1 - confidence) / (n_labels - 1), confidence], dtype=torch.float64)
    other, own = (-probabilities.log()).float().tolist()
    return restore(torch.where(at_label, own, other))


def unary_from_probabilities(probabilities: Any) -> Any:
    """``-log p`` with p clipped to [1e-5, 1], float32 [..., L, H, W]; p need not sum to one."""
    values, restore = as_tensor(probabilities)
    return restore(-values.to(torch.float32).clamp(CLIP, 1).log())


def _checked(image: Any, unary: Any) -> tuple[Tensor, Tensor]:
    """Image uint8 [H, W, 3] and energies float32 [U, L, H, W] as tensors; ValueError if they do not fit."""
    photo, _ = as_tensor(image)
    energies, _ = as_tensor(unary)
    if photo.dtype != torch.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"image must be uint8 [H, W, 3], got {photo.dtype} {list(photo.shape)}")
    if energies.ndim not in (3, 4) or energies.shape[-2:] != photo.shape[:2]:
        raise ValueError(f"unary {list(energies.shape)} does not fit an image of {list(photo.shape)}")
    passes = energies if energies.ndim == 4 else energies[None]
    return photo, passes.detach().to(torch.float32)


def _as_given(posterior: Tensor, unary: Any) -> Any:
    """A posterior [U, L, H, W] in the shape and kind of its unary."""
    _, restore = as_tensor(unary)
    return restore(posterior.reshape(unary.shape))


def _chosen(backend: str, device: torch.device) -> str:
    if backend != "auto":
        return backend
    return "pydensecrf" if device.type == "cpu" and _has_pydensecrf() else "torch"


@cache
def _has_pydensecrf() -> bool:
    """Whether pydensecrf can be imported; if not, says once what is used in its place."""
    try:
        _densecrf()
    except UserError as error:
        log.warning("%s; it runs in torch, which is slower and gives the same labels to rounding", error)
        return False
    return True


def _densecrf() -> ModuleType:
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ImportError as error:
        raise UserError(f"the dense CRF needs the module pydensecrf (distribution pydensecrf2): {error}") from error


def _pydensecrf(
    image: Tensor,
    unaries: Tensor,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> Tensor:
    labels, height, width = unaries.shape[1:]
    crf = _densecrf().DenseCRF2D(width, height, labels)
    posteriors = []
    for number, energies in enumerate(unaries.cpu().numpy()):
        crf.setUnaryEnergy(np.ascontiguousarray(energies.reshape(labels, -1)))
        if number == 0:
            crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
            rgb = image.cpu().contiguous().numpy()
            crf.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=rgb, compat=bilateral[2])
        posteriors.append(np.array(crf.inference(iterations), dtype=np.float32))
    return torch.from_numpy(np.stack(posteriors)).reshape(unaries.shape)


@torch.no_grad()
def _torch(
    images: Sequence[Tensor],
    unaries: Sequence[Tensor],
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> list[Tensor]:
    """Posteriors [U, L, H, W] of images with as many passes U and labels L, on the device of the unaries."""
    logits = torch.cat([-energies.permute(2, 3, 0, 1).flatten(0, 1) for energies in unaries])
    posterior = logits.softmax(2)
    kernels = _kernels(images, logits.device, gaussian, bilateral) if iterations else []
    for _ in range(iterations):
        messages = logits.clone()
        for lattice, scale, weight in kernels:
            filtered = lattice.filter((posterior * scale).flatten(1)).reshape(messages.shape)
            messages.addcmul_(filtered, scale, value=weight)
        posterior = messages.softmax(2)
    sizes = [image.shape[:2] for image in images]
    parts = posterior.split([height * width for height, width in sizes])
    return [part.unflatten(0, size).permute(2, 3, 0, 1) for part, size in zip(parts, sizes, strict=True)]


def _kernels(
    images: Sequence[Tensor],
    device: torch.device,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
) -> list[tuple[Lattice, Tensor, float]]:
    """Lattice, symmetric normalisation [pixels, 1, 1] and weight of both kernels, for all pixels of all images."""
    places = torch.cat([_places(image.shape[0], image.shape[1], device) for image in images])
    colours = torch.cat([image.to(device).reshape(-1, 3).float() for image in images])
    counts = torch.tensor([image.shape[0] * image.shape[1] for image in images], device=device)
    owners = torch.arange(len(images), device=device).repeat_interleave(counts)
    found = []
    for features, weight in (
        (places / gaussian[0], gaussian[1]),
        (torch.cat([places / bilateral[0], colours / bilateral[1]], 1), bilateral[2]),
    ):
        lattice = Lattice(features, owners)
        norm = lattice.filter(torch.ones_like(features[:, :1]))
        found.append((lattice, (norm + NORM_EPSILON).rsqrt()[:, :, None], weight))
    return found


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """Column and row of every pixel, float32 [H * W, 2]."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([columns, rows], 2).reshape(-1, 2).float()
