"""Stage: train AffinityNet on confident labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.affinity import KIND, STRIDE, AffinityNetwork
from wsss_core.refine.psa import NetworkSettings, affinity_loss, affinity_sample, optimizer
from wsss_core.refine.psa_labels import confident_labels
from wsss_core.settings import from_mapping
from wsss_core.stages.inputs import check_classes
from wsss_core.stages.label_training import check_shares, kept, train_on_labels
from wsss_core.stages.step import read_step
from wsss_core.stages.training_files import images_to_train_on
from wsss_core.store.posteriors import POSTERIORS, Posteriors
from wsss_core.store.shards import RecordStore, fingerprint


def run(
    *,
    config: Path,
    table: Path,
    labels: Sequence[Path],
    classifier: Path | None,
    model: Path,
    state: Path,
    history: Path,
    execution: Execution,
) -> None:
    """Train on the images of the role "train" with the labels that the posteriors in `labels` give.

    Parameters
    ----------
    config
        The step's JSON, settings of `NetworkSettings`.
    table
        `images.csv`.
    labels
        Posterior shards.
    classifier
        Checkpoint of the upstream classifier, for its backbone's name and weights.
    model, history
        The trained network and the CSV of its training.
    state
        File to resume from after a kill.

    Raises
    ------
    UserError
        If the posteriors of an image are missing or of another size, the labels hold no pair to learn from, the crops
        are smaller than the pairs, or the weights do not fit.
    """
    step = read_step(config)
    settings = from_mapping(NetworkSettings, step.settings)
    least = STRIDE * (2 * settings.radius - 1)
    if settings.crop < least:
        raise UserError(f"network.crop: {settings.crop} holds no pairs of radius {settings.radius}; at least {least}")
    images, train = images_to_train_on(table)
    records = {record.id: record for record in train}
    files = _files(labels, list(records), images.class_names)
    labels_digest = _survey(files, records)
    load = kept(list(records), _loader(records, files))
    train_on_labels(
        step,
        settings,
        images,
        records,
        classifier,
        model,
        state,
        history,
        kind=KIND,
        architecture=AffinityNetwork,
        sample=lambda name, rng: affinity_sample(*load(name), settings, rng),
        labels_digest=labels_digest,
        loss=lambda network, photos, targets: affinity_loss(network(photos), targets, settings.radius),
        optimizer=optimizer,
        execution=execution,
    )


def _files(shards: Sequence[Path], image_ids: Sequence[str], class_names: Sequence[str]) -> dict[str, Path]:
    """The shard that holds each image's posteriors."""
    found = {}
    for path in shards:
        store = RecordStore(path, POSTERIORS)
        check_classes(path, store.attrs.get("class_names"), class_names)
        found |= dict.fromkeys(store, path)
    missing = [image_id for image_id in image_ids if image_id not in found]
    if missing:
        raise UserError(f"{len(missing)} images have no confident labels, such as {missing[0]!r}")
    return {image_id: found[image_id] for image_id in image_ids}


def _survey(files: dict[str, Path], records: dict[str, ImageRecord]) -> str:
    """Check all posteriors before training, one shard open at a time; a digest of them."""
    cells, digests = np.zeros(256, dtype=np.int64), {}
    for path in dict.fromkeys(files.values()):
        store = RecordStore(path, POSTERIORS)
        for image_id in (found for found in store if files.get(found) == path):
            posteriors, size = store[image_id], records[image_id].size
            if posteriors.size != size:
                raise UserError(f"{path}: image {image_id!r} is {size}, its posteriors are for {posteriors.size}")
            padding = [(0, 0), (0, 0), *((0, -side % STRIDE) for side in size)]
            found = confident_labels(np.pad(posteriors.values, padding), posteriors.classes, STRIDE)
            cells += np.bincount(found.ravel(), minlength=256)
            digests[image_id] = store.fingerprint(image_id)
    check_shares(cells, no_background="lower labels.alpha_high", no_foreground="raise labels.alpha_low")
    return fingerprint(digests)


def _loader(records: dict[str, ImageRecord], files: dict[str, Path]) -> Callable[[str], tuple[np.ndarray, Posteriors]]:
    def load(image_id: str) -> tuple[np.ndarray, Posteriors]:
        # Opened anew: an HDF5 file must not be shared with loader processes.
        return read_image(Path(records[image_id].path)), RecordStore(files[image_id], POSTERIORS)[image_id]

    return load
