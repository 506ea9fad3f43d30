"""Training batches for segmentation networks: a map from the step's number to its batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.constants import IGNORE
from wsss_core.data.augment import MEAN, STD, resize_labels
from wsss_core.data.decode import read_image
from wsss_core.data.decoded import Decoded
from wsss_core.segment.samples import Sample
from wsss_core.store.masks import read_mask


class SegmentationBatches:
    """Batches of random crops; ``batches[k]`` depends on (seed, stage, k) and nothing else.

    A batch is a dict of ``images`` uint8 [B, S, S, 3], ``inside`` int64 [B, 4] (the top, bottom, left and right end of
    the part that shows the image; beyond is padding), ``labels`` uint8 [B, S, S] (255 in the padding) and ``present``
    bool [B, L], true for background and for the image's tags, and ``unknown`` bool [B, L], true for the
    classes that the image's data set was not annotated for (see `known_logits`). `network_input` makes network inputs
    of them on the device, so a quarter of the bytes travel.

    Every image is seen once an epoch, in an order of that epoch; batches run on over the ends of epochs.

    Parameters
    ----------
    n_labels
        Number of labels with background, checked in every mask.
    crop
        Side S of the crops.
    scales
        Factors of which one is drawn for every image (bilinear; sides rounded down).
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        n_labels: int,
        *,
        iterations: int,
        batch_size: int,
        crop: int,
        scales: Sequence[float],
        seed: int,
        stage: str,
    ) -> None:
        self.samples, self.pairs = list(samples), Decoded(samples, partial(read_pair, n_labels=n_labels))
        self.iterations, self.batch_size, self.crop, self.scales = iterations, batch_size, crop, tuple(scales)
        self.seed, self.stage = seed, stage
        self._present = torch.zeros(len(samples), n_labels, dtype=torch.bool)
        for row, sample in zip(self._present, samples, strict=True):
            row[[0, *(c + 1 for c in sample.classes)]] = True
        self._unknown = torch.zeros(len(samples), n_labels, dtype=torch.bool)
        for row, sample in zip(self._unknown, samples, strict=True):
            row[[c + 1 for c in sample.unknown]] = True

    def __len__(self) -> int:
        return self.iterations

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        if not 0 <= step < self.iterations:
            raise IndexError(step)
        rng = keyed.generator(self.seed, self.stage, "batch", step)
        chosen = self.indices(step)
        crops = [self._crop(index, rng) for index in chosen]
        images, inside, labels = zip(*crops, strict=True)
        return {
            "images": torch.from_numpy(np.stack(images)),
            "inside": torch.tensor(inside),
            "labels": torch.from_numpy(np.stack(labels)),
            "present": self._present[chosen],
            "unknown": self._unknown[chosen],
        }

    def batch_names(self, step: int) -> list[str]:
        """The images of a step, by the names of their files."""
        return [self.samples[i].image.name for i in self.indices(step)]

    def indices(self, step: int) -> list[int]:
        """Which samples make the batch of a step."""
        first = step * self.batch_size
        count = len(self.pairs)
        places = [divmod(first + k, count) for k in range(self.batch_size)]
        return [int(keyed.epoch_order(self.seed, self.stage, epoch, count)[place]) for epoch, place in places]

    def _crop(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple, np.ndarray]:
        image, labels = self.pairs[index]
        scale = self.scales[int(rng.integers(len(self.scales)))]
        return random_crop(*rescale(image, labels, scale), self.crop, rng)


def read_pair(sample: Sample, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Image, uint8 [H, W, 3], and mask, uint8 [H, W]; UserError if one cannot be read, or the mask is wrong."""
    return read_image(sample.image), read_mask(sample.mask, sample.size, n_labels)


def rescale(image: np.ndarray, labels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] (bilinear) and labels [H, W] (nearest) at sides ``int(side * scale)``, at least 1."""
    if scale == 1:
        return image, labels
    height, width = (max(1, int(side * scale)) for side in labels.shape)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), resize_labels(labels, (height, width))


def random_crop(
    image: np.ndarray, labels: np.ndarray, crop: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int, int, int], np.ndarray]:
    """Crop at a random place, padded right and below where the image is smaller, and flipped half of the time.

    Returns
    -------
    Image uint8 [S, S, 3]; top, bottom, left and right end of the image in it; labels uint8 [S, S].
    """
    top, left = (int(rng.integers(max(side - crop, 0) + 1)) for side in labels.shape)
    window = np.s_[top : top + crop, left : left + crop]
    rows, columns = labels[window].shape
    pixels = np.zeros((crop, crop, 3), np.uint8)
    targets = np.full((crop, crop), IGNORE, np.uint8)
    pixels[:rows, :columns] = image[window]
    targets[:rows, :columns] = labels[window]
    if rng.random() < 0.5:
        return pixels[:, ::-1], (0, rows, crop - columns, crop), targets[:, ::-1]
    return pixels, (0, rows, 0, columns), targets


def known_logits(logits: Tensor, unknown: Tensor) -> Tensor:
    """Logits in which the classes that an image's data set was not annotated for are part of the background.

    What was labelled background there may be of any of these classes: its probability is the sum of theirs and of the
    background's own, so that a cross-entropy teaches nothing against them. It is the marginal loss of partly annotated
    data (Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ segmentation", Medical
    Image Analysis 2021, Eq. 3); other labels keep their probability.

    Parameters
    ----------
    logits
        [B, L, h, w].
    unknown
        bool [B, L].

    Examples
    --------
    >>> logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).reshape(1, 3, 1, 1)
    >>> known_logits(logits, torch.tensor([[False, True, False]])).softmax(1).flatten().tolist()
    [0.800000011920929, 0.0, 0.20000000298023224]
    """
    if not unknown.any():
        return logits
    away = unknown[:, :, None, None]
    first = torch.zeros_like(away)
    first[:, 0] = True
    background = logits.masked_fill(~(away | first), -torch.inf).logsumexp(1, keepdim=True)
    return torch.where(first, background, logits.masked_fill(away, -torch.inf))


def network_input(batch: dict[str, Tensor]) -> Tensor:
    """Normalised images float32 [B, 3, S, S], the padding 0, from a batch on its device."""
    images, inside = batch["images"], batch["inside"]
    places = torch.arange(images.shape[1], device=images.device)
    rows, columns = ((places >= inside[:, axis, None]) & (places < inside[:, axis + 1, None]) for axis in (0, 2))
    mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
    normal = (images * (1 / (255 * std)) - mean / std) * (rows[:, :, None] & columns[:, None])[..., None]
    return normal.permute(0, 3, 1, 2)
