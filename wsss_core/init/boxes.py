"""Boxes that lie in a folder of photos: VOC's annotations (a file of XML a photo, as many tools write) or COCO's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from wsss_core import keyed
from wsss_core.data.folders import walk
from wsss_core.data.reading import ImageFolder, MaskFolder
from wsss_core.init.choose import Machine, Weights
from wsss_core.init.look import SHARE, longest_side

IMAGES = ("JPEGImages", "images", "photos")
"""Folders in which photos are looked for, before the folder itself."""

ANNOTATIONS = ("Annotations", "annotations", "xml", "labels")
"""Folders in which annotations are looked for, beside those of the photos."""

HELD_OUT = 0.2
"""Part of the photos with a true mask that evaluates."""

SECONDS = 12.0
"""What BBAM takes one core for a box, with MobileNetV2 at 192 pixels and 100 steps: a guess from runs on busy cores."""

DETECTOR_SECONDS = 1500.0
"""The same for the detector's training."""


@dataclass(frozen=True)
class Boxed:
    """Photos with boxes.

    Attributes
    ----------
    root, images, annotations
        The folder as it was given; the folder of photos, and that of XML files or the file of COCO, below it.
    format
        "voc" or "coco".
    photos, boxes
        Numbers of photos that have boxes, and of boxes.
    others
        Number of photos without.
    classes
        Class name to the number of its boxes.
    longest
        Median of the longer sides, in pixels.
    masks
        Whether there are true masks: VOC's folder, or outlines of all of COCO's annotations.
    ids
        Ids of the photos that have an annotation, though it may hold no box; empty for COCO.
    masked
        Ids of the photos that have a true mask; empty for COCO.
    """

    root: str
    images: str
    annotations: str
    format: str
    photos: int
    boxes: int
    others: int
    classes: Mapping[str, int]
    longest: int
    masks: bool
    ids: tuple[str, ...]
    masked: frozenset[str]

    def files(self) -> dict[str, str]:
        """Ends of names to texts of the files that the configuration needs beside it: classes, and for VOC the photos
        to train on and, if there are true masks, a fifth of those that have one, which evaluate."""
        found = {"classes.txt": "".join(f"{name}\n" for name in self.classes)}
        if self.format == "voc":
            held_out = {image for image in self.masked if keyed.chance("val", image) < HELD_OUT}
            found["train.txt"] = "".join(f"{image}\n" for image in self.ids if image not in held_out)
            if self.masks:
                found["val.txt"] = "".join(f"{image}\n" for image in sorted(held_out))
        return found

    def hours(self, machine: Machine) -> float:
        """Roughly what masks from the boxes take on the CPU."""
        return (self.boxes * SECONDS / machine.cores + DETECTOR_SECONDS) / 3600


def look_for_boxes(root: Path) -> Boxed | None:
    """What boxes lie in a folder of photos; None if there are none, or they are of other photos."""
    if not root.is_dir():
        return None
    for folder in [path for name in IMAGES if (path := root / name).is_dir()] + [root]:
        images = ImageFolder(folder, "images")
        if not images.files:
            continue
        found = _of_voc(root, images) or _of_coco(root, images)
        if found is not None:
            return found
    return None


def _of_voc(root: Path, images: ImageFolder) -> Boxed | None:
    ids = {images.id(file) for file in images.files}
    for folder in [path for name in ANNOTATIONS if (path := root / name).is_dir()] + [images.folder]:
        files = {e.name.removesuffix(".xml"): folder / e.name for e in walk(folder) if e.name.endswith(".xml")}
        fitting = sorted(files.keys() & ids)
        if not fitting or len(fitting) < SHARE * len(files):
            continue
        named = {image: list(_classes(files[image])) for image in fitting}
        having = {image: classes for image, classes in named.items() if classes}
        if having:
            return _boxed(root, images, folder, "voc", having, fitting)
    return None


def _classes(path: Path) -> Iterator[str]:
    """The class of every box of a VOC annotation; of none where the file is another thing, which the index tells."""
    try:
        top = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return
    for item in top.findall("object"):
        name = (item.findtext("name") or "").strip()
        if name and item.find("bndbox") is not None:
            yield name


def _of_coco(root: Path, images: ImageFolder) -> Boxed | None:
    folders = [path for name in ANNOTATIONS if (path := root / name).is_dir()]
    for path in sorted(file for folder in [*folders, root] for file in folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = {category["id"]: str(category["name"]) for category in content["categories"]}
            files = {image["id"]: str(image["file_name"]) for image in content["images"]}
            outlines = all(annotation.get("segmentation") for annotation in content["annotations"])
            having: dict[str, list[str]] = {}
            for annotation in content["annotations"]:
                if annotation.get("bbox") and not annotation.get("iscrowd"):
                    having.setdefault(files[annotation["image_id"]], []).append(names[annotation["category_id"]])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # another thing, or broken: the index tells more of a file that is named
        there = {Path(file).name for file in images.files}
        fitting = {file: classes for file, classes in having.items() if Path(file).name in there}
        if fitting and len(fitting) >= SHARE * len(having):
            return _boxed(root, images, path, "coco", fitting, [], outlines)
    return None


def _boxed(
    root: Path,
    images: ImageFolder,
    place: Path,
    form: str,
    named: Mapping[str, list[str]],
    annotated: Sequence[str],
    outlines: bool = False,
) -> Boxed:
    truth = root / "SegmentationClass"
    masks = MaskFolder(truth) if form == "voc" and truth.is_dir() else None
    masked = frozenset(image for image in annotated if masks is not None and masks.find(image))
    counts = Counter(name for classes in named.values() for name in classes)
    return Boxed(
        root=str(root),
        images=_below(images.folder, root),
        annotations=_below(place, root),
        format=form,
        photos=len(named),
        boxes=sum(counts.values()),
        others=len(images.files) - len(named),
        classes=dict(sorted(counts.items())),
        longest=longest_side(images.folder, sorted(images.files)),
        masks=outlines if form == "coco" else bool(masked),
        ids=tuple(annotated),
        masked=masked,
    )


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def told_of_boxes(found: Boxed, weights: Weights) -> Iterator[str]:
    """What was found, for the terminal: a line a class, with the number of its boxes."""
    where = f"{Path(found.root, found.annotations)} ({found.format.upper()})"
    yield f"{found.boxes} boxes on {found.photos} photos in {found.root}, of about {found.longest} pixels: {where}"
    width = max(map(len, found.classes))
    yield from (f"  {name:<{width}} {count:>6}" for name, count in found.classes.items())
    if found.others:
        some = "1 photo has" if found.others == 1 else f"{found.others} photos have"
        yield f"{some} no box; the detector does not learn from them"
    truth = "true masks are there, for scores alone"
    yield truth if found.masks else "no true masks, so nothing will be scored"
    yield f"weights: {weights.file or 'random ones: the detector learns from nothing'}, backbone {weights.backbone}"
