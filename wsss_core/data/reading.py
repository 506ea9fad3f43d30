"""What the readers of all formats share: problems, class lists, split lists, folders of images."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from wsss_core.constants import BACKGROUND, MEAN_ROW
from wsss_core.data.boxes import Box
from wsss_core.data.decode import IMAGE_SUFFIXES
from wsss_core.data.folders import Entry, walk
from wsss_core.data.names import Lookalikes, did_you_mean, plain
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.settings import setting
from wsss_core.store.masks import mask_name

if TYPE_CHECKING:
    from wsss_core.data.label_files import LabelRow

ROLES = ("train", "score", "val", "ood")

BackgroundKind = Literal["class", "none"]
"""Whether pixels of no class are background, or there are none."""


def kind_of_background() -> Any:
    """The setting `background` of a data set."""
    return setting(
        "class",
        "class: what is of no class is background, label 0; none: every pixel is of some class, as in land cover, and "
        "no mask holds a 0 (docs/configuration.md)",
    )


RESERVED = {
    BACKGROUND: "label 0 has this name in every table and figure; images that hold nothing else have no label",
    MEAN_ROW: "the last row of every table of scores has this name; give the class another one",
}
"""Words that cannot name a class, and why, whatever the case and the spaces and low lines around them."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with one image, its mask or its tags.

    Attributes
    ----------
    image
        Id of the image, or whatever names it where it was found.
    path
        File, with the row where there is one ("labels.csv, row 12").
    text
        What is wrong.
    severity
        "error": the image cannot be used; "mask": its mask cannot be used; "row": a row or line cannot be used,
        the image can; "note": everything is used as it is.
    """

    image: str
    path: str
    text: str
    severity: Literal["error", "mask", "row", "note"] = "error"


@dataclass(frozen=True)
class Reading:
    """What a reader found; the step `index` opens the images and fills in sizes and digests.

    Attributes
    ----------
    records
        One an image, with height, width and digests still empty; also those that a problem names.
    wanted
        Roles that the settings ask for: none of them may turn out empty.
    tags_from_masks
        Tags are the labels that an image's mask holds.
    masks_drawn
        The masks were drawn from what the tags were read from.
    boxes_from_masks
        Boxes are those of the connected regions of an image's mask.
    parts
        Of several data sets read as one, the reading of each, all with the same classes.
    """

    class_names: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    problems: tuple[Problem, ...] = ()
    wanted: tuple[str, ...] = ("train",)
    tags_from_masks: bool = False
    masks_drawn: bool = False
    boxes_from_masks: bool = False
    parts: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class Sources:
    """Folders and files that a reader reads, for noticing changes without opening images."""

    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()


class Reader(Protocol):
    """A module that reads data sets of one format."""

    def classes(self, settings: Any) -> tuple[str, ...]:
        """Names of the foreground classes in order of their labels, from files that are read only."""
        ...

    def read(self, settings: Any, workers: int = 0, drawn: Path | None = None) -> Reading:
        """What the files list and tag; `workers` is the number of threads.

        Masks that the reader draws from something else go into the folder `drawn`, never beside the data; without a
        folder it draws none.
        """
        ...

    def sources(self, settings: Any) -> Sources:
        """The folders and files that `read` reads."""
        ...


def unreadable(folder: Path, entries: Iterable[Entry]) -> list[Problem]:
    """The notes about what could not be read in a folder."""
    return [Problem("", str(folder / e.name), f"cannot be read ({e.error})", "note") for e in entries if e.error]


class ImageFolder:
    """The images in a folder and its subfolders, by name.

    An image's id is its file name (with subfolders) without the ending, or with it where two files differ in
    nothing else. What cannot be read there is noted in `problems`.
    """

    def __init__(self, folder: Path, setting: str) -> None:
        self.folder = existing_folder(folder, setting)
        entries = walk(folder)
        self.files = frozenset(entry.name for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES))
        self.problems = unreadable(folder, entries)
        self._others = sorted(entry.name for entry in entries if entry.name not in self.files and not entry.error)
        self._stems: dict[str, list[str]] = {}
        for name in sorted(self.files):
            self._stems.setdefault(_stem(name), []).append(name)

    def find(self, name: str) -> str:
        """File name of an image that is named with or without its ending.

        Raises
        ------
        LookupError
            If there is none, or more than one; the text says so.
        """
        if name in self.files:
            return name
        names = self._stems.get(name, [])
        if len(names) == 1:
            return names[0]
        if names:
            raise LookupError(f"ambiguous: {' or '.join(sorted(names))}")
        raise LookupError(f"there is no such image in {self.folder}{self._hint(name)}")

    def id(self, file: str) -> str:
        """Id of a file in the folder."""
        stem = _stem(file)
        return stem if len(self._stems[stem]) == 1 else file

    def content(self) -> str:
        """What lies in the folder beside images, in words."""
        unread = f"; it holds {len(self._others)} files such as {self._others[0]}, whose ending is not read"
        return f"{unread} (only {', '.join(IMAGE_SUFFIXES)})" if self._others else ""

    def _hint(self, name: str) -> str:
        """What the folder holds that may be meant by a name."""
        images, others = self._lookalikes
        alike = images.of(_stem(name))
        if alike:
            return f" (did you mean {' or '.join(map(repr, alike[:2]))}?)"
        unread = others.of(name) or others.of(name.rpartition(".")[0])
        only = f"endings that are read are {', '.join(IMAGE_SUFFIXES)}"
        return f", but {unread[0]!r}, which is not read as an image ({only})" if unread else ""

    @cached_property
    def _lookalikes(self) -> tuple[Lookalikes, Lookalikes]:
        """Images, and other files by their names with and without ending."""
        others: dict[str, list[str]] = {}
        for file in self._others:
            for name in {file, file.rpartition(".")[0] or file}:
                others.setdefault(name, []).append(file)
        return Lookalikes(self._stems), Lookalikes(others)

    def ids(self) -> set[str]:
        """Ids of all images in the folder."""
        return {self.id(file) for file in self.files}


class MaskFolder:
    """The files in a folder of true masks, named ``<id>.png`` (as a file in a subfolder, or escaped by `mask_name`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = existing_folder(folder, "masks")
        entries = walk(folder)
        self.files = frozenset(entry.name for entry in entries)
        self.problems = unreadable(folder, entries)

    def find(self, image: str) -> Path | None:
        """The mask of an image, given its id."""
        named = next((name for name in (f"{image}.png", mask_name(image)) if name in self.files), None)
        return None if named is None else self.folder / named

    def otherwise_named(self, without: Iterable[str], known: Iterable[str]) -> dict[str, str]:
        """Images without a mask to a file that looks like it: ``x_mask.png``, ``X.PNG``, ``x.tif``, ``sub/x.png``.

        Parameters
        ----------
        without
            Ids of the images in question.
        known
            Ids of all images, listed or not: a file that is named after one of them is no other's mask.
        """
        taken = {self.find(image) for image in known}
        wanted = {plain(image): image for image in without}
        wanted |= {name.rpartition("/")[2]: image for name, image in wanted.items()}
        found: dict[str, str] = {}
        for file in sorted(self.files):
            if self.folder / file not in taken:
                image = next((wanted[part] for part in _parts_of_name(file) if part in wanted), None)
                if image is not None:
                    found.setdefault(image, file)
        return found

    def content(self) -> str:
        """What lies in the folder, in words."""
        shown = ", ".join(sorted(self.files)[:3])
        return f"{len(self.files)} files lie there, such as {shown}" if self.files else "the folder is empty"


@dataclass
class Draft:
    """An image on its way to a record."""

    id: str
    path: Path
    roles: list[str] = field(default_factory=list)
    tags: tuple[int, ...] = ()
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    instances: Path | None = None

    def record(self) -> ImageRecord:
        """The record, size and digests still empty."""
        return ImageRecord(
            id=self.id,
            path=str(self.path),
            height=0,
            width=0,
            splits=tuple(role for role in ROLES if role in self.roles),
            classes=self.tags,
            mask="" if self.mask is None else str(self.mask),
            boxes=self.boxes,
            instances="" if self.instances is None else str(self.instances),
        )


@dataclass(frozen=True)
class Listed:
    """One line of a split list: the image file in the folder, the mask that the line names, where it stands."""

    file: str
    mask: Path | None
    where: str


def existing_folder(folder: Path, setting: str) -> Path:
    """The folder, or UserError that names the setting."""
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise UserError(f"dataset.{setting}: there is no folder {folder}{near(folder)}")
    return folder


def near(path: Path) -> str:
    """A hint at what lies where a file or folder was looked for and is written nearly alike, or nothing."""
    if os.path.exists(path) or not os.path.isdir(path.parent):
        return ""
    return did_you_mean(path.name, (beside.name for beside in path.parent.iterdir()))


def named(root: Path, name: str) -> Path:
    """Path of a file or folder that a setting names: below the root, or from here if only there is one."""
    return Path(name) if os.path.exists(name) and not os.path.exists(root / name) else root / name


def named_folder(root: Path, name: str, setting: str) -> Path:
    """The folder that a setting names, as `named` finds it; UserError that says where it was looked for."""
    if not os.path.isdir(named(root, name)):
        raise UserError(f"dataset.{setting}: there is no folder {_places(root, name)}{near(root / name)}")
    return named(root, name)


def named_file(root: Path, name: str, setting: str) -> Path:
    """The file that a setting names, as `named` finds it; UserError that says where it was looked for."""
    if not os.path.isfile(named(root, name)):
        raise UserError(f"dataset.{setting}: there is no file {_places(root, name)}{near(root / name)}")
    return named(root, name)


def _places(root: Path, name: str) -> str:
    """Where `named` looks, in words."""
    return name if os.path.isabs(name) else f"{root / name}, nor {name} in the working folder, {Path.cwd()}"


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, or UserError that names it; a byte-order mark is dropped."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}){near(path)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error


def read_class_names(path: Path) -> tuple[str, ...]:
    """Names of the foreground classes, one a line; a first line "background" is skipped.

    Raises
    ------
    UserError
        As `class_list`.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return class_list(names[1:] if names and _bare(names[0]) == BACKGROUND else names, path)


def class_list(names: Iterable[str], path: Path) -> tuple[str, ...]:
    """The names of the foreground classes, if a run can go by them.

    Parameters
    ----------
    path
        File that they come from, for the message.

    Raises
    ------
    UserError
        If there are none or more than 254, or a name stands twice, is reserved, or holds a line break.
    """
    names = tuple(names)
    if not names:
        raise UserError(f"{path}: holds no class names")
    if len(names) > 254:
        raise UserError(f"{path}: holds {len(names)} classes ({', '.join(names[:3])}, …); masks have room for 254")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: class {name!r} stands twice")
        if _bare(name) in RESERVED:
            raise UserError(f"{path}: {name!r} cannot be the name of a class: {RESERVED[_bare(name)]}")
        if len(name.splitlines()) != 1:
            raise UserError(f"{path}: {name!r} cannot be the name of a class, which is one line of text")
    return names


def _bare(name: str) -> str:
    return name.strip(" _").casefold()


def class_indices(names: Iterable[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Ascending indices of class names.

    Raises
    ------
    LookupError
        If a name is not in the class list; the text names it and the nearest one.
    """
    indices = set()
    for name in names:
        if name not in class_names:
            raise LookupError(f"unknown class {name!r}{did_you_mean(name, class_names)}")
        indices.add(class_names.index(name))
    return tuple(sorted(indices))


def rows_by_file(
    rows: Iterable[LabelRow], images: ImageFolder, problems: list[Problem], needed: bool
) -> dict[str, LabelRow]:
    """Rows by image file; problems are appended for images that stand twice and, if `needed`, for missing ones."""
    found: dict[str, LabelRow] = {}
    for row in rows:
        try:
            file = images.find(row.image)
        except LookupError as error:
            if needed:
                problems.append(Problem(row.image, row.where, str(error)))
            continue
        first = found.setdefault(file, row)
        if first is not row:
            text = f"duplicate: the image is in {first.where.rpartition(', ')[2]} too; write all its labels in one row"
            same = (first.labels, first.split) == (row.labels, row.split)
            problems.append(Problem(images.id(file), row.where, text, "row" if same else "error"))
    return found


def find_list(name: str, root: Path, lists: str) -> Path:
    """Path of a split list given by its name in the folder of lists, or by a path (from the root or from here).

    Raises
    ------
    UserError
        If there is none; the message says which lists there are.
    """
    folder = root / lists
    for path in (folder / name, folder / f"{name}.txt", root / name, Path(name)):
        if os.path.isfile(path) or (os.path.isdir(path) and path != folder):
            return path
    present = sorted(path.stem for path in folder.glob("*.txt"))
    shown = f"; {folder} holds {', '.join(present)}" if present else f"; there is none in {folder}"
    hint = " (of the SBD masks; `wsss prepare voc12` makes it)" if name == "train_aug" else ""
    raise UserError(f"dataset: there is no split list {name!r}{shown}{hint}")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of the lines of a list that are not blank; UserError if there are none."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UserError(f"{path}: the split list is empty")
    return lines


def read_list(path: Path, images: ImageFolder, root: Path, problems: list[Problem]) -> list[Listed]:
    """Read a split list: an image's id or file name a line, or "/folder/image.jpg /folder/mask.png" from the root.

    Problems are appended for images that are not there or stand twice.

    Raises
    ------
    UserError
        If the list is empty.
    """
    entries: dict[str, Listed] = {}
    for number, name in read_lines(path):
        where, mask = f"{path}, row {number}", None
        parts = name.split()
        if len(parts) == 2 and "/" in parts[0] and "/" in parts[1]:
            name, mask = parts[0], root / parts[1].lstrip("/")
        if "/" in name and images.folder in (root / name.lstrip("/")).parents:
            name = (root / name.lstrip("/")).relative_to(images.folder).as_posix()
        try:
            file = images.find(name)
        except LookupError as error:
            problems.append(Problem(name, where, str(error)))
            continue
        if file in entries:
            first = entries[file].where.rpartition(", ")[2]
            problems.append(Problem(images.id(file), where, f"duplicate: the image is in {first} too", "row"))
        entries.setdefault(file, Listed(file, mask, where))
    return list(entries.values())


def listed_images(
    lists: Mapping[str, Sequence[str]], root: Path, folder: str, images: ImageFolder, problems: list[Problem]
) -> dict[str, Draft]:
    """Image files of all split lists with their roles and the masks that lists name.

    A name under "ood" may be a folder of images instead of a list; their ids start with the folder's name.

    Parameters
    ----------
    lists
        Role to names of lists.
    folder
        Folder of lists, from the root.

    Raises
    ------
    UserError
        If a list is missing or empty, or the score list names an image that no train or val list before it has.
    """
    drafts: dict[str, Draft] = {}
    for role, names in lists.items():
        for name in names:
            path = find_list(name, root, folder)
            if path.is_dir():
                if role != "ood":
                    raise UserError(f"dataset.{role}: {name!r} is a folder; a split list is a text file")
                drafts |= {str(draft.path): draft for draft in whole_folder(path, role, problems)}
                continue
            entries = read_list(path, images, root, problems)
            _check_subset(role, path, entries, drafts)
            for entry in entries:
                draft = drafts.setdefault(
                    entry.file, Draft(images.id(entry.file), images.folder / entry.file, mask=entry.mask)
                )
                if role in draft.roles:
                    text = f"duplicate: another {role} list has the image too"
                    problems.append(Problem(draft.id, entry.where, text, "row"))
                draft.roles.append(role)
    return drafts


def whole_folder(path: Path, role: str, problems: list[Problem]) -> list[Draft]:
    """All images of a folder in one role; their ids start with the folder's name."""
    images = ImageFolder(path, role)
    problems += images.problems
    if not images.files:
        raise UserError(f"dataset.{role}: {path} holds no images{images.content()}")
    return [Draft(f"{path.name}/{images.id(file)}", path / file, [role]) for file in sorted(images.files)]


def find_masks(drafts: Iterable[Draft], masks: MaskFolder, known: Collection[str], problems: list[Problem]) -> None:
    """Give train and val images their masks, where they have none yet.

    Problems are appended for missing masks of val images and of images in a score list, and for images whose mask seems
    to be there under another name.

    Parameters
    ----------
    known
        Ids of all images in the data set's folders, listed or not.

    Raises
    ------
    UserError
        If the folder holds a mask of none of them: a folder that is named counts for something.
    """
    problems += masks.problems
    wanting = [draft for draft in drafts if draft.mask is None and {"train", "val"} & set(draft.roles)]
    for draft in wanting:
        draft.mask = masks.find(draft.id)
    without = [draft for draft in wanting if draft.mask is None]
    named = masks.otherwise_named([draft.id for draft in without], known)
    if wanting and len(without) == len(wanting):
        others = [image for image in known if masks.find(image) is not None]
        if not others:
            raise UserError(_no_mask_at_all(masks, without, named))
        text = f"holds masks of {len(others)} images, of none that a list names ({_looked_for(without)})"
        problems.append(Problem("", str(masks.folder), text, "note"))
    for draft in without:
        path = masks.folder / f"{draft.id}.png"
        if draft.id in named:
            text = f"there is no such mask, but {named[draft.id]}: rename it, or take it out of the folder"
            problems.append(missing_mask(draft, path, text))
        elif "val" in draft.roles or "score" in draft.roles:
            problems.append(missing_mask(draft, path))


def _no_mask_at_all(masks: MaskFolder, drafts: Sequence[Draft], named: Mapping[str, str]) -> str:
    image, file = next(iter(named.items()), ("", ""))
    hint = f"; rename them, as {file} to {image}.png" if file else ""
    return (
        f"dataset.masks: {masks.folder} holds no mask of the {len(drafts)} images for training and evaluation: "
        f"{_looked_for(drafts)}; {masks.content()}{hint}. Without masks, set it to null."
    )


def _looked_for(drafts: Sequence[Draft]) -> str:
    names = ", ".join(f"{draft.id}.png" for draft in drafts[:2])
    return f"looked for {names}{', …' if len(drafts) > 2 else ''}"


def no_tags(draft: Draft, path: Path) -> Problem:
    """The note about a train image whose annotation holds none of the classes."""
    return Problem(draft.id, str(path), "no class tags: the image is trained on as background only", "note")


def missing_mask(draft: Draft, path: Path, text: str = "there is no such mask") -> Problem:
    """The problem of a missing mask: an image for evaluation is of no use without it."""
    return Problem(draft.id, str(path), text, "error" if "val" in draft.roles else "mask")


def tag_from_rows(
    drafts: Mapping[str, Draft],
    rows: Mapping[str, LabelRow],
    path: Path,
    class_names: Sequence[str],
    problems: list[Problem],
) -> None:
    """Give images the tags of their rows.

    Problems are appended for unknown classes, and for images without a row that are for training or scored.
    """
    for file, draft in drafts.items():
        row = rows.get(file)
        if row is not None:
            try:
                draft.tags = class_indices(row.labels, class_names)
            except LookupError as error:
                problems.append(Problem(draft.id, row.where, str(error)))
        elif {"train", "score"} & set(draft.roles):
            problems.append(Problem(draft.id, str(path), "no row gives the labels of this image"))


def mark_scored(drafts: Iterable[Draft], score: str | None) -> None:
    """Without a score list, every train image that has a mask is scored."""
    if score is None:
        for draft in drafts:
            if "train" in draft.roles and draft.mask is not None:
                draft.roles.append("score")


def wanted_roles(lists: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Roles for which a list is given, and "train"."""
    return tuple(role for role in ROLES if role == "train" or lists.get(role))


def _check_subset(role: str, path: Path, entries: Sequence[Listed], drafts: Mapping[str, Draft]) -> None:
    if role != "score":
        return
    outside = [e for e in entries if e.file not in drafts or not {"train", "val"} & set(drafts[e.file].roles)]
    if outside:
        raise UserError(
            f"{path}: {len(outside)} of {len(entries)} images to score are in no train or val list, "
            f"the first is {outside[0].file} ({outside[0].where.rpartition(', ')[2]})"
        )


def _parts_of_name(file: str) -> list[str]:
    """What a mask's image may be called, the longest first: the file's name, whole and without words at its ends."""
    whole = plain(file.rpartition(".")[0])
    name = whole.rpartition("/")[2]
    places = [match.span() for match in re.finditer(r"[\W_]+", name)]
    parts = [name, *(name[:start] for start, _ in places), *(name[end:] for _, end in places)]
    return [whole, *sorted(filter(None, parts), key=len, reverse=True)]


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name
