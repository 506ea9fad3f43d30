"""Attribute the objects in the boxes of one shard of images to pixels, by a detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from wsss_core import __version__
from wsss_core.boxes import AttributionMethod, Scene, told_apart
from wsss_core.data.boxes import plain
from wsss_core.data.decoded import read_record
from wsss_core.data.table import check_classes, read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import file_digest
from wsss_core.jobs.step import read_step
from wsss_core.jobs.together import read_ahead
from wsss_core.models.backbones.folding import folded
from wsss_core.models.detector import open_detector
from wsss_core.store.attributions import ATTRIBUTIONS, Attributions
from wsss_core.store.shards import build_batched, fingerprint

IMAGES = 8
"""Images whose objects are worked on together on a GPU."""


def run(*, config: Path, manifest: Path, model: Path, attributions: Path, cache: Path, execution: Execution) -> None:
    """Write what the objects of every image of a shard were attributed to.

    The objects of an image are worked on together, on a GPU those of several images. On a CPU the record of an image
    does not depend on which others were still to be done.

    Parameters
    ----------
    config
        Settings file of the step; the method's part in it is a `wsss_core.boxes.AttributionMethod`.
    manifest
        Manifest of the shard.
    model
        Checkpoint of the detector.
    attributions
        HDF5 file of attributions to write.
    cache
        File of finished records; a record is computed again only if its image, its boxes, the detector or the settings
        changed.

    Raises
    ------
    UserError
        If an image cannot be read, or the detector knows other classes.
    """
    step = read_step(config)
    method: AttributionMethod = step.plug
    shard = read_manifest(manifest)
    device = execution.torch_device()
    detector = folded(open_detector(model, device))
    check_classes(model, detector.class_names, shard.class_names)
    records = {record.id: record for record in shard.records}
    detector_digest = file_digest(model)
    together = IMAGES if device.type == "cuda" else 1

    def compute(ids: Sequence[str]) -> Iterator[tuple[str, Attributions]]:
        pending = [records[image_id] for image_id in ids if told_apart(records[image_id].boxes)]
        yield from ((i, Attributions.none(records[i].size)) for i in ids if not told_apart(records[i].boxes))
        groups = [pending[k : k + together] for k in range(0, len(pending), together)]
        for group, images in read_ahead(groups, read_record, execution.threads):
            scenes = [
                Scene.of(record.id, detector.input_of(image)[0], record.size, record.boxes)
                for record, image in zip(group, images, strict=True)
            ]
            found = method.attributions(detector, scenes, step.settings, step.seed, step.key)
            yield from zip([record.id for record in group], found, strict=True)

    build_batched(
        attributions,
        ATTRIBUTIONS,
        {r.id: fingerprint(step.digest, r.digest, plain(r.boxes), detector_digest) for r in shard.records},
        compute,
        {
            "method": step.method,
            "settings": asdict(step.settings),
            "versions": {"wsss": __version__, "torch": torch.__version__},
            "class_names": list(shard.class_names),
            "seed": step.seed,
        },
        cache=cache,
    )
