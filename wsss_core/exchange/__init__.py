"""Labels in the forms of other programs: a file a form, named in `wsss_core.registry.FORMS` and `SOFT_FORMS`.

Every form has `write(folder, images, class_names)`, which puts the label masks of some images into a folder. Undecided
pixels (255) are part of no annotation where a form has annotations, and keep their value where it has pixels. No file
that is there already is replaced but by the same bytes: what somebody has corrected is theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.store.atomic import write_text


@dataclass(frozen=True)
class Labelled:
    """A photo and its labels.

    Attributes
    ----------
    name
        What other programs know the photo by: its file's name, with sub-folders where two would be called alike.
    stem
        What a file of its own is called, without an ending: the name without its own, if that is told from all others.
    photo
        Its file.
    labels
        uint8 [H, W]: 0 background, c + 1 class c, 255 undecided.
    """

    name: str
    stem: str
    photo: Path
    labels: np.ndarray

    @property
    def present(self) -> list[int]:
        """The classes that have a pixel, 0-based."""
        return [int(label) - 1 for label in np.unique(self.labels) if label not in (0, IGNORE)]


class Form(Protocol):
    """A module that writes label masks in the form of another program."""

    def write(self, folder: Path, images: Iterable[Labelled], class_names: Sequence[str], /) -> None:
        """Write the labels of some images into a folder."""
        ...


@dataclass(frozen=True)
class SoftMaps:
    """Class maps of a photo.

    Attributes
    ----------
    stem
        As `Labelled` has it.
    classes
        Names of the K present classes.
    values
        uint8 [K, H, W], in units of 1/255.
    """

    stem: str
    classes: Sequence[str]
    values: np.ndarray


class SoftForm(Protocol):
    """A module that writes class maps in the form of another program."""

    def write(self, folder: Path, maps: SoftMaps, /) -> None:
        """Write the maps of one photo into a folder."""
        ...


def photo_names(records: Sequence[ImageRecord]) -> dict[str, tuple[str, str]]:
    """Image id to name and stem of its photo, as `Labelled` has them; no two are the same.

    Examples
    --------
    >>> records = [ImageRecord(k, path, 4, 4, (), ()) for k, path in (("a", "p/x.jpg"), ("b", "p/q/y.jpg"))]
    >>> photo_names(records)
    {'a': ('x.jpg', 'x'), 'b': ('y.jpg', 'y')}
    >>> photo_names([*records, ImageRecord("c", "p/y.png", 4, 4, (), ())])
    {'a': ('x.jpg', 'x'), 'b': ('q/y.jpg', 'q/y'), 'c': ('y.png', 'y')}
    """
    names = [os.path.basename(record.path) for record in records]
    if _alike(_stems(names)):
        paths = [os.path.abspath(record.path) for record in records]
        top = os.path.commonpath([os.path.dirname(path) for path in paths])
        names = [Path(os.path.relpath(path, top)).as_posix() for path in paths]
    stems = names if _alike(_stems(names)) else _stems(names)  # whole, where a.jpg lies beside a.png
    return {record.id: (name, stem) for record, name, stem in zip(records, names, stems, strict=True)}


def _stems(names: Sequence[str]) -> list[str]:
    return [os.path.splitext(name)[0] for name in names]


def _alike(names: Sequence[str]) -> bool:
    """Whether some file systems would take two of the names for one."""
    return len({name.casefold() for name in names}) < len(names)


def pieces(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The connected pieces of each class of an image: the class, 0-based, and the mask of the piece, bool [H, W].

    Pixels hang together by their sides.

    Examples
    --------
    >>> [(c, int(mask.sum())) for c, mask in pieces(np.array([[2, 2, 0], [0, 0, 2], [1, 255, 2]], np.uint8))]
    [(0, 1), (1, 2), (1, 2)]
    """
    import cv2

    for label in np.unique(labels):
        if label not in (0, IGNORE):
            count, numbers = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)
            yield from ((int(label) - 1, numbers == number) for number in range(1, count))


def write_names(folder: Path, class_names: Sequence[str]) -> None:
    """Write ``classes.txt``: the name of every label in the order of its number, background first."""
    write_new(folder / "classes.txt", "\n".join(["background", *class_names]) + "\n")


def write_new(path: Path, text: str) -> None:
    """Write a text file where there is none, or the same.

    Raises
    ------
    UserError
        If there is a file of another content.

    Examples
    --------
    >>> write_new(Path("classes.txt"), "cow\\n")
    >>> write_new(Path("classes.txt"), "cow\\n")
    >>> write_new(Path("classes.txt"), "cat\\n")
    Traceback (most recent call last):
    ...
    wsss_core.errors.UserError: classes.txt: is there already, with another content; move it, or write elsewhere
    """
    if os.path.lexists(path):
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise UserError(f"{path}: is there already, with another content; move it, or write elsewhere")
    write_text(path, text)
