"""MS COCO 2014: images and instance annotations of train and val.

Source: Lin et al., Microsoft COCO: Common Objects in Context (ECCV 2014). Addresses are the organisers', digests those
of torchvision's prototypes of data sets.

Of the 82,783 and 40,504 images 82,081 and 40,137 have an object, which are those that the literature counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wsss_core.errors import UserError
from wsss_core.prepare.archives import Archive, Archives
from wsss_core.prepare.counting import missing, names, require
from wsss_core.prepare.unpacking import members, put

ROOT = "coco"


@dataclass(frozen=True)
class Part:
    """A part of the data set: its archive of images, how many there are, and how many of these have an object."""

    archive: Archive
    images: int
    labelled: int


def _parts() -> dict[str, Part]:
    train = Archive(
        "train2014.zip",
        "http://images.cocodataset.org/zips/train2014.zip",
        13_510_573_713,
        "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        14_000_000_000,
    )
    val = Archive(
        "val2014.zip",
        "http://images.cocodataset.org/zips/val2014.zip",
        6_645_013_297,
        "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        7_000_000_000,
    )
    return {"train2014": Part(train, 82_783, 82_081), "val2014": Part(val, 40_504, 40_137)}


@dataclass(frozen=True)
class Published:
    """The archives, and how many images they hold."""

    annotations: Archive = Archive(
        "annotations_trainval2014.zip",
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        252_872_794,
        "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        1_000_000_000,
    )
    parts: dict[str, Part] = field(default_factory=_parts)


PUBLISHED = Published()


def prepare(folder: Path, archives: Archives, tell: Callable[[str], None], published: Published = PUBLISHED) -> None:
    """Make ``coco`` below a folder; as `wsss_core.prepare.DataSet` has it."""
    root = folder / ROOT
    files = {name: PurePosixPath(f"annotations/instances_{name}.json") for name in published.parts}
    if any(not (root / file).is_file() for file in files.values()):
        wanted = {str(file) for file in files.values()}
        _unpack(root, archives, published.annotations, wanted.__contains__)
    for name, part in published.parts.items():
        images, labelled = _listed(root / files[name])
        require(len(images), part.images, f"{root / files[name]}: images")
        require(labelled, part.labelled, f"{root / files[name]}: images with an object")
        if missing(images, names(root / name, "")):
            _unpack(root, archives, part.archive, lambda path, name=name: _is_image(path, name))  # type: ignore[misc]
        if lost := missing(images, names(root / name, "")):
            raise UserError(f"{root / name}: {lost}, which {files[name].name} lists, is missing")
        tell(f"{root / name}: {len(images)} images, {labelled} of them with an object")


def _is_image(path: str, folder: str) -> bool:
    return PurePosixPath(path).parent == PurePosixPath(folder) and path.endswith(".jpg")


def _unpack(root: Path, archives: Archives, archive: Archive, wanted: Callable[[str], bool]) -> None:
    for member in members(archives.get(archive), archive, wanted):
        put(root / member.name, member)


def _listed(path: Path) -> tuple[list[str], int]:
    """Names of the images in a file of annotations, and how many of them have an object."""
    try:
        content = json.loads(path.read_bytes())
        images = [str(image["file_name"]) for image in content["images"]]
        labelled = {annotation["image_id"] for annotation in content["annotations"]}
    except FileNotFoundError:
        raise UserError(f"{path}: is missing") from None
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise UserError(f"{path}: is no instance annotation of COCO ({error!r})") from error
    return images, len(labelled)
