"""Objects for other programs: those that a network finds in any photos, and those that a stage of a run has made."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wsss_core.data.decode import read_image
from wsss_core.errors import UserError
from wsss_core.exchange.coco_objects import coco_objects
from wsss_core.instances.mask_rcnn import InstancePredictSettings, predict
from wsss_core.jobs.run_files import RunFiles
from wsss_core.models.mask_rcnn import MaskRcnn
from wsss_core.pace import Clock
from wsss_core.report.overlays import boxes_overlay, objects_overlay
from wsss_core.store.atomic import write_text
from wsss_core.store.instances import Instances, InstanceStore
from wsss_core.store.masks import write_picture
from wsss_core.store.own import require_own

log = logging.getLogger(__name__)

PRODUCTS = {"instances": "instances", "instance_networks": "predictions"}
"""Sections whose stages make objects, to the folder of their shards."""

SHOWN = 0.5
"""Objects of a lower score are not drawn."""


def require_free_json(path: Path) -> None:
    """Raise UserError if a file stands there that is no JSON of this form, which somebody else has made."""
    require_own(path, _is_coco)


def _is_coco(path: Path) -> bool:
    return {"images", "categories", "annotations"} <= set(json.loads(path.read_text(encoding="utf-8")))


def objects_in_photos(
    network: MaskRcnn, photos: Mapping[str, Path], overlays: Path | None, settings: InstancePredictSettings
) -> Iterator[tuple[str, Instances | UserError]]:
    """What a network finds in photos, or why one was not looked at; pictures of it go into the folder `overlays`.

    Parameters
    ----------
    photos
        Name, with its ending, to file of each. No two names are the same, and pictures are called by them.
    """
    clock = Clock("image", len(photos))
    for number, (name, path) in enumerate(photos.items(), 1):
        try:
            image = read_image(path)
            found = predict(network, image, settings)
            if overlays is not None:
                sure = found.scores >= SHOWN
                drawn = objects_overlay(image, found.masks[sure], found.classes[sure].tolist())
                boxed = boxes_overlay(drawn, found.boxes[sure], found.classes[sure].tolist())
                write_picture(overlays / f"{name}.png", boxed)
            yield name, found
        except UserError as error:
            yield name, error
        pace = clock.pace(number, last=number == len(photos))
        if pace:
            log.info("%s", pace)


def objects_of_stage(files: RunFiles, name: str) -> Iterator[tuple[str, Instances]]:
    """File name of each image, and the objects that a stage has made of it.

    Raises
    ------
    UserError
        If there is no such stage, it makes no objects, or they are not made yet.
    """
    stage = files.stages.get(name)
    if stage is None or stage.section not in PRODUCTS:
        able = [one for one, other in files.stages.items() if other.section in PRODUCTS]
        raise UserError(f"{name}: is no stage that makes objects; there are {', '.join(able) or 'none in this run'}")
    shards = sorted((files.folder(name) / PRODUCTS[stage.section]).glob("*.h5"))
    if not shards:
        raise UserError(f"{name}: its objects are not made yet; run the workflow first")
    paths = {record.id: record.path for record in files.table.records}
    for shard in shards:
        for image_id, found in InstanceStore(shard).items():
            yield Path(paths[image_id]).name, found


def write_objects(path: Path, found: Sequence[tuple[str, Instances]], class_names: Sequence[str]) -> int:
    """Write objects as COCO's JSON; their number."""
    content = coco_objects(found, class_names)
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")
    return len(content["annotations"])
