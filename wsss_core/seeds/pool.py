"""The auxiliary pool: other training images, drawn for every step of adapting a classifier to one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.classify.batches import multi_hot, training_crop
from wsss_core.data.decoded import DecodedImages
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
    ) -> None:
        self.images = DecodedImages(records)
        self.labels = multi_hot([r.classes for r in records], n_classes)
        self.eligible, self.batch_size, self.long_side, self.crop = eligible, batch_size, long_side, crop
        self.seed, self.stage = seed, stage
        self._ids = np.array([r.id for r in records])

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
            crops = [training_crop(self.images[int(i)], self.long_side, self.crop, rng) for i in chosen]
            return torch.from_numpy(np.stack(crops)), self.labels[chosen]

        return batch

    def order(self, image_id: str, classes: Sequence[int]) -> np.ndarray:
        """Indices of the eligible images in the order they are drawn for a target."""
        allowed = self._ids != image_id
        if self.eligible == "disjoint":
            allowed &= ~self.labels[:, list(classes)].any(1).numpy()
        found = np.flatnonzero(allowed)
        if not len(found):
            kind = "shares no class with it" if self.eligible == "disjoint" else "is there beside it"
            raise UserError(f"image {image_id!r}: no other training image {kind}, so RIB has no auxiliary images")
        return found[keyed.generator(self.seed, self.stage, "pool order", image_id).permutation(len(found))]
