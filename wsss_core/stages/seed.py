"""Stage: seed maps of one shard."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from wsss_core import __version__
from wsss_core.data.decoded import read_record
from wsss_core.data.table import read_manifest, read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.seeds import Inputs
from wsss_core.settings import from_mapping
from wsss_core.stages.classifier import open_classifier
from wsss_core.stages.inputs import file_digest
from wsss_core.stages.step import read_step
from wsss_core.store.seeds import SeedMaps, write_record
from wsss_core.store.shards import build, fingerprint


def run(
    *, config: Path, classifier: Path, manifest: Path, table: Path, maps: Path, cache: Path, execution: Execution
) -> None:
    """Write the seed maps of the images of a shard; an image without classes gets an empty record.

    Parameters
    ----------
    config
        The step's JSON; its method is a module of `wsss_core.seeds`.
    classifier
        Checkpoint of the classifier.
    table
        `images.csv`, from which methods such as RIB draw other images of the role "train".
    cache
        File of finished records; a record is computed again only if its image, the classifier or the settings
        changed.

    Raises
    ------
    UserError
        If an image cannot be read (naming it), or the classifier is for other classes.
    """
    step = read_step(config)
    method = importlib.import_module(f"wsss_core.seeds.{step.method}")
    shard = read_manifest(manifest)
    network = open_classifier(classifier, shard.class_names, execution.torch_device())
    make = method.maker(
        from_mapping(method.SETTINGS, step.settings),
        Inputs(network, read_table(table).split("train"), step.seed, step.stage),
    )
    records = {record.id: record for record in shard.records}
    classifier_digest = file_digest(classifier)

    def compute(image_id: str) -> SeedMaps:
        record = records[image_id]
        if not record.classes:
            return SeedMaps((), {}, record.size)
        image = read_record(record)
        if image.shape[:2] != record.size:
            raise UserError(f"{record.path}: image {record.id!r} is {image.shape[:2]}, the table says {record.size}")
        return make(record, image)

    build(
        maps,
        "seeds",
        {r.id: fingerprint(step.digest, r.digest, r.classes, classifier_digest) for r in shard.records},
        compute,
        write_record,
        {
            "method": step.method,
            "settings": dict(step.settings),
            "versions": {"wsss": __version__, "torch": torch.__version__},
            "class_names": list(shard.class_names),
            "seed": step.seed,
        },
        cache=cache,
    )
