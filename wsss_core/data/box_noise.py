"""Boxes that are drawn badly: how much worse does everything that is built on them become?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wsss_core import keyed
from wsss_core.data.boxes import Box, NoiseKind, fitted
from wsss_core.data.table import ImageRecord


def noisy(record: ImageRecord, noise: float, kind: NoiseKind, draw: int) -> tuple[Box, ...]:
    """The boxes of an image, all too large or too small (J. Lee's dissertation, Fig. 5.7 a).

    Parameters
    ----------
    noise
        e: both sides of a box become 1 + e times as long, about its centre.
    kind
        "fixed", or "random": each box has its own e, uniform between 0 and the given one. The dissertation does not say
        which it means.
    draw
        Another number, other draws; beside it they depend on the image and the number of the box alone.

    Returns
    -------
    One box for each of the image's, within the image; one that would become too thin to be a box stays as it is.
    """
    rng = keyed.generator(draw, "box noise", record.id)
    shares = rng.random(len(record.boxes)) if kind == "random" else np.ones(len(record.boxes))
    scaled = (_scaled(box, 1 + noise * float(share)) for box, share in zip(record.boxes, shares, strict=True))
    return tuple(fitted(new, record.size)[0] or old for new, old in zip(scaled, record.boxes, strict=True))


def _scaled(box: Box, factor: float) -> Box:
    middle, half = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2), ((box.x1 - box.x0) / 2, (box.y1 - box.y0) / 2)
    return replace(
        box,
        x0=middle[0] - factor * half[0],
        y0=middle[1] - factor * half[1],
        x1=middle[0] + factor * half[0],
        y1=middle[1] + factor * half[1],
    )
