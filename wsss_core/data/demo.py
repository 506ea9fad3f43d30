"""The data set that the project draws for itself, in VOC's layout (see `demo_pictures` for what is in the pictures)."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from PIL import Image

from wsss_core import keyed
from wsss_core.code_digest import code_digest
from wsss_core.data import voc
from wsss_core.data.boxes import NoiseKind, draw_of_boxes, kind_of_noise, noise_of_boxes, share_of_boxes
from wsss_core.data.demo_pictures import CLASSES, Picture, numbered
from wsss_core.data.reading import Reading, Sources
from wsss_core.errors import UserError
from wsss_core.settings import setting
from wsss_core.store.atomic import atomic_folder
from wsss_core.store.masks import write_mask

log = logging.getLogger(__name__)

_PLAIN = ("root", "score", "unreadable", "shard_size", "box_share", "box_draw", "box_noise", "box_noise_kind")
"""Settings that change no picture."""

_LAYOUT = 1
"""Counted up when the files are written in another way, so that they are written again."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the drawn data set."""

    root: str = setting("data/demo", "folder for drawn data sets; each set of settings gets a subfolder of its own")
    train: int = setting(240, "images to train on", minimum=5)
    val: int = setting(80, "images that evaluate networks", minimum=1)
    background: int = setting(30, "images of backgrounds alone, which play the role ood", minimum=0)
    score: Literal["train", "val"] = setting(
        "train", "images whose masks score seeds and pseudo-masks: those to train on, or those for evaluation"
    )
    min_side: int = setting(128, "least length of a side, pixels", minimum=64)
    max_side: int = setting(160, "greatest length of a side, pixels", maximum=1024)
    usual_place: float = setting(
        0.55, "chance that the picture shows the place where its first class usually is", minimum=0, maximum=1
    )
    more_objects: tuple[float, ...] = setting(
        (0.42, 0.18),
        "chances of a second and of a third object in a picture; the rest has one",
        items={"minimum": 0, "maximum": 1},
    )
    box_share: float = share_of_boxes()
    box_draw: int = draw_of_boxes()
    box_noise: float = noise_of_boxes()
    box_noise_kind: NoiseKind = kind_of_noise()
    seed: int = setting(0, "another number, other pictures", minimum=0)
    unreadable: Literal["stop", "skip"] = setting(
        "stop", "when images, masks or tags cannot be used: stop with the whole list, or skip them and go on"
    )
    shard_size: int = setting(32, "images a shard, roughly", minimum=1)


def classes(settings: DemoSettings) -> tuple[str, ...]:
    """The classes of what is drawn."""
    return CLASSES


def read(settings: DemoSettings, workers: int = 0, drawn: Path | None = None) -> Reading:
    """Draw the data set if it is not there yet, and read it."""
    return voc.read(_as_voc(settings, generate(settings, workers)), workers, drawn)


def sources(settings: DemoSettings) -> Sources:
    """Nothing that a user may change."""
    return Sources()


def generate(settings: DemoSettings, workers: int = 0) -> Path:
    """Draw the data set unless it is there whole; returns its folder.

    The folder holds JPEGImages, SegmentationClass, SegmentationObject, Annotations, ImageSets/Segmentation/{train,
    val,background}.txt, labels.csv and classes.txt. A picture depends on the settings, the seed and its own name only.

    Raises
    ------
    UserError
        If the settings contradict each other or the folder cannot be written.
    """
    if settings.max_side < settings.min_side:
        raise UserError(f"dataset.max_side: {settings.max_side} is less than dataset.min_side, {settings.min_side}")
    if len(settings.more_objects) > 2 or sum(settings.more_objects) > 1 or min(settings.more_objects, default=0) < 0:
        raise UserError(f"dataset.more_objects: {list(settings.more_objects)} must be one or two chances, together ≤ 1")
    content = {key: value for key, value in asdict(settings).items() if key not in _PLAIN}
    made_by = [_LAYOUT, code_digest(["wsss_core.data.demo_pictures"])]
    digest = hashlib.sha256(json.dumps([content, made_by]).encode()).hexdigest()[:8]
    folder = Path(settings.root) / digest
    if folder.is_dir():
        return folder
    log.info("drawing %d pictures into %s", settings.train + settings.val + settings.background, folder)
    try:
        with atomic_folder(folder) as temporary:
            _write(settings, temporary, workers)
    except OSError as error:
        raise UserError(f"{folder}: the demo data cannot be written ({error}); choose another dataset.root") from error
    return folder


def _as_voc(settings: DemoSettings, folder: Path) -> voc.VocSettings:
    return voc.VocSettings(
        root=str(folder),
        train=("train",),
        score="val" if settings.score == "val" else None,
        val=("val",),
        ood=("background",) if settings.background else (),
        classes="classes.txt",
        tags="labels.csv",
        unreadable=settings.unreadable,
        shard_size=settings.shard_size,
    )


def _write(settings: DemoSettings, folder: Path, workers: int) -> None:
    lists = folder / "ImageSets" / "Segmentation"
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "Annotations"):
        (folder / name).mkdir()
    lists.mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(["background", *CLASSES]) + "\n", encoding="utf-8")
    rows = []
    for role, count in (("train", settings.train), ("val", settings.val), ("background", settings.background)):
        found = list(_written(settings, folder, role, count, workers))
        rows += found
        (lists / f"{role}.txt").write_text("".join(f"{image}\n" for image, _ in found), encoding="utf-8")
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["image", "labels"])
        writer.writerows([f"{image}.jpg", " ".join(names)] for image, names in rows)


def _written(
    settings: DemoSettings, folder: Path, role: str, count: int, workers: int
) -> Iterator[tuple[str, list[str]]]:
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        mapped = map if pool is None else partial(pool.map, chunksize=8)
        yield from mapped(_write_one, repeat(settings, count), repeat(folder, count), repeat(role, count), range(count))


def _write_one(settings: DemoSettings, folder: Path, role: str, number: int) -> tuple[str, list[str]]:
    """Write one picture and its truth; returns its id and the names of its classes."""
    image = f"{role}_{number:04d}"
    drawn = numbered(
        keyed.generator(settings.seed, "demo", image),
        number,
        sides=(settings.min_side, settings.max_side),
        usual_place=settings.usual_place,
        more_objects=settings.more_objects,
        empty=role == "background",
    )
    Image.fromarray(drawn.image).save(folder / "JPEGImages" / f"{image}.jpg", quality=95, subsampling=0)
    if role != "background":
        write_mask(folder / "SegmentationClass" / f"{image}.png", drawn.labels)
        write_mask(folder / "SegmentationObject" / f"{image}.png", drawn.instances)
        (folder / "Annotations" / f"{image}.xml").write_text(_annotation(image, drawn), encoding="utf-8")
    return image, sorted({CLASSES[c] for c, _ in drawn.objects})


def _annotation(image: str, drawn: Picture) -> str:
    height, width = drawn.labels.shape
    objects = [_object(CLASSES[c], box) for c, box in drawn.objects]
    lines = [
        "<annotation>",
        f"  <filename>{escape(image)}.jpg</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>1</segmented>",
        *objects,
        "</annotation>",
    ]
    return "\n".join(lines) + "\n"


def _object(name: str, box: Sequence[int]) -> str:
    """An object of a VOC annotation, whose pixels count from 1 and include both ends."""
    x0, y0, x1, y1 = box
    corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
    return f"  <object><name>{escape(name)}</name><difficult>0</difficult><bndbox>{inner}</bndbox></object>"
