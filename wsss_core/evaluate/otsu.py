"""The threshold at which an image's maps part best into two groups; no mask is needed for it.

N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Transactions on Systems, Man, and Cybernetics
9, 1979. Of every pixel's highest class map, the threshold t maximises the variance between the pixels below and above,

    w_0(t) w_1(t) (m_0(t) - m_1(t))^2        w: part of the pixels, m: mean of their values,

over the histogram of one image, in 256 bins from its lowest to its highest value. Every t between two neighbouring
values parts the pixels alike; the one halfway is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.filters import threshold_otsu

from wsss_core.constants import EPSILON


def otsu_threshold(maps: Any) -> float:
    """Otsu's threshold of an image's maps.

    Parameters
    ----------
    maps
        float [K, H, W] of the K present classes, an array or a tensor.

    Returns
    -------
    The threshold, above which a pixel is foreground. If no value stands out, as all lie within 1e-5, it is the largest
    of them, which no pixel exceeds: all is background. Without classes it is 0.

    Examples
    --------
    >>> maps = np.array([[[0.1, 0.2, 0.1, 0.3]], [[0.0, 0.1, 0.8, 0.9]]], dtype=np.float32)
    >>> round(otsu_threshold(maps), 3)
    0.5
    >>> otsu_threshold(np.full((1, 2, 2), 0.5)), otsu_threshold(np.zeros((0, 2, 2)))
    (0.5, 0.0)
    """
    if not len(maps):
        return 0.0
    highest = np.asarray(maps if isinstance(maps, np.ndarray) else maps.detach().cpu()).max(0)
    values = highest.astype(np.float64)  # in which bins of nearly even maps are still wider than rounding
    if values.max() - values.min() <= EPSILON:
        return float(values.max())
    above = values > threshold_otsu(values)
    return float(values[~above].max() + values[above].min()) / 2
