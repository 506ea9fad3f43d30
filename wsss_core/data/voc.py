"""Reader for the folder layout of PASCAL VOC 2012."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from wsss_core.data.boxes import Box, NoiseKind, draw_of_boxes, kind_of_noise, noise_of_boxes, share_of_boxes
from wsss_core.data.folders import walk
from wsss_core.data.label_files import read_labels
from wsss_core.data.label_text import check_labels
from wsss_core.data.names import Lookalikes
from wsss_core.data.reading import (
    BackgroundKind,
    Draft,
    ImageFolder,
    MaskFolder,
    Problem,
    Reading,
    Sources,
    class_indices,
    existing_folder,
    find_list,
    find_masks,
    kind_of_background,
    listed_images,
    mark_scored,
    named,
    named_file,
    named_folder,
    no_tags,
    read_class_names,
    rows_by_file,
    tag_from_rows,
    wanted_roles,
)
from wsss_core.errors import UserError
from wsss_core.settings import REQUIRED, setting

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
OBJECTS = "SegmentationObject"


@dataclass(frozen=True, kw_only=True)
class VocSettings:
    """Settings of a data set in VOC's layout; what it names is looked for from `root`, then from the working folder."""

    root: str = setting(REQUIRED, "folder that holds JPEGImages, Annotations, SegmentationClass and ImageSets")
    train: tuple[str, ...] = setting(
        ("train_aug",), "lists of the images to train on (names in `lists`, or paths)", minItems=1
    )
    score: str | None = setting(
        None,
        "list of the images whose masks score seeds and pseudo-masks, of those to train on, or of those for evaluation "
        "(then seeds and masks are made of these too, and no training sees them); null: all train images with a mask",
    )
    val: tuple[str, ...] = setting(("val",), "lists of the images whose masks evaluate networks; [] for none")
    ood: tuple[str, ...] = setting((), "lists, or folders, of images that hold none of the classes")
    tags: str = setting("xml", "class tags: xml (Annotations), masks (labels in `masks`), or a CSV image,labels")
    separator: str = setting(" ", "what separates the labels of an image in a CSV of tags", minLength=1)
    classes: str | None = setting(None, "text file of the class names, one a line; null: the 20 of VOC")
    masks: str | None = setting("SegmentationClass", "folder of true masks, for evaluation; null: none")
    boxes: Literal["xml", "masks"] = setting(
        "xml", "boxes of objects: xml (Annotations), or masks (around the connected regions of each label in `masks`)"
    )
    instances: str | None = setting(
        None, f"folder of the true masks of single objects; null: {OBJECTS} where there is one, else none"
    )
    box_share: float = share_of_boxes()
    box_draw: int = draw_of_boxes()
    box_noise: float = noise_of_boxes()
    box_noise_kind: NoiseKind = kind_of_noise()
    images: str = setting("JPEGImages", "folder of images")
    annotations: str = setting("Annotations", "folder of the XML files of tags and boxes, <id>.xml")
    lists: str = setting("ImageSets/Segmentation", "folder of split lists")
    background: BackgroundKind = kind_of_background()
    unreadable: Literal["stop", "skip"] = setting(
        "stop", "when images, masks or tags cannot be used: stop with the whole list, or skip them and go on"
    )
    max_megapixels: float = setting(
        100.0,
        "images of more million pixels cannot be used: memory grows with them, and small files may unpack to so many",
        exclusiveMinimum=0,
    )
    shard_size: int = setting(128, "images a shard, roughly", minimum=1)


def classes(settings: VocSettings) -> tuple[str, ...]:
    """The names in the class file, else the 20 of VOC; errors as for `read`."""
    if settings.classes is None:
        return VOC_CLASSES
    return read_class_names(named_file(Path(settings.root), settings.classes, "classes"))


def read(settings: VocSettings, workers: int = 0, drawn: Path | None = None) -> Reading:
    """Read lists, tags and boxes; images and masks are not opened.

    Tags from XML are the names of all objects, difficult ones too (names of parts do not count). Boxes come from
    ``Annotations/<id>.xml`` wherever it exists, as x0 = xmin - 1 and x1 = xmax (VOC counts pixels from 1 and includes
    both ends), unless they are to be drawn around what the masks show. Lines of a list such as
    ``/JPEGImages/x.jpg /SegmentationClassAug/x.png`` name masks that come before `masks`.

    Raises
    ------
    UserError
        If a folder, list, class file or CSV of tags is missing or not as it must be.
    """
    root = existing_folder(Path(settings.root), "root")
    class_names = classes(settings)
    images = ImageFolder(named_folder(root, settings.images, "images"), "images")
    problems = list(images.problems)
    lists = _lists(settings)
    drafts = listed_images(lists, root, settings.lists, images, problems)
    if settings.masks is not None:
        find_masks(drafts.values(), MaskFolder(named_folder(root, settings.masks, "masks")), images.ids(), problems)
    mark_scored(drafts.values(), settings.score)
    _find_instances(settings, root, drafts.values(), images, problems)
    if settings.tags == "xml":
        existing_folder(named(root, settings.annotations), "tags (xml)")
    elif settings.tags != "masks":
        path = named_file(root, settings.tags, "tags")
        found = read_labels(path, settings.separator, class_names)
        problems += found.problems
        rows = found.rows
        check_labels([row.labels for row in rows], found.separator, class_names, str(path))
        tag_from_rows(drafts, rows_by_file(rows, images, problems, needed=False), path, class_names, problems)
    _annotate(drafts.values(), named(root, settings.annotations), class_names, problems, tags=settings.tags == "xml")
    records = tuple(draft.record() for draft in drafts.values())
    from_masks, boxes_from_masks = settings.tags == "masks", settings.boxes == "masks"
    return Reading(
        class_names, records, tuple(problems), wanted_roles(lists), from_masks, boxes_from_masks=boxes_from_masks
    )


