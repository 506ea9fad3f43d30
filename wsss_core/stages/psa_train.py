"""Stage: train AffinityNet on confident labels."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from wsss_core import keyed, training
from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord, read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.affinity import KIND, STRIDE, AffinityNetwork
from wsss_core.refine.batches import SampleBatches
from wsss_core.refine.psa import NetworkSettings, affinity_loss, affinity_sample, optimizer
from wsss_core.refine.psa_labels import confident_labels
from wsss_core.settings import from_mapping
from wsss_core.stages.backbone_network import network_on_backbone
from wsss_core.stages.inputs import check_classes
from wsss_core.stages.step import read_step
from wsss_core.store.atomic import atomic_path
from wsss_core.store.checkpoints import save_network
from wsss_core.store.masks import IGNORE
from wsss_core.store.posteriors import Posteriors, PosteriorStore
from wsss_core.store.shards import fingerprint

log = logging.getLogger(__name__)

CACHE_BYTES = 1_000_000_000
"""Data sets whose decoded images and posteriors need less are kept in memory."""


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
    images = read_table(table)
    records = {record.id: record for record in images.split("train")}
    if not records:
        raise UserError(f"{table}: no image plays the role 'train'")
    files = _files(labels, list(records), images.class_names)
    labels_digest, total_bytes = _survey(files, records)
    name, network, initial = network_on_backbone(AffinityNetwork, settings, step, classifier, images.class_names)
    load = _loader(records, files)
    if total_bytes * max(1, execution.workers) < CACHE_BYTES:
        load = functools.cache(load)
    batches = SampleBatches(
        list(records),
        lambda name, rng: affinity_sample(*load(name), settings, rng),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=step.seed,
        stage=step.stage,
    )
    log.info("%d images, %d steps of %d images", len(records), len(batches), batches.batch_size)
    network.train()
    rows = training.fit(
        network,
        batches,
        lambda batch: affinity_loss(network(batch[0]), batch[1], settings.radius),
        optimizer(network, settings),
        training.polynomial(len(batches)),
        seed=keyed.integer(step.seed, step.stage),
        execution=execution,
        state=state,
        fingerprint=fingerprint(step.digest, [r.digest for r in records.values()], labels_digest, initial),
    )
    meta = {"backbone": name, "class_names": list(images.class_names), "settings": asdict(settings)}
    save_network(model, KIND, network.state_dict(), meta)
    with atomic_path(history) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def _files(shards: Sequence[Path], image_ids: Sequence[str], class_names: Sequence[str]) -> dict[str, Path]:
    """The shard that holds each image's posteriors."""
    found = {}
    for path in shards:
        store = PosteriorStore(path)
        check_classes(path, store.attrs.get("class_names"), class_names)
        found |= dict.fromkeys(store, path)
    missing = [image_id for image_id in image_ids if image_id not in found]
    if missing:
        raise UserError(f"{len(missing)} images have no confident labels, such as {missing[0]!r}")
    return {image_id: found[image_id] for image_id in image_ids}


def _survey(files: dict[str, Path], records: dict[str, ImageRecord]) -> tuple[str, int]:
    """Check all posteriors before training; a digest of them, and the bytes that images and posteriors take."""
    cells, digests, total_bytes = np.zeros(256, dtype=np.int64), [], 0
    opened = functools.cache(PosteriorStore)
    for image_id, path in files.items():
        store, size = opened(path), records[image_id].size
        posteriors = store[image_id]
        if posteriors.size != size:
            raise UserError(f"{path}: image {image_id!r} is {size}, its posteriors are for {posteriors.size}")
        padding = [(0, 0), (0, 0), *((0, -side % STRIDE) for side in size)]
        found = confident_labels(np.pad(posteriors.values, padding), posteriors.classes, STRIDE)
        cells += np.bincount(found.ravel(), minlength=256)
        digests.append(store.fingerprint(image_id))
        total_bytes += posteriors.values.nbytes + 3 * size[0] * size[1]
    shares = cells[0], cells[1:IGNORE].sum(), cells[IGNORE]
    log.info(
        "labels: %.1f %% background, %.1f %% foreground, %.1f %% undecided", *(100 * n / cells.sum() for n in shares)
    )
    if shares[0] == 0 or shares[1] == 0:
        kind = "background: lower labels.alpha_high" if shares[0] == 0 else "foreground: raise labels.alpha_low"
        raise UserError(f"the confident labels hold no {kind}")
    return fingerprint(digests), total_bytes


def _loader(records: dict[str, ImageRecord], files: dict[str, Path]) -> Callable[[str], tuple[np.ndarray, Posteriors]]:
    def load(image_id: str) -> tuple[np.ndarray, Posteriors]:
        # Opened anew: an HDF5 file must not be shared with loader processes.
        return read_image(Path(records[image_id].path)), PosteriorStore(files[image_id])[image_id]

    return load
