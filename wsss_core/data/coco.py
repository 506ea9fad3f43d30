"""Reader for COCO instance annotations (2014 and 2017), and semantic masks from their polygons."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsss_core import keyed
from wsss_core.constants import IGNORE
from wsss_core.data.boxes import Box, NoiseKind, draw_of_boxes, kind_of_noise, noise_of_boxes, share_of_boxes
from wsss_core.data.instances import Outlined, write_outlines
from wsss_core.data.names import alike, did_you_mean
from wsss_core.data.outlines import inside, outline_problem
from wsss_core.data.reading import (
    Draft,
    ImageFolder,
    MaskFolder,
    Problem,
    Reading,
    Sources,
    class_indices,
    class_list,
    existing_folder,
    find_list,
    find_masks,
    mark_scored,
    missing_mask,
    named,
    named_file,
    named_folder,
    near,
    no_tags,
    read_class_names,
    read_lines,
    wanted_roles,
    whole_folder,
)
from wsss_core.errors import UserError
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.atomic import write_text
from wsss_core.store.masks import mask_name, write_mask

log = logging.getLogger(__name__)

MOST_PIXELS = 2**28
"""An image that is said to be larger is no image."""

STAMP = "rasterised.json"
"""File beside the drawn masks that says what each was drawn from."""

_LAYOUT = 1
"""Counted up when other files are drawn, so that all are drawn again."""

POLYGONS = "polygons"
"""Value of the setting `masks` for masks that are drawn."""

Crowd = Literal["ignore", "class"]
"""Label of crowd regions: 255, or the class."""


@dataclass(frozen=True, kw_only=True)
class CocoSettings:
    """Settings of a data set in COCO's format; what is read is looked for from `root`, then from the working folder."""

    root: str = setting(REQUIRED, "folder that holds the annotations and the folders of images")
    train: tuple[str, ...] = setting(
        ("annotations/instances_train2014.json",), "instance annotations of the images to train on", minItems=1
    )
    train_images: tuple[str, ...] = setting(
        ("train2014",), "folder of images of each file in `train`, or one for all", minItems=1
    )
    val: tuple[str, ...] = setting(
        ("annotations/instances_val2014.json",), "instance annotations of the images that evaluate; [] for none"
    )
    val_images: tuple[str, ...] = setting(("val2014",), "folder of images of each file in `val`, or one for all")
    val_fraction: float = setting(
        0.0,
        "with `val: []`: fraction of the images of `train` that evaluates instead, chosen by a hash of the image's id",
        minimum=0,
        exclusiveMaximum=1,
    )
    split_seed: int = setting(0, "another number, another choice for val_fraction", minimum=0)
    score: str | None = setting(
        None,
        "list of the images whose masks score seeds and pseudo-masks, of those to train on, or of those for evaluation "
        "(then seeds and masks are made of these too, and no training sees them); null: all train images with a mask",
    )
    ood: tuple[str, ...] = setting((), "folders of images that hold none of the classes")
    classes: str | None = setting(
        None, "text file of the categories to keep, in order of their labels; null: all, in order of their id"
    )
    masks: str | None = setting(
        POLYGONS,
        "true masks, for evaluation: polygons (drawn from the annotations, into the run's folder), or a folder of "
        "label masks <id>.png; null: none",
    )
    box_share: float = share_of_boxes()
    box_draw: int = draw_of_boxes()
    box_noise: float = noise_of_boxes()
    box_noise_kind: NoiseKind = kind_of_noise()
    crowd: Crowd = setting("ignore", "label of crowd regions where no single object lies: 255, or the class")
    unreadable: Literal["stop", "skip"] = setting(
        "stop", "when images, masks or tags cannot be used: stop with the whole list, or skip them and go on"
    )
    max_megapixels: float = setting(
        100.0,
        "images of more million pixels cannot be used: memory grows with them, and small files may unpack to so many",
        exclusiveMinimum=0,
    )
    shard_size: int = setting(256, "images a shard, roughly", minimum=1)


