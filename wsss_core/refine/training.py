"""What the trainings of the networks behind refinements share: a network on a backbone learns from confident labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from wsss_core import keyed
from wsss_core.constants import IGNORE
from wsss_core.data.decoded import Decoded, read_record
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models.backbones import Backbone, BackboneNetwork, backbone
from wsss_core.store.labels import LabelMap
from wsss_core.store.posteriors import Posteriors
from wsss_core.store.shards import RecordKind, RecordStore, fingerprint
from wsss_core.training import Inputs, enough_epochs, fitting_batch

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=BackboneNetwork)
Labels = TypeVar("Labels", LabelMap, Posteriors)


class BackboneSettings(Protocol):
    """Settings that name a backbone and its weights."""

    @property
    def backbone(self) -> str | None: ...

    @property
    def weights(self) -> str | None: ...


def network_on_backbone(
    architecture: Callable[[Backbone], Network], settings: BackboneSettings, inputs: Inputs
) -> Network:
    """The network to train, with its initial weights.

    Parameters
    ----------
    architecture
        From a backbone to the network.

    Raises
    ------
    UserError
        If the classifier is needed and absent, or is of another backbone, or the weights do not fit.
    """
    start = None if inputs.classifier is None else inputs.classifier.backbone
    name = settings.backbone or (None if start is None else start.name)
    if name is None or (start is None and settings.weights == "classifier"):
        raise UserError("network.backbone or network.weights name the classifier's, but none was given")
    network = architecture(backbone(name))
    if inputs.weights is not None:
        network.backbone.load(inputs.weights)
    elif start is None or settings.weights is None:
        log.warning("the backbone %s has random initial weights: set network.weights for good results", name)
    elif start.name == name:
        network.backbone.load_state_dict(start.state_dict())
    else:
        raise UserError(f"network.weights is classifier, but the classifier has the backbone {start.name}, not {name}")
    return network


def survey(
    files: Mapping[str, Path],
    kind: RecordKind[Labels],
    records: Sequence[ImageRecord],
    values: Callable[[Labels], np.ndarray],
) -> tuple[np.ndarray, str]:
    """Look at all labels before training, one shard open at a time.

    Parameters
    ----------
    values
        From the record of an image to its labels, uint8 of any shape.

    Returns
    -------
    Number of each label 0..255 over all images, and the digest of all records.

    Raises
    ------
    UserError
        If labels are of another size than their image.
    """
    counts, digests = np.zeros(256, dtype=np.int64), {}
    sizes = {record.id: record.size for record in records}
    for path in dict.fromkeys(files.values()):
        store = RecordStore(path, kind)
        for image_id in (held for held in store if files.get(held) == path):
            labels, size = store[image_id], sizes[image_id]
            if tuple(labels.size) != size:
                raise UserError(f"{path}: image {image_id!r} is {size}, its labels are for {tuple(labels.size)}")
            counts += np.bincount(values(labels).ravel(), minlength=256)
            digests[image_id] = store.fingerprint(image_id)
    return counts, fingerprint(digests)


def labelled_images(
    files: Mapping[str, Path], kind: RecordKind[Labels], records: Sequence[ImageRecord]
) -> Callable[[str], tuple[np.ndarray, Labels]]:
    """From the id of an image to it, uint8 [H, W, 3], and its labels; kept in memory as far as `Decoded` keeps them."""

    def read(record: ImageRecord) -> tuple[np.ndarray, Labels]:
        # Opened anew: an HDF5 file must not be shared with loader processes.
        return read_record(record), RecordStore(files[record.id], kind)[record.id]

    places = {record.id: place for place, record in enumerate(records)}
    decoded = Decoded(records, read)
    return lambda image_id: decoded[places[image_id]]


def check_shares(counts: np.ndarray, *, no_background: str, no_foreground: str) -> None:
    """Log what part of the labels is background, foreground and undecided.

    Parameters
    ----------
    counts
        Number of each label 0..255.
    no_background, no_foreground
        What to change if there is none, for the message.

    Raises
    ------
    UserError
        If there is no background or no foreground, so that no pair is of different labels.
    """
    background, foreground, undecided = counts[0], counts[1:IGNORE].sum(), counts[IGNORE]
    log.info(
        "labels: %.1f %% background, %.1f %% foreground, %.1f %% undecided",
        *(100 * part / counts.sum() for part in (background, foreground, undecided)),
    )
    if background == 0:
        raise UserError(f"the confident labels hold no background: {no_background}")
    if foreground == 0:
        raise UserError(f"the confident labels hold no foreground: {no_foreground}")


Sample = Callable[[str, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""From an image id and a random generator to an image, float32 [3, S, S], and its labels, uint8 [s, s]."""


class ScheduleSettings(Protocol):
    """Settings that say how many images are seen, and how many at a time; `usual_epochs` where `epochs` is None."""

    usual_epochs: ClassVar[int]

    @property
    def epochs(self) -> int | None: ...

    @property
    def batch_size(self) -> int: ...


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
        sample: Sample,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        stage: str,
    ) -> None:
        self.names, self.sample, self.epochs = list(names), sample, epochs
        self.seed, self.stage = seed, stage
        self.batch_size = fitting_batch(batch_size, len(self.names))
        self.steps_per_epoch = len(self.names) // self.batch_size

    @classmethod
    def of(cls, settings: ScheduleSettings, inputs: Inputs, sample: Sample) -> SampleBatches:
        """Batches of all images of a training, as its settings say."""
        return cls(
            [record.id for record in inputs.records],
            sample,
            epochs=settings.epochs or enough_epochs(settings.usual_epochs, len(inputs.records), settings.batch_size),
            batch_size=settings.batch_size,
            seed=inputs.seed,
            stage=inputs.stage,
        )

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
