"""Mean-field inference in a fully connected CRF (Krähenbühl & Koltun, NeurIPS 2011), behind one call.

Energies: a unary term, and Potts terms with a spatial and a bilateral Gaussian kernel under symmetric
normalisation. One iteration is ``Q <- softmax(-U + sum_k w_k K_k Q)``, starting at ``softmax(-U)``; nothing tests
for convergence.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.kernels import as_tensor
from wsss_core.kernels.permutohedral import Lattice

CLIP = 1e-5
"""Probabilities below this are raised to it before the logarithm."""

NORM_EPSILON = 1e-20
"""Added to a kernel's row sums before the inverse square root."""


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
        on the device of `unary`; the fastest on a GPU, slower than pydensecrf on a CPU. "auto": torch for a `unary`
        on a GPU, else pydensecrf.

    Returns
    -------
    Posterior in [0, 1], float32, of the shape and kind of `unary`. Those of one label are 1.

    Raises
    ------
    ValueError
        If the backend is unknown or the shapes do not match.
    UserError
        If the backend cannot be used on this machine.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"unknown dense CRF backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    energies, restore = as_tensor(unary)
    pixels, _ = as_tensor(image)
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"image must be uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    if energies.ndim not in (3, 4) or energies.shape[-2:] != pixels.shape[:2]:
        raise ValueError(f"unary {list(energies.shape)} does not fit an image of {list(pixels.shape)}")
    if energies.shape[-3] == 1 or energies.numel() == 0:
        return restore(torch.ones_like(energies, dtype=torch.float32))
    if backend == "auto":
        backend = "pydensecrf" if energies.device.type == "cpu" else "torch"
    passes = energies.detach().to(torch.float32).reshape(-1, *energies.shape[-3:])
    posterior = BACKENDS[backend](pixels, passes, gaussian, bilateral, iterations)
    return restore(posterior.reshape(energies.shape))


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


def _pydensecrf(
    image: Tensor,
    unaries: Tensor,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> Tensor:
    try:
        densecrf = importlib.import_module("pydensecrf.densecrf")
    except ImportError as error:
        raise UserError(f"the dense CRF needs the module pydensecrf (distribution pydensecrf2): {error}") from error
    labels, height, width = unaries.shape[1:]
    crf = densecrf.DenseCRF2D(width, height, labels)
    posteriors = []
    for number, energies in enumerate(unaries.cpu().numpy()):
        crf.setUnaryEnergy(np.ascontiguousarray(energies.reshape(labels, -1)))
        if number == 0:
            crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
            rgb = image.cpu().contiguous().numpy()
            crf.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=rgb, compat=bilateral[2])
        posteriors.append(np.array(crf.inference(iterations), dtype=np.float32))
    return torch.from_numpy(np.stack(posteriors))


@torch.no_grad()
def _torch(
    image: Tensor,
    unaries: Tensor,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> Tensor:
    passes, labels, height, width = unaries.shape
    logits = -unaries.permute(2, 3, 0, 1).reshape(height * width, passes, labels)
    posterior = logits.softmax(2)
    kernels = _kernels(image.to(unaries.device), gaussian, bilateral) if iterations else []
    for _ in range(iterations):
        messages = logits.clone()
        for lattice, scale, weight in kernels:
            filtered = lattice.filter((posterior * scale).flatten(1)).reshape(messages.shape)
            messages.addcmul_(filtered, scale, value=weight)
        posterior = messages.softmax(2)
    return posterior.reshape(height, width, passes, labels).permute(2, 3, 0, 1)


def _kernels(
    image: Tensor, gaussian: tuple[float, float], bilateral: tuple[float, float, float]
) -> list[tuple[Lattice, Tensor, float]]:
    """Lattice, symmetric normalisation [H * W, 1, 1] and weight of both kernels."""
    height, width = image.shape[:2]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    places = torch.stack([columns, rows], 2).reshape(-1, 2).float()
    colours = image.reshape(-1, 3).float()
    found = []
    for features, weight in (
        (places / gaussian[0], gaussian[1]),
        (torch.cat([places / bilateral[0], colours / bilateral[1]], 1), bilateral[2]),
    ):
        lattice = Lattice(features)
        norm = lattice.filter(torch.ones_like(features[:, :1]))
        found.append((lattice, (norm + NORM_EPSILON).rsqrt()[:, :, None], weight))
    return found


BACKENDS: dict[str, Callable[..., Tensor]] = {"pydensecrf": _pydensecrf, "torch": _torch}
