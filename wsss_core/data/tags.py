"""Reader for a plain table: a CSV of images and their labels beside a folder of images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss_core import keyed
from wsss_core.data.label_files import LabelFile, LabelRow, read_labels, rows_of_folders
from wsss_core.data.label_text import check_labels
from wsss_core.data.names import did_you_mean
from wsss_core.data.reading import (
    ROLES,
    BackgroundKind,
    Draft,
    ImageFolder,
    MaskFolder,
    Problem,
    Reading,
    Sources,
    class_list,
    existing_folder,
    find_list,
    find_masks,
    kind_of_background,
    listed_images,
    mark_scored,
    named,
    named_file,
    named_folder,
    read_class_names,
    rows_by_file,
    tag_from_rows,
    wanted_roles,
)
from wsss_core.errors import UserError
from wsss_core.settings import REQUIRED, setting


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Settings of a table of tags; what it names is looked for from `root`, then from the working folder."""

    root: str = setting(REQUIRED, "folder that holds the CSV and the folder of images")
    labels: str = setting(
        "labels.csv",
        "file of tags: a table with the columns image, labels and, if wanted, split (train, score, …), or of another "
        "shape (docs/configuration.md); folders: every image has the name of the folder that it lies in as its label",
    )
    separator: str = setting(
        " ", "what separates the labels of an image; choose ; or | for names with spaces", minLength=1
    )
    images: str | None = setting(
        None, "folder of images, subfolders included; null: the folder images in `root` if there is one, else `root`"
    )
    masks: str | None = setting(None, "folder of true masks <id>.png, for evaluation; null: none")
    classes: str | None = setting(None, "text file of the class names, one a line; null: the labels found, sorted")
    lists: str = setting(".", "folder of split lists")
    train: tuple[str, ...] = setting((), "lists of the images to train on; []: by the split column or by chance")
    score: str | None = setting(
        None,
        "list of the images whose masks score seeds and pseudo-masks, of those to train on, or of those for evaluation "
        "(then seeds and masks are made of these too, and no training sees them); null: all train images with a mask",
    )
    val: tuple[str, ...] = setting((), "lists of the images whose masks evaluate networks")
    ood: tuple[str, ...] = setting((), "lists, or folders, of images that hold none of the classes")
    val_fraction: float = setting(
        0.2,
        "without lists and split column: fraction of the images with a mask that evaluates networks, "
        "chosen by a hash of their ids, so that new images never move others; the rest is for training",
        minimum=0,
        exclusiveMaximum=1,
    )
    split_seed: int = setting(0, "another number, another choice for val_fraction", minimum=0)
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


FOLDERS = "folders"
"""In place of a file of tags: folders are classes."""

PLAIN = "an image and its labels a row, in the columns image and labels, separated by commas"
"""The shape of a file of tags that is not remarked on."""


def classes(settings: TableSettings) -> tuple[str, ...]:
    """The names in the class file, else the labels in the CSV, sorted; errors as for `read`."""
    root = existing_folder(Path(settings.root), "root")
    path, found = _tags(settings, root, ImageFolder(_image_folder(settings, root), "images"))
    return _class_names(settings, found.rows, path)


def read(settings: TableSettings, workers: int = 0, drawn: Path | None = None) -> Reading:
    """Read the CSV and the lists; images and masks are not opened.

    An image with an empty cell of labels holds none of the classes. The roles of images come from the lists if a
    train list is given, otherwise from the CSV's split column (empty: not used), otherwise from `val_fraction`;
    without lists every row must have its image.

    Raises
    ------
    UserError
        If a folder, list, the class file or the CSV is missing or not as it must be.
    """
    root = existing_folder(Path(settings.root), "root")
    images = ImageFolder(_image_folder(settings, root), "images")
    path, found = _tags(settings, root, images)
    rows, problems = found.rows, [*found.problems, *images.problems]
    problems += [Problem("", str(path), f"is read as {found.shape}", "note")] if found.shape != PLAIN else []
    class_names = _class_names(settings, rows, path)
    check_labels([row.labels for row in rows], found.separator, class_names if settings.classes else None, str(path))
    lists = _lists(settings)
    by_file = rows_by_file(rows, images, problems, needed=not settings.train)
    drafts = listed_images(lists, root, settings.lists, images, problems)
    if not settings.train:
        drafts = _unlisted(by_file, images, drafts, problems)
        problems += _without_row(images, by_file, drafts, path)
    tag_from_rows(drafts, by_file, path, class_names, problems)
    masks = None if settings.masks is None else MaskFolder(named_folder(root, settings.masks, "masks"))
    if not settings.train and not any(row.split is not None for row in rows):
        _choose_val(drafts.values(), masks, settings)
    if masks is not None:
        find_masks(drafts.values(), masks, images.ids(), problems)
    if not any("score" in draft.roles for draft in drafts.values()):
        mark_scored(drafts.values(), settings.score)
    return Reading(
        class_names, tuple(draft.record() for draft in drafts.values()), tuple(problems), wanted_roles(lists)
    )