def sources(settings: VocSettings) -> Sources:
    """What `read` reads."""
    root = Path(settings.root)
    lists = [find_list(name, root, settings.lists) for names in _lists(settings).values() for name in names]
    folders = [named(root, settings.images), named(root, settings.annotations)]
    folders += [path for path in lists if path.is_dir()]
    folders += [named(root, name) for name in (settings.masks, settings.instances or OBJECTS) if name is not None]
    tags = settings.tags if settings.tags not in ("xml", "masks") else None
    files = [path for path in lists if path.is_file()]
    files += [named(root, name) for name in (settings.classes, tags) if name is not None]
    return Sources(tuple(folders), tuple(files))


def _lists(settings: VocSettings) -> dict[str, tuple[str, ...]]:
    score = () if settings.score is None else (settings.score,)
    return {"train": settings.train, "val": settings.val, "score": score, "ood": settings.ood}


def _find_instances(
    settings: VocSettings, root: Path, drafts: Iterable[Draft], images: ImageFolder, problems: list[Problem]
) -> None:
    """Give images with a mask the file of their objects."""
    if settings.instances is None and not (root / OBJECTS).is_dir():
        return
    files = MaskFolder(named_folder(root, settings.instances or OBJECTS, "instances"))
    problems += files.problems
    masked = [draft for draft in drafts if draft.mask is not None]
    for draft in masked:
        draft.instances = files.find(draft.id)
    if settings.instances is not None and masked and all(draft.instances is None for draft in masked):
        text = f"none of {len(masked)} images with a mask has a file <id>.png there: {files.content()}"
        raise UserError(f"{files.folder}: dataset.instances: {text}")


def _annotate(
    drafts: Iterable[Draft], folder: Path, class_names: Sequence[str], problems: list[Problem], tags: bool
) -> None:
    """Give images the boxes of their XML files and, if asked for, the tags."""
    present = Lookalikes({entry.name.rpartition(".")[0]: [entry.name] for entry in walk(folder)})
    for draft in drafts:
        path = folder / f"{draft.id}.xml"
        if not path.is_file():
            if tags and "train" in draft.roles:
                alike = present.of(draft.id)
                hint = f" (did you mean {alike[0]!r}?)" if alike else ""
                text = f"there is no such file with the tags of this image{hint}"
                problems.append(Problem(draft.id, str(path), text))
            continue
        try:
            objects = _objects(path)
            indices = class_indices((name for name, _, _ in objects), class_names)
        except LookupError as error:
            problems.append(Problem(draft.id, str(path), str(error)))
            continue
        draft.boxes = tuple(Box(class_names.index(name), *corners, hard) for name, corners, hard in objects if corners)
        if tags:
            draft.tags = indices
            if not indices and "train" in draft.roles:
                problems.append(no_tags(draft, path))


def _objects(path: Path) -> list[tuple[str, tuple[float, float, float, float] | None, bool]]:
    """Name, (x0, y0, x1, y1) if it has a box, and whether it is difficult, of every object of a VOC annotation."""
    try:
        top = ElementTree.parse(path).getroot()
        if top.tag != "annotation":
            raise ValueError(f"begins with <{top.tag}>, an annotation of VOC with <annotation>")
        found = top.findall("object")
        return [(_text(item, "name"), _box(item.find("bndbox")), _difficult(item)) for item in found]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise LookupError(f"annotation cannot be read ({error})") from error


def _difficult(element: ElementTree.Element) -> bool:
    return (element.findtext("difficult") or "").strip() not in ("", "0")


def _box(element: ElementTree.Element | None) -> tuple[float, float, float, float] | None:
    if element is None:
        return None
    x0, y0, x1, y1 = (float(_text(element, key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise ValueError("a corner of a box is no finite number")
    return x0 - 1, y0 - 1, x1, y1


def _text(element: ElementTree.Element, key: str) -> str:
    text = element.findtext(key)
    if text is None or not text.strip():
        raise ValueError(f"<{element.tag}> without <{key}>")
    return text.strip()
