"""Training batches of classifiers: a map from the step's number to random crops and their tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.data.augment import normalise, random_colour_jitter, random_crop, random_flip, random_resize_long
from wsss_core.data.decoded import DecodedImages
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError

ColourJitter = tuple[float, float, float, float]
"""Ranges of brightness, contrast, saturation and hue, see `wsss_core.data.augment.random_colour_jitter`."""


class ClassifierBatches:
    """``batches[k]`` is (images float32 [B, 3, S, S], labels float32 [B, C]) and depends on (seed, stage, k) alone.

    An epoch sees the images in an order of its own; its last, incomplete batch is dropped.

    Parameters
    ----------
    long_side
        Range of the longer side that images are resized to, in pixels.
    crop
        Side S of the crops.
    colour_jitter
        As for `training_crop`.

    Raises
    ------
    UserError
        If there are fewer images than a batch takes.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        n_classes: int,
        *,
        epochs: int,
        batch_size: int,
        long_side: tuple[int, int],
        crop: int,
        seed: int,
        stage: str,
        colour_jitter: ColourJitter | None = None,
    ) -> None:
        if len(records) < batch_size:
            raise UserError(f"batch_size: {batch_size} images a step, but there are only {len(records)} to train on")
        self.images = DecodedImages(records)
        self.labels = multi_hot([r.classes for r in records], n_classes)
        self.epochs, self.batch_size, self.long_side, self.crop = epochs, batch_size, long_side, crop
        self.seed, self.stage, self.colour_jitter = seed, stage, colour_jitter

    @property
    def steps_per_epoch(self) -> int:
        """Complete batches of one epoch."""
        return len(self.images) // self.batch_size

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        if not 0 <= step < len(self):
            raise IndexError(step)
        rng = keyed.generator(self.seed, self.stage, "batch", step)
        chosen = self.indices(step)
        crops = [training_crop(self.images[i], self.long_side, self.crop, rng, self.colour_jitter) for i in chosen]
        return torch.from_numpy(np.stack(crops)), self.labels[chosen]

    def indices(self, step: int) -> list[int]:
        """Which images make the batch of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = keyed.generator(self.seed, self.stage, "epoch", epoch).permutation(len(self.images))
        return order[place * self.batch_size : (place + 1) * self.batch_size].tolist()


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


def multi_hot(classes: Sequence[Sequence[int]], n_classes: int) -> Tensor:
    """Class indices of N images as float32 [N, C] of zeros and ones."""
    labels = torch.zeros(len(classes), n_classes)
    for row, present in zip(labels, classes, strict=True):
        row[list(present)] = 1.0
    return labels
