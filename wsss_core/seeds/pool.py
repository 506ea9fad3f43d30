"""The auxiliary pool: other training images, drawn for every step of adapting a classifier to one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core import keyed
from wsss_core.data.augment import scaled_size, tags_of, training_crop
from wsss_core.data.decoded import Decoded, read_record
from wsss_core.data.resampling import normalised, resized
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError


class AuxiliaryPool:
    """Batches of other images, augmented as in classifier training.

    The batch of a step depends on (seed, stage, image id, step) and the list of images alone. The images of one
    target are drawn without replacement; once all eligible ones were used, they come round again in the same order.

    Parameters
    ----------
    records
        Images to draw from.
    eligible
        "disjoint": only images that share no class with the target, images without classes among them (the
        published code); "any": all but the target (the paper).
    batch_size
        Images B a step.
    long_side, crop
        As in classifier training.
    device
        Where decoded images are kept and augmented, for a GPU (see `device_crop`); None: with Pillow, on the CPU.
    processes
        Processes that keep images on that device.
    threads
        Threads that decode the images of a step.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        n_classes: int,
        *,
        eligible: Literal["disjoint", "any"],
        batch_size: int,
        long_side: tuple[int, int],
        crop: int,
        seed: int,
        stage: str,
        device: torch.device | None = None,
        processes: int = 1,
        threads: int = 1,
    ) -> None:
        self.images: Decoded[Any]
        self._crop: Callable[[Any, tuple[int, int], int, np.random.Generator], Tensor]
        if device is None:
            self.images, self._crop = Decoded(records, read_record), _pillow_crop
        else:
            self.images, self._crop = device_images(records, device, processes), device_crop
        self.labels = tags_of(records, n_classes)
        self.eligible, self.batch_size, self.long_side, self.crop = eligible, batch_size, long_side, crop
        self.seed, self.stage = seed, stage
        self._ids = np.array([r.id for r in records])
        self._readers = ThreadPoolExecutor(threads)

    def batches(self, image_id: str, classes: Sequence[int]) -> Callable[[int], tuple[Tensor, Tensor]]:
        """The pool of one target: step to images float32 [B, 3, S, S], normalised, and labels float32 [B, C].

        Raises
        ------
        UserError
            If no image is eligible.
        """
        order = self.order(image_id, classes)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            rng = keyed.generator(self.seed, self.stage, "pool", image_id, step)
            places = np.arange(step * self.batch_size, (step + 1) * self.batch_size) % len(order)
            chosen = order[places]
            images = self._readers.map(self.images.__getitem__, chosen.tolist())
            crops = [self._crop(image, self.long_side, self.crop, rng) for image in images]
            return torch.stack(crops), self.labels[chosen]

        return batch

    def order(self, image_id: str, classes: Sequence[int]) -> np.ndarray:
        """Indices of the eligible images in the order they are drawn for a target."""
        allowed = self._ids != image_id
        if self.eligible == "disjoint":
            allowed &= (self.labels[:, list(classes)] == 0).all(1).numpy()  # unknown is not absent
        found = np.flatnonzero(allowed)
        if not len(found):
            kind = "shares no class with it" if self.eligible == "disjoint" else "is there beside it"
            raise UserError(f"image {image_id!r}: no other training image {kind}, so RIB has no auxiliary images")
        return found[keyed.generator(self.seed, self.stage, "pool order", image_id).permutation(len(found))]


DEVICE_BYTES = 8_000_000_000
"""Bytes of decoded images that are kept on a device, by all processes together; all of VOC's take 6 GB."""


def device_images(records: Sequence[ImageRecord], device: torch.device, processes: int = 1) -> Decoded[Tensor]:
    """Images, tensors uint8 [3, H, W], on a device that several processes share."""

    def read(record: ImageRecord) -> Tensor:
        return torch.from_numpy(read_record(record)).to(device).permute(2, 0, 1).contiguous()

    return Decoded(records, read, DEVICE_BYTES // processes)


def _pillow_crop(image: np.ndarray, long_side: tuple[int, int], crop: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(training_crop(image, long_side, crop, rng))


def device_crop(image: Tensor, long_side: tuple[int, int], crop: int, rng: np.random.Generator) -> Tensor:
    """`training_crop` where the image is: the same draws, and the same bits.

    Parameters
    ----------
    image
        uint8 [3, H, W].

    Returns
    -------
    Normalised float32 [3, crop, crop]; 0 where the image does not reach.
    """
    target = int(rng.integers(long_side[0], long_side[1] + 1))
    height, width = image.shape[1:]
    levels = resized(image, scaled_size((height, width), target / max(height, width)))
    if rng.random() >= 0.5:
        levels = levels.flip(-1)
    margins: list[int] = []
    for axis in (1, 2):
        length = levels.shape[axis]
        start = int(rng.integers(abs(length - crop) + 1))
        if length > crop:
            levels = levels.narrow(axis, start, crop)
        before_after = (0, 0) if length > crop else (start, crop - length - start)
        margins = [*before_after, *margins]  # F.pad begins with the last axis
    return F.pad(normalised(levels), margins)
