"""Pseudo-masks by a random walk of seed maps on predicted boundaries (Ahn et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wsss_core.data.resampling import views
from wsss_core.kernels.random_walk import propagate
from wsss_core.models.irn import IrnNetwork
from wsss_core.settings import setting
from wsss_core.store.scores import ScoreMaps
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class WalkSettings:
    """Random walk of seed maps at stride 4."""

    radius: int = setting(5, "pixels closer than this many cells are neighbours (training uses 10)", minimum=2)
    beta: float = setting(10.0, "exponent of the affinities", exclusiveMinimum=0)
    log2_steps: int = setting(8, "binary logarithm of the number of steps", minimum=0, maximum=14)
    power: float = setting(
        1.3,
        "seed maps are raised to this power before the walk (RIB 1.3; IRN 1, AdvCAM and W-OoD 1.5)",
        exclusiveMinimum=0,
    )
    pad_to: int | None = setting(
        None,
        "side to which images are padded with the mean colour, right and below, before the boundaries are predicted; "
        "null: none, as in the published COCO code. The published VOC code pads to 512, which changes only the "
        "boundaries near the right and lower border; larger images are never cropped",
        minimum=1,
    )


NETWORK = IrnNetwork


@torch.no_grad()
def predict_relations(
    network: IrnNetwork, images: Sequence[np.ndarray], pad_to: int | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Class boundaries and displacements of images of one size.

    Parameters
    ----------
    network
        In evaluation mode on `device`.
    images
        N arrays uint8 [H, W, 3].
    pad_to
        See `WalkSettings.pad_to`.

    Returns
    -------
    Boundaries [N, (H-1)//4+1, (W-1)//4+1] in (0, 1), averaged as logits over each image and its mirror image, and
    displacements [N, 2, (H-1)//4+1, (W-1)//4+1] in cells, (dy, dx), of the image itself, without their mean over the
    training; on `device`.
    """
    height, width = images[0].shape[:2]
    pixels = views(images, 1.0, device)
    if pad_to is not None:
        pixels = F.pad(pixels, (0, max(0, pad_to - width), 0, max(0, pad_to - height)))
    rows, columns = (height - 1) // 4 + 1, (width - 1) // 4 + 1
    logits, displacements = (values[..., :rows, :columns].float() for values in network(pixels))
    boundaries = (logits[::2, 0] / 2 + logits[1::2, 0].flip(-1) / 2).sigmoid()
    return boundaries, displacements[::2]


def walk(
    network: IrnNetwork, images: Sequence[np.ndarray], maps: Sequence[SeedMaps], settings: WalkSettings
) -> list[ScoreMaps]:
    """Seed maps of images of one size after the random walk on their predicted boundaries.

    Parameters
    ----------
    network
        In evaluation mode; the walks run on its device, together.
    images
        uint8 [H, W, 3] each; every one has a class.
    """
    device = next(network.parameters()).device
    walked = propagate(
        pad_sequence([one.strided() for one in maps], batch_first=True).to(device) ** settings.power,
        predict_relations(network, images, settings.pad_to, device)[0],
        radius=settings.radius,
        beta=settings.beta,
        log2_steps=settings.log2_steps,
    ).cpu()
    return [ScoreMaps(m.classes, scores[: len(m.classes)], m.size) for m, scores in zip(maps, walked, strict=True)]


def nothing(size: tuple[int, int]) -> ScoreMaps:
    """The scores of an image [H, W] without classes."""
    return ScoreMaps((), torch.zeros(0, (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1), size)