def sources(settings: TableSettings) -> Sources:
    """What `read` reads."""
    root = Path(settings.root)
    lists = [find_list(name, root, settings.lists) for names in _lists(settings).values() for name in names]
    folders = [_image_folder(settings, root), *(path for path in lists if path.is_dir())]
    folders += [] if settings.masks is None else [named(root, settings.masks)]
    files = [path for path in lists if path.is_file()]
    labels = None if settings.labels == FOLDERS else settings.labels
    files += [named(root, name) for name in (labels, settings.classes) if name is not None]
    return Sources(tuple(folders), tuple(files))


def tags_of_folders(folder: Path, files: Collection[str]) -> LabelFile:
    """The tags of images whose folders are classes."""
    return LabelFile(tuple(rows_of_folders(files, folder)), (), "folders that are classes")


def _tags(settings: TableSettings, root: Path, images: ImageFolder) -> tuple[Path, LabelFile]:
    """The tags, and the file or folder that they are from; masks among the images of folders are no images."""
    if settings.labels != FOLDERS:
        path = named_file(root, settings.labels, "labels")
        names = None if settings.classes is None else _named_classes(settings, settings.classes)
        return path, read_labels(path, settings.separator, names)
    masks = None if settings.masks is None else named(root, settings.masks).resolve()
    files = [file for file in images.files if masks is None or masks not in (images.folder / file).resolve().parents]
    return images.folder, tags_of_folders(images.folder, files)


def _image_folder(settings: TableSettings, root: Path) -> Path:
    """The folder of images.

    Raises
    ------
    UserError
        If it is not there, or would be the working folder or one above, where the results of runs are too.
    """
    if settings.images is not None:
        return named_folder(root, settings.images, "images")
    if (root / "images").is_dir():
        return root / "images"
    if Path.cwd().is_relative_to(root.resolve()):
        raise UserError(
            f"dataset.images: name the folder of the images; there is no folder {root / 'images'}, and all of "
            f"{root.resolve()} would be the results of runs too"
        )
    return root


def _class_names(settings: TableSettings, rows: Iterable[LabelRow], path: Path) -> tuple[str, ...]:
    if settings.classes is not None:
        return _named_classes(settings, settings.classes)
    names = sorted({label for row in rows for label in row.labels})
    if not names:
        raise UserError(f"{path}: no row holds a label")
    if len(names) > 254:
        raise UserError(
            f"{path}: holds {len(names)} different labels ({', '.join(names[:3])}, …), masks have room for 254; "
            "is dataset.separator right?"
        )
    return class_list(names, path)


def _named_classes(settings: TableSettings, file: str) -> tuple[str, ...]:
    return read_class_names(named_file(Path(settings.root), file, "classes"))


def _lists(settings: TableSettings) -> dict[str, tuple[str, ...]]:
    score = () if settings.score is None else (settings.score,)
    if (settings.val or score) and not settings.train:
        key = "val" if settings.val else "score"
        raise UserError(f"dataset.{key}: is a list, so dataset.train must name one too")
    return {"train": settings.train, "val": settings.val, "score": score, "ood": settings.ood}


def _unlisted(
    rows: Mapping[str, LabelRow], images: ImageFolder, listed: Mapping[str, Draft], problems: list[Problem]
) -> dict[str, Draft]:
    """All images that have a row, with the roles of its split cell; without the column, those for training."""
    drafts = dict(listed)
    for file, row in rows.items():
        if file in listed:
            continue
        roles = ["train"] if row.split is None else row.split.split()
        draft = Draft(images.id(file), images.folder / file, roles)
        unknown = next((role for role in roles if role not in ROLES), None)
        if unknown is not None:
            text = f"unknown split {unknown!r}{did_you_mean(unknown, ROLES)}; allowed: {', '.join(ROLES)} or nothing"
            problems.append(Problem(draft.id, row.where, text))
        elif "score" in roles and not {"train", "val"} & set(roles):
            roles.append("train")
        if roles:
            drafts[file] = draft
    return drafts


def _without_row(
    images: ImageFolder, rows: Mapping[str, LabelRow], drafts: Mapping[str, Draft], path: Path
) -> list[Problem]:
    """The note about images that neither a row nor a list names."""
    without = sorted(images.files - rows.keys() - drafts.keys())
    if not without:
        return []
    count = f"{len(without)} of {len(images.files)} images"
    text = f"{count} have no row in {path.name} and are not used, such as {without[0]}"
    return [Problem("", str(images.folder), text, "note")]


def _choose_val(drafts: Iterable[Draft], masks: MaskFolder | None, settings: TableSettings) -> None:
    for draft in drafts:
        if masks is None or "train" not in draft.roles or masks.find(draft.id) is None:
            continue
        if keyed.chance(settings.split_seed, "val", draft.id) < settings.val_fraction:
            draft.roles[:] = ["val"]
