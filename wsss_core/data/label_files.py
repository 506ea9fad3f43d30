"""Files of tags, in the shapes that people and programs write them.

The shape is read off the file, never guessed where two would fit:

* a table (CSV; separated by commas, semicolons or tabs) with a column of images and one of labels, an image a row;
* the same with one label a row: the column is called label, class or category, in the singular, and images may stand in
  several rows; a cell is one label, spaces and all;
* a table with a column of images and a column for every class, which holds 0 and 1, or true and false;
* JSON or YAML: a mapping from images to lists of labels, or a list of mappings with an image and its labels;
* ``.npy`` as repositories of this field share it (``cls_labels.npy``): a dictionary from images to a 0 or 1 for every
  class, in the order of a list of names. IRN's has numbers for names, 2007000032 for 2007_000032.

Beside these there are folders that are classes: every image has the name of its folder as its label.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wsss_core.data.arrays import read_arrays
from wsss_core.data.label_text import split_labels
from wsss_core.data.reading import Problem, read_text
from wsss_core.documents import parsed
from wsss_core.errors import UserError

IMAGE = ("image", "images", "filename", "file_name", "file", "filepath", "path", "image_id", "image_name", "img", "id")
LABELS = ("labels", "tags", "classes", "categories", "label_names")
LABEL = ("label", "tag", "class", "category", "class_name", "label_name")
SPLIT = "split"
"""Names of columns, and of keys, in any case; a file with several is read by the one that stands first here."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

YES, NO = ("1", "1.0", "true", "yes", "x"), ("0", "0.0", "false", "no", "")
"""What a cell of a class's column holds, in any case."""

ENDINGS = (".csv", ".tsv", ".txt", ".json", ".yaml", ".yml")
"""Of files of tags that tell their labels themselves."""

EXPECTED = (
    f"a column or key of images ({', '.join(IMAGE[:5])}, …), and either their labels ({', '.join(LABELS[:3])}, …), or "
    f"one label a row ({', '.join(LABEL[:3])}, …), or a column of 0 and 1 for every class"
)


@dataclass(frozen=True)
class LabelRow:
    """One image of a file of tags.

    Attributes
    ----------
    split
        Its cell of the column split; None if there is no such column.
    where
        File and row, for messages.
    """

    image: str
    labels: tuple[str, ...]
    split: str | None
    where: str


@dataclass(frozen=True)
class LabelFile:
    """What a file of tags holds.

    Attributes
    ----------
    rows
        One an image, in the order of the file; images that stand twice in a file with an image a row do so here.
    problems
        Of the rows left out.
    shape
        The shape of the file, in words.
    separator
        What cells of labels were taken apart by; "" where a cell is one label, None where there are no such cells.
    """

    rows: tuple[LabelRow, ...]
    problems: tuple[Problem, ...]
    shape: str
    separator: str | None = None


def read_labels(path: Path, separator: str, names: Sequence[str] | None = None) -> LabelFile:
    """Read a file of tags.

    Parameters
    ----------
    names
        Names of the classes in their order, for files that have only numbers.
    separator
        What separates the labels of one image where they stand in one cell; " " stands for any white space. A cell of
        a column with one label a row is taken apart only by another separator than " ".

    Raises
    ------
    UserError
        If the file cannot be read, or is of none of the shapes.

    Examples
    --------
    >>> _ = Path("one-hot.tsv").write_text("filename\\tcow\\tcar\\na.jpg\\t1\\t0\\nb.jpg\\t0\\t0\\n")
    >>> found = read_labels(Path("one-hot.tsv"), " ")
    >>> found.shape
    'a column of 0 and 1 for each of 2 classes, separated by tabs'
    >>> [(row.image, row.labels) for row in found.rows]
    [('a.jpg', ('cow',)), ('b.jpg', ())]
    """
    if path.suffix.lower() == ".npy":
        return _read_vectors(path, names)
    text = read_text(path)
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        return _read_mapping(path, text, separator)
    return _read_table(path, text, separator)


def rows_of_folders(files: Collection[str], folder: Path) -> list[LabelRow]:
    """A row for every image, by the folder that it lies in: its label. Images in no folder hold no class.

    Examples
    --------
    >>> [(row.image, row.labels) for row in rows_of_folders(["train/cow/a.jpg", "b.jpg"], Path("photos"))]
    [('b.jpg', ()), ('train/cow/a.jpg', ('cow',))]
    """
    return [LabelRow(file, tuple(_whole(Path(file).parent.name)), None, str(folder)) for file in sorted(files)]


