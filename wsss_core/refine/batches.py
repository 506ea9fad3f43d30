"""Training batches of the networks behind refinements: images with labels, drawn one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed


class SampleBatches:
    """Training batches; ``batches[k]`` depends on (seed, stage, k) and nothing else.

    A batch is a pair of images, float32 [B, 3, S, S], and labels, uint8 [B, s, s]. Every image is seen once an epoch,
    in an order of that epoch; what does not fill a batch is left out, as in the published code of IRN and PSA.

    Parameters
    ----------
    names
        One key per image.
    sample
        From a key and a random generator to an image, float32 [3, S, S], and its labels, uint8 [s, s].
    batch_size
        Images a step; fewer if there are fewer.
    """

    def __init__(
        self,
        names: Sequence[str],
        sample: Callable[[str, np.random.Generator], tuple[np.ndarray, np.ndarray]],
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        stage: str,
    ) -> None:
        self.names, self.sample, self.epochs = list(names), sample, epochs
        self.seed, self.stage = seed, stage
        self.batch_size = min(batch_size, len(self.names))
        self.steps_per_epoch = len(self.names) // self.batch_size

    def __len__(self) -> int:
        return self.steps_per_epoch * self.epochs

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        if not 0 <= step < len(self):
            raise IndexError(step)
        samples = [
            self.sample(name, keyed.generator(self.seed, self.stage, "batch", step, name))
            for name in self.batch_names(step)
        ]
        images, labels = zip(*samples, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def batch_names(self, step: int) -> list[str]:
        """The images of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = keyed.epoch_order(self.seed, self.stage, epoch, len(self.names))
        return [self.names[i] for i in order[place * self.batch_size : (place + 1) * self.batch_size]]
