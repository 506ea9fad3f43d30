"""The dense CRF as every published implementation calls it: one `pydensecrf` object for each pass over an image."""

from __future__ import annotations

import numpy as np
from pydensecrf.densecrf import DenseCRF2D


def posterior(
    image: np.ndarray,
    unary: np.ndarray,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> np.ndarray:
    """As `wsss_core.kernels.dense_crf.dense_crf`: image uint8 [H, W, 3], unary and posterior float32 [L, H, W]."""
    n_labels, height, width = unary.shape
    crf = DenseCRF2D(width, height, n_labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(n_labels, -1)))
    crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    crf.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=image, compat=bilateral[2])
    return np.array(crf.inference(iterations), dtype=np.float32).reshape(unary.shape)
