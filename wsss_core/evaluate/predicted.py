"""The class that a classifier takes each image for, as a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsss_core.errors import UserError
from wsss_core.store.atomic import atomic_path
from wsss_core.store.cells import cell, name_of

COLUMNS = ["image", "class"]


def write_predicted(path: Path, guesses: Mapping[str, int], class_names: Sequence[str]) -> None:
    """Write the class, 0-based, of every image id."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows([cell(image), cell(class_names[c])] for image, c in guesses.items())


def read_predicted(path: Path, class_names: Sequence[str]) -> dict[str, int]:
    """Image id to its class, 0-based.

    Raises
    ------
    UserError
        If the file is missing, is no such table, or names other classes.
    """
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
        if not rows or rows[0] != COLUMNS:
            raise ValueError(f"columns {','.join(COLUMNS)} are needed")
        return {name_of(image): list(class_names).index(name_of(name)) for image, name in rows[1:]}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not a table of predicted classes of these images ({error})") from error