def classes(settings: CocoSettings) -> tuple[str, ...]:
    """The names in the class file, else the categories of the first annotation file; errors as for `read`."""
    path = named_file(existing_folder(Path(settings.root), "root"), settings.train[0], "train")
    try:
        return _class_names(settings, _categories(_load(path)), path)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _malformed(path, error) from error


def read(settings: CocoSettings, workers: int = 0, drawn: Path | None = None) -> Reading:
    """Read annotations and, if asked for, draw the masks that are missing or out of date in the folder `drawn`.

    An image's id is its file name without ending, its tags are the categories of all its annotations, crowds
    included. Images without annotations are kept, without tags. Boxes are those of single objects. Category ids
    have gaps (1..90 for 80 categories); label c + 1 of the masks is the category of place c.

    Where objects overlap the smaller one is drawn on top.

    Raises
    ------
    UserError
        If a file or folder is missing or not as it must be, or the files disagree about the categories.
    """
    root = existing_folder(Path(settings.root), "root")
    problems: list[Problem] = []
    drafts: dict[str, Draft] = {}
    shapes: dict[str, _Shapes] = {}
    categories: dict[int, str] | None = None
    class_names: tuple[str, ...] = ()
    for role, file, folder in _parts(settings):
        path = named_file(root, file, role)
        content = _load(path)
        images = ImageFolder(named_folder(root, folder, f"{role}_images"), f"{role}_images")
        problems += images.problems
        try:
            found = _categories(content)
            if categories is None:
                categories, class_names = found, _class_names(settings, found, path)
            elif found != categories:
                raise UserError(f"{path}: its categories differ from those of {named(root, settings.train[0])}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _malformed(path, error) from error
        _read_file(content, role, path, images, class_names, drafts, shapes, problems)
    if settings.val_fraction:
        _choose_val(drafts.values(), settings)
    _read_score_list(settings, root, drafts)
    for name in settings.ood:
        drafts |= {str(d.path): d for d in whole_folder(named_folder(root, name, "ood"), "ood", problems)}
    if settings.masks == POLYGONS and drawn is not None:
        _draw_masks(drawn, settings.crowd, drafts, shapes, problems, workers)
    elif settings.masks not in (POLYGONS, None):
        find_masks(drafts.values(), MaskFolder(named_folder(root, settings.masks, "masks")), shapes, problems)
    mark_scored(drafts.values(), settings.score)
    val = settings.val or ("a fraction of train",) * (settings.val_fraction > 0)
    lists = {"val": val, "score": settings.score or (), "ood": settings.ood}
    return Reading(
        class_names,
        tuple(draft.record() for draft in drafts.values()),
        tuple(problems),
        wanted_roles(lists),
        masks_drawn=settings.masks == POLYGONS,
    )


def sources(settings: CocoSettings) -> Sources:
    """What `read` reads; masks only where it does not draw them itself."""
    root = Path(settings.root)
    folders = [named(root, name) for name in (*(folder for _, _, folder in _parts(settings)), *settings.ood)]
    if settings.masks not in (POLYGONS, None):
        folders.append(named(root, settings.masks))
    files = [named(root, file) for _, file, _ in _parts(settings)]
    files += [] if settings.score is None else [find_list(settings.score, root, ".")]
    files += [] if settings.classes is None else [named(root, settings.classes)]
    return Sources(tuple(folders), tuple(files))


def draw(shapes: Sequence[Shape], size: tuple[int, int], crowd: Crowd) -> np.ndarray:
    """Semantic labels of an image from its instances.

    Crowds are drawn first, as 255 or as their class; then single objects from the largest to the smallest, so that
    of overlapping objects the smaller stays whole. Polygons of fewer than three points are left out.

    Parameters
    ----------
    shapes
        With outlines that `outline_problem` finds nothing wrong with.
    size
        (H, W) as the annotation file states it.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c, 255 ignored.
    """
    filled = [(shape, inside(shape.segmentation, size)) for shape in shapes]
    labels = np.zeros(size, dtype=np.uint8)
    for shape, pixels in sorted(filled, key=lambda pair: (not pair[0].crowd, -int(pair[1].sum()), str(pair[0].id))):
        labels[pixels] = IGNORE if shape.crowd and crowd == "ignore" else shape.label
    return labels


@dataclass(frozen=True)
class Shape:
    """One instance: annotation id, label (class + 1), polygons or run-length code, and whether it is a crowd."""

    id: int
    label: int
    segmentation: Any
    crowd: bool


@dataclass
class _Shapes:
    """All instances of an image and its size (H, W) by the annotation file, or why its mask cannot be drawn."""

    size: tuple[int, int]
    shapes: list[Shape]
    problem: str = ""

    def fingerprint(self, crowd: str) -> str:
        content = [self.size, [[s.id, s.label, s.segmentation, s.crowd] for s in self.shapes], crowd, _LAYOUT]
        return keyed.key_bytes("coco", json.dumps(content)).hex()[:16]


def _parts(settings: CocoSettings) -> Iterator[tuple[str, str, str]]:
    """Role, annotation file and folder of images."""
    for role, files, folders in (
        ("train", settings.train, settings.train_images),
        ("val", settings.val, settings.val_images),
    ):
        if len(folders) not in (1, len(files)) and files:
            raise UserError(f"dataset.{role}_images: names {len(folders)} folders for {len(files)} annotation files")
        yield from ((role, file, folders[0] if len(folders) == 1 else folders[i]) for i, file in enumerate(files))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        with open(path, encoding="utf-8") as handle:
            content = json.load(handle)
    except OSError as error:
        raise UserError(f"{path}: annotations cannot be read ({error.strerror or error}){near(path)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error})") from error
    needed = ("images", "annotations", "categories")
    missing = [key for key in needed if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise UserError(f"{path}: holds no {', no '.join(missing)}; instance annotations of COCO are needed")
    return content


def _malformed(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: its categories are not in COCO's format ({error!r})")


def _categories(content: Mapping[str, Any]) -> dict[int, str]:
    """Name of every category by its id, ascending.

    Raises
    ------
    ValueError
        If two categories have the same id, so that annotations of one would count for the other.
    """
    pairs = sorted((int(c["id"]), str(c["name"])) for c in content["categories"])
    for (number, name), (following, other) in pairwise(pairs):
        if number == following:
            raise ValueError(f"the categories {name!r} and {other!r} have the same id, {number}")
    return dict(pairs)


def _class_names(settings: CocoSettings, categories: Mapping[int, str], source: Path) -> tuple[str, ...]:
    names = tuple(categories.values())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        numbers = " and ".join(str(number) for number, name in categories.items() if name == twice)
        raise UserError(f"{source}: the categories {numbers} have the same name, {twice!r}")
    if settings.classes is None:
        for group in alike(names):
            shown = " and ".join(map(repr, group))
            raise UserError(
                f"{source}: the categories {shown} differ by their writing alone; list those to keep in dataset.classes"
            )
        return class_list(names, source)
    path = named_file(Path(settings.root), settings.classes, "classes")
    chosen = read_class_names(path)
    try:
        class_indices(chosen, names)
    except LookupError as error:
        raise UserError(f"{path}: {error}") from error
    return chosen


def _read_file(
    content: Mapping[str, Any],
    role: str,
    path: Path,
    images: ImageFolder,
    class_names: Sequence[str],
    drafts: dict[str, Draft],
    shapes: dict[str, _Shapes],
    problems: list[Problem],
) -> None:
    """Add the images and instances of one annotation file; what is broken is the matter of its image alone."""
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    places = {number: class_names.index(name) for number, name in names.items() if name in class_names}
    by_image: dict[int | str, list[Mapping[str, Any]]] = {}
    for number, annotation in enumerate(content["annotations"]):
        image: Any = annotation.get("image_id") if isinstance(annotation, dict) else None
        if type(image) in (int, str):
            by_image.setdefault(image, []).append({"id": f"at place {number}"} | annotation)
        else:
            problems.append(Problem("", str(path), f"annotations[{number}] names no image", "row"))
    keys: set[int | str] = set()
    for number, entry in enumerate(content["images"]):
        try:
            name, key, size = _image(entry)
        except ValueError as error:
            problems.append(Problem(f"images[{number}]", str(path), str(error)))
            continue
        if key in keys:
            problems.append(Problem(name, str(path), f"duplicate: another image has the id {key!r} too"))
            continue
        keys.add(key)
        annotations = by_image.pop(key, [])
        try:
            file = images.find(name)
        except LookupError as error:
            problems.append(Problem(name, str(path), str(error)))
            continue
        draft = Draft(images.id(file), images.folder / file)
        if draft.id in drafts:
            also = drafts[draft.id]
            text = f"duplicate: id {draft.id!r} is in {role} and in {also.roles[0]} ({also.path})"
            problems.append(Problem(draft.id, str(path), text))
            continue
        unknown = next((a for a in annotations if not _known(a.get("category_id"), names)), None)
        if unknown is not None:
            text = f"annotation {unknown['id']}: unknown category id {unknown.get('category_id')!r}"
            problems.append(Problem(draft.id, str(path), text))
        annotations = [a for a in annotations if _known(a.get("category_id"), places)]
        draft.roles = [role]
        draft.tags = tuple(sorted({places[a["category_id"]] for a in annotations}))
        draft.boxes = tuple(_boxes(annotations, places, draft, path, problems))
        if role == "train" and not draft.tags:
            problems.append(no_tags(draft, draft.path))
        drafts[draft.id] = draft
        shapes[draft.id] = _shapes(annotations, places, size)
    for key in sorted(by_image, key=str):
        text = f"{len(by_image[key])} annotations are of an image that the file does not list"
        problems.append(Problem(str(key), str(path), text, "row"))


def _known(number: Any, among: Mapping[int, Any]) -> bool:
    """Whether something is the number of a category."""
    return type(number) is int and number in among


def _image(entry: Any) -> tuple[str, int | str, tuple[int, int]]:
    """File name, id and size (H, W) of an image; ValueError if one of them is not as it must be."""
    if not isinstance(entry, dict):
        raise ValueError("the entry is no object")
    name: Any = entry.get("file_name")
    key: Any = entry.get("id")
    if not isinstance(name, str):
        raise ValueError(f"file_name is {name!r}, not a text")
    if not isinstance(key, int | str) or isinstance(key, bool):
        raise ValueError(f"{name}: id is {key!r}, neither a whole number nor a text")
    height, width = (_side(name, entry, side) for side in ("height", "width"))
    if height * width > MOST_PIXELS:
        raise ValueError(f"{name}: {width}x{height} pixels are more than can be read")
    return name, key, (height, width)


def _side(name: str, entry: Mapping[str, Any], side: str) -> int:
    value: Any = entry.get(side)
    if type(value) not in (int, float) or not 1 <= value <= MOST_PIXELS or value != int(value):
        raise ValueError(f"{name}: {side} is {value!r}, not a whole number from 1 on")
    return int(value)


def _boxes(
    annotations: Sequence[Mapping[str, Any]],
    places: Mapping[int, int],
    draft: Draft,
    path: Path,
    problems: list[Problem],
) -> Iterator[Box]:
    """The boxes of an image; those that are broken are left out, with a problem each."""
    for annotation in annotations:
        box = annotation.get("bbox")
        if box is None:
            continue
        if isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and abs(v) < 1e9 for v in box):
            x, y, width, height = box
            crowd = bool(annotation.get("iscrowd"))
            yield Box(places[annotation["category_id"]], x, y, x + width, y + height, crowd=crowd)
        else:
            text = f"annotation {annotation['id']}: its box is not four numbers x, y, width, height"
            problems.append(Problem(draft.id, str(path), text, "row"))


def _shapes(annotations: Sequence[Mapping[str, Any]], places: Mapping[int, int], size: tuple[int, int]) -> _Shapes:
    """Outlines of an image's instances, or the first that cannot be drawn."""
    shapes = []
    for order, annotation in enumerate(annotations):
        outline = annotation.get("segmentation")
        text = (
            outline_problem(outline, size) if outline else "has no outline; with boxes alone, set dataset.masks to null"
        )
        if text:
            return _Shapes(size, [], f"no mask can be drawn: annotation {annotation['id']}: {text}")
        number = annotation["id"] if type(annotation["id"]) is int else order
        shapes.append(Shape(number, places[annotation["category_id"]] + 1, outline, bool(annotation.get("iscrowd"))))
    return _Shapes(size, shapes)


def _choose_val(drafts: Iterable[Draft], settings: CocoSettings) -> None:
    """Give a part of the images, by a hash of their ids, the role val instead of train."""
    if settings.val:
        raise UserError("dataset.val_fraction: dataset.val names images that evaluate already; set it to []")
    for draft in drafts:
        if keyed.chance(settings.split_seed, "val", draft.id) < settings.val_fraction:
            draft.roles[:] = ["val"]


def _read_score_list(settings: CocoSettings, root: Path, drafts: Mapping[str, Draft]) -> None:
    if settings.score is None:
        return
    path = find_list(settings.score, root, ".")
    for number, name in read_lines(path):
        draft = drafts.get(name)
        if draft is None or not {"train", "val"} & set(draft.roles):
            raise UserError(
                f"{path}, row {number}: there is no train or val image {name!r}{did_you_mean(name, drafts)}"
            )
        draft.roles.append("score")


def _draw_masks(
    folder: Path,
    crowd: Crowd,
    drafts: Mapping[str, Draft],
    shapes: Mapping[str, _Shapes],
    problems: list[Problem],
    workers: int,
) -> None:
    """Draw the masks and give them to their images; a problem is appended for each that cannot be drawn."""
    sound = {image: item for image, item in shapes.items() if not item.problem}
    _draw_files(folder, sound, crowd, workers)
    for image, item in shapes.items():
        if item.problem:
            problems.append(missing_mask(drafts[image], drafts[image].path, item.problem))
        else:
            drafts[image].mask = folder / mask_name(image)
            drafts[image].instances = folder / _outlines_name(image)


def _draw_files(folder: Path, shapes: Mapping[str, _Shapes], crowd: Crowd, workers: int) -> None:
    """Draw the masks that are missing or were drawn from something else."""
    stamp = folder / STAMP
    wanted = {image: item.fingerprint(crowd) for image, item in shapes.items()}
    try:
        done = json.loads(stamp.read_text(encoding="utf-8"))
    except FileNotFoundError:
        done = {}
    except (OSError, ValueError) as error:
        raise UserError(f"{stamp}: cannot be read ({error}); delete it to draw all masks again") from error
    todo = [i for i, key in wanted.items() if done.get(i) != key or not all(map(Path.is_file, _drawn(folder, i)))]
    if not todo:
        return
    log.info("drawing %d masks into %s", len(todo), folder)
    shown = time.monotonic()
    try:
        drawn = _mapped(partial(_draw_file, folder, crowd), [(i, shapes[i]) for i in todo], workers)
        for count, image in enumerate(drawn, start=1):
            done[image] = wanted[image]
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                log.info("%d of %d masks drawn", count, len(todo))
    except OSError as error:
        text = "free space, or give the run another folder"
        raise UserError(f"{folder}: masks cannot be written ({error}); {text}") from error
    finally:
        if folder.is_dir():
            write_text(stamp, json.dumps(done))


def _mapped(function: Any, items: Sequence[Any], workers: int) -> Iterator[Any]:
    if workers <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(function, items, chunksize=16)


def _outlines_name(image_id: str) -> str:
    """File name of the outlines of an image's objects."""
    return mask_name(image_id).removesuffix(".png") + ".json"


def _drawn(folder: Path, image_id: str) -> tuple[Path, Path]:
    """The files that are drawn for an image: its mask, the outlines of its objects."""
    return folder / mask_name(image_id), folder / _outlines_name(image_id)


def _draw_file(folder: Path, crowd: Crowd, item: tuple[str, _Shapes]) -> str:
    """Draw one mask, and write its objects; returns the image."""
    image, shapes = item
    mask, outlines = _drawn(folder, image)
    write_mask(mask, draw(shapes.shapes, shapes.size, crowd))
    objects = [Outlined(s.label - 1, s.segmentation, s.crowd) for s in shapes.shapes]
    write_outlines(outlines, shapes.size, objects)
    return image