def _read_table(path: Path, text: str, separator: str) -> LabelFile:
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=lambda mark: (first.count(mark), mark == ","))
    header, cells = _cells(path, text, delimiter)
    image, labels = _column(header, IMAGE, path), _column(header, (*LABELS, *LABEL), path)
    split = _column(header, (SPLIT,), path)
    if image is None:
        raise UserError(f"{path}: found the columns {', '.join(header) or 'nothing'}; expected are {EXPECTED}")
    if labels is not None:
        single = header[labels].lower() in LABEL
        words = "one label a row" if single else "an image and its labels a row"
        rows, problems = [], []
        apart = "" if single and separator == " " else separator
        for where, row in cells:
            problem = _wrong_row(row, header, image, labels, where, separator)
            if problem is None:
                names = tuple(split_labels(row[labels], apart)) if apart else _whole(row[labels])
                rows.append(LabelRow(row[image].strip(), names, _cell(row, split), where))
            else:
                problems.append(problem)
        found = _merged(rows) if single else rows
        shape = f"{words}, in the columns {header[image]} and {header[labels]}"
    else:
        classes = {place: name for place, name in enumerate(header) if place not in (image, split) and name}
        found, problems = _one_hot(path, cells, header, image, split, classes)
        shape, apart = f"a column of 0 and 1 for each of {len(classes)} classes", None
    return LabelFile(tuple(found), tuple(problems), f"{shape}, separated by {DELIMITERS[delimiter]}", apart)


def _cells(path: Path, text: str, delimiter: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The first line's cells, and of each other line that holds anything its place and its cells.

    Raises
    ------
    UserError
        If a line is no line of a table, or a row goes over several: a quote that is never closed, or by that of another
        row, makes one cell of all the rows in between.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found, line = [], 0
    try:
        for row in reader:
            if reader.line_num > line + 1:
                raise UserError(
                    f"{path}: the row that begins in line {line + 1} ends in line {reader.line_num}, so a quote in it "
                    "is one too many or too few; a cell may not hold an end of a line"
                )
            line = reader.line_num
            found.append((f"{path}, row {line}", row))
    except csv.Error as error:
        raise UserError(
            f"{path}: line {line + 1} is no line of a table ({error}); is a quote missing in it?"
        ) from error
    header = [name.strip() for name in found[0][1]] if found else []
    return header, [(where, row) for where, row in found[1:] if any(cell.strip() for cell in row)]


def _column(header: Sequence[str], names: Sequence[str], path: Path) -> int | None:
    """Place of the column that has the first of some names; None if there is none.

    Raises
    ------
    UserError
        If two columns have it.
    """
    folded = [name.lower() for name in header]
    name = next((name for name in names if name in folded), None)
    if name is None:
        return None
    if folded.count(name) > 1:
        raise UserError(f"{path}: its first line names the column {name} twice")
    return folded.index(name)


def _wrong_row(
    row: Sequence[str], header: Sequence[str], image: int, labels: int, where: str, separator: str
) -> Problem | None:
    """Why a row of an image and its labels cannot be read."""
    name = row[image].strip() if image < len(row) else ""
    more = [cell for cell in row[len(header) :] if cell.strip()]
    if not name:
        return Problem("", where, "the row names no image", "row")
    if labels >= len(row):
        return Problem(name, where, "the row has too few columns")
    if quoted := next((cell for cell in (name, row[labels]) if '"' in cell), None):
        return Problem(name, where, f"a quote stands within {quoted!r}; write the cell in quotes, or without any")
    if not more:
        return None
    shown = "white space" if separator == " " else repr(separator)
    text = f"the row has more cells than the first line has columns ({', '.join(map(repr, more))} is left over); "
    return Problem(name, where, f"{text}write all labels in one cell, separated by {shown}")


def _one_hot(
    path: Path,
    cells: Sequence[tuple[str, Sequence[str]]],
    header: Sequence[str],
    image: int,
    split: int | None,
    classes: Mapping[int, str],
) -> tuple[list[LabelRow], list[Problem]]:
    """Rows of a table with a column a class.

    Raises
    ------
    UserError
        If the columns hold anything but yes and no, so that the table has no labels.
    """
    columns = list(classes.values())
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise UserError(f"{path}: its first line names the column {twice} twice")
    odd = next(
        (
            (name, row[place].strip())
            for _, row in cells
            for place, name in classes.items()
            if place < len(row) and row[place].strip().lower() not in (*YES, *NO)
        ),
        None,
    )
    if odd is not None or not classes:
        shown = f" ({odd[0]} holds {odd[1]!r})" if odd else ""
        raise UserError(f"{path}: found the columns {', '.join(header)}{shown}; expected are {EXPECTED}")
    rows, problems = [], []
    for where, row in cells:
        name = row[image].strip() if image < len(row) else ""
        if not name:
            problems.append(Problem("", where, "the row names no image", "row"))
        elif len(row) != len(header):
            problems.append(Problem(name, where, f"the row has {len(row)} cells, the first line {len(header)}"))
        else:
            names = tuple(name for place, name in classes.items() if row[place].strip().lower() in YES)
            rows.append(LabelRow(name, names, _cell(row, split), where))
    return rows, problems


def _read_mapping(path: Path, text: str, separator: str) -> LabelFile:
    """A file of JSON or YAML."""
    try:
        content, twice = parsed(text, str(path))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0] if str(error) else error!r})") from None
    if twice:
        raise UserError(f"{path}: {twice[0]} stands twice; write all labels of an image in one list")
    rows, problems = [], []
    pairs = _pairs_of_list(path, content) if isinstance(content, list) else _pairs_of_mapping(path, content)
    for image, given, split, where in pairs:
        names = _names(given, separator)
        if names is None:
            problems.append(Problem(image, where, f"its labels are no text and no list of texts: {given!r:.60}"))
        else:
            rows.append(LabelRow(image, names, split, where))
    kind = "a list of images with their labels" if isinstance(content, list) else "images mapped to their labels"
    return LabelFile(tuple(rows), tuple(problems), kind)


