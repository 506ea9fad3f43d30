"""Training batches of classifiers: a map from the step's number to random crops and their tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.data.augment import ColourJitter, tags_of, training_crop
from wsss_core.data.decoded import Decoded, read_record
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.training import fitting_batch


class ClassifierBatches:
    """``batches[k]`` is (images float32 [B, 3, S, S], labels float32 [B, C]) and depends on (seed, stage, k) alone;
    labels are as `tags_of` gives them.

    An epoch sees the images in an order of its own; its last, incomplete batch is dropped. Fewer images than a batch
    takes all make one batch.

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
        If no image has a class, or all have the same.
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
        if not any(record.classes for record in records):
            raise UserError("no image of the role 'train' has a class, there is nothing to learn from")
        self.records, self.images = list(records), Decoded(records, read_record)
        self.labels = tags_of(records, n_classes)
        if len(records) > 1 and (self.labels == self.labels[0]).all():
            raise UserError(
                "all images of the role 'train' have the same classes, so that nothing tells one from another; add "
                "images without them, such as of the same places, whose cell of labels is empty"
            )
        self.epochs, self.batch_size = epochs, fitting_batch(batch_size, len(records))
        self.long_side, self.crop = long_side, crop
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

    def batch_names(self, step: int) -> list[str]:
        """The images of a step."""
        return [self.records[i].id for i in self.indices(step)]

    def indices(self, step: int) -> list[int]:
        """Which images make the batch of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = keyed.epoch_order(self.seed, self.stage, epoch, len(self.images))
        return order[place * self.batch_size : (place + 1) * self.batch_size].tolist()