def _read_vectors(path: Path, names: Sequence[str] | None) -> LabelFile:
    """Rows of a dictionary from images to a number for every class."""
    held = read_arrays(path)
    if not isinstance(held, dict) or not held:
        raise UserError(f"{path}: is no dictionary from images to their classes")
    if not names:
        raise UserError(f"{path}: holds no names of classes; list them in the order of its numbers (dataset.classes)")
    rows = []
    for key, given in held.items():
        vector = np.asarray(given)
        image = f"{key // 10**6}_{key % 10**6:06d}" if isinstance(key, (int, np.integer)) else str(key)
        if vector.dtype.kind not in "fiub" or not np.isin(vector, (0, 1)).all():
            raise UserError(f"{path}: {image} has {vector.dtype} {vector.shape}, expected a 0 or 1 for every class")
        if vector.shape != (len(names),):
            raise UserError(f"{path}: {image} has numbers of shape {vector.shape}, there are {len(names)} classes")
        labels = tuple(name for name, present in zip(names, vector.tolist(), strict=True) if present)
        rows.append(LabelRow(image, labels, None, str(path)))
    return LabelFile(tuple(rows), (), f"a dictionary from images to a 0 or 1 for each of {len(names)} classes")


def _pairs_of_mapping(path: Path, content: Any) -> Iterator[tuple[str, Any, str | None, str]]:
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: is neither a mapping from images to labels nor a list of images with their labels")
    for image, given in content.items():
        yield str(image), given, None, f"{path}, {image}"


def _pairs_of_list(path: Path, content: Sequence[Any]) -> Iterator[tuple[str, Any, str | None, str]]:
    for number, entry in enumerate(content):
        where = f"{path}, entry {number + 1}"
        keys = {str(key).lower(): key for key in entry} if isinstance(entry, dict) else {}
        image = next((keys[name] for name in IMAGE if name in keys), None)
        labels = next((keys[name] for name in (*LABELS, *LABEL) if name in keys), None)
        if image is None or labels is None:
            raise UserError(f"{where}: has no image or no labels; expected are {EXPECTED}")
        split = str(entry[keys[SPLIT]]) if SPLIT in keys else None
        yield str(entry[image]), entry[labels], split, where


def _names(given: Any, separator: str) -> tuple[str, ...] | None:
    """Labels as they stand in JSON or YAML; None if they are neither text nor a list of texts."""
    if given is None:
        return ()
    if isinstance(given, str):
        return tuple(split_labels(given, separator))
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return tuple(name.strip() for name in given if name.strip())
    return None


def _merged(rows: Sequence[LabelRow]) -> list[LabelRow]:
    """One row an image, with the labels of all its rows, each once; the place and split are those of the first."""
    found: dict[str, LabelRow] = {}
    for row in rows:
        before = found.get(row.image)
        labels = (*before.labels, *row.labels) if before else row.labels
        split, where = (before.split, before.where) if before else (row.split, row.where)
        found[row.image] = LabelRow(row.image, tuple(dict.fromkeys(labels)), split, where)
    return list(found.values())


def _whole(cell: str) -> tuple[str, ...]:
    return (cell.strip(),) if cell.strip() else ()


def _cell(row: Sequence[str], place: int | None) -> str | None:
    if place is None:
        return None
    return row[place].strip() if place < len(row) else ""
