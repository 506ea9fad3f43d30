"""Compare two result folders of the same configuration and say what differs.

"python -m tests.compare_runs BEFORE AFTER" shows whether a change of the code changed results. Files are compared by
what they mean, not by their bytes, because a store's fingerprints and a step's digests change with every line of code:

* pictures (.png, .jpg): pixels, which are the labels of a mask
* records (.h5): datasets and attributes of every image, but for the fingerprint and what the file says of its settings
* checkpoints (.pt): kind and weights; other meta data is only noted, and that on settings and versions is not read
* tables (.csv): cells by row and column, but for the costs and the digest of settings in results.csv; comment lines
  above a table are only noted
* JSON (.json): values
* anything else: bytes

A folder X of label pictures before the change may be one file X.h5 of records of kind "labels" after it. Left out are
logs/, benchmarks/, config/, made/, hidden files and folders (such as .state/), *.html and *.svg.

The exit status is 0 if the runs are equal, 1 if something differs, and 2 for misuse.
"""

from __future__ import annotations

import argparse
import csv
import filecmp
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from wsss_core.errors import UserError
from wsss_core.store.checkpoints import read_checkpoint
from wsss_core.store.masks import mask_name

LEFT_OUT_FOLDERS = ("logs", "benchmarks", "config", "made")
LEFT_OUT_SUFFIXES = (".html", ".svg")
LEFT_OUT_COLUMNS = {"results.csv": ("seconds", "memory_mb", "settings")}
LEFT_OUT_META = ("settings", "versions")

ONLY_BEFORE, ONLY_AFTER = "only before", "only after"

MISSING = object()
"""Stands for a value that only the other file has."""


@dataclass(frozen=True)
class Content:
    """What a file says.

    Attributes
    ----------
    values
        Path of names (such as image id, dataset), empty for the whole file, to a number, a text or an array.
    unit
        What the elements of the values are called.
    part
        What the first of a value's names stands for; "" where nobody counts these.
    holds
        What the values are of; those of different things are not compared.
    header
        What is said about the values, told apart from them.
    """

    values: Mapping[tuple[str, ...], Any]
    unit: str
    part: str = ""
    holds: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A file before and after.

    Attributes
    ----------
    path
        Below the folder of the run, as it is called after the change.
    kind
        "pictures", "records" and so on.
    difference
        What differs, in words; "" if the file is the same.
    largest
        Largest difference of two numbers; infinite beside NaN, 0 if no numbers differ.
    notes
        Differences that do not count.
    """

    path: str
    kind: str
    difference: str = ""
    largest: float = 0.0
    notes: tuple[str, ...] = ()


def read_picture(path: Path) -> Content:
    """Pixels of a picture: palette indices [H, W], or colours [H, W, 3]."""
    with Image.open(path) as image:
        return Content({(): np.asarray(image)}, "pixels")


def read_records(path: Path) -> Content:
    """Datasets and attributes of a shard's records, by image id."""
    values: dict[tuple[str, ...], Any] = {}
    with h5py.File(path, "r") as file:
        for group in file.values():
            image_id = str(group.attrs["id"])
            values |= {(image_id, name): np.asarray(dataset[()]) for name, dataset in group.items()}
            for name, value in group.attrs.items():
                if name == "statistics":
                    values |= flat(json.loads(value), (image_id, name))
                elif name not in ("id", "fingerprint"):
                    values[image_id, name] = value if isinstance(value, str) else np.asarray(value)
        return Content(values, "numbers", "records", holds=str(file.attrs["kind"]))


def read_weights(path: Path) -> Content:
    """Tensors of a checkpoint by name, with its meta data as header."""
    content = read_checkpoint(path)
    values = {(name,): tensor.numpy() for name, tensor in content["state"].items()}
    meta = {f"meta {key}": value for key, value in content["meta"].items() if key not in LEFT_OUT_META}
    return Content(values, "numbers", "tensors", holds=content["kind"], header=meta)


def read_cells(path: Path) -> Content:
    """Cells of a table by row, counted from 1 below the column names, and column."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
    header = {key: value for key, _, value in (line[2:].partition(": ") for line in head)}
    columns, *rows = list(csv.reader(lines[len(head) :])) or [[]]
    left_out = LEFT_OUT_COLUMNS.get(path.name, ())
    values: dict[tuple[str, ...], Any] = {("columns", name): name for name in columns if name not in left_out}
    for number, row in enumerate(rows, 1):
        for column, text in itertools.zip_longest(columns, row, fillvalue=""):
            if column not in left_out:
                values[f"row {number}", column] = cell(text)
    return Content(values, "cells", header=header)


def read_json(path: Path) -> Content:
    """Numbers and texts of a JSON file by their place in it."""
    return Content(flat(json.loads(path.read_text(encoding="utf-8"))), "values")


def read_bytes(path: Path) -> Content:
    """Bytes of any file."""
    return Content({(): np.frombuffer(path.read_bytes(), np.uint8)}, "bytes")


def read_label_pictures(folder: Path) -> Content:
    """Labels [H, W] of a folder of masks, by their file names."""
    paths = sorted(folder.glob("*.png"))
    return Content({(path.name, "labels"): read_picture(path).values[()] for path in paths}, "pixels", "images")


def read_label_records(path: Path) -> Content:
    """What `read_label_pictures` would read had the records of kind "labels" been written as masks."""
    with h5py.File(path, "r") as file:
        if file.attrs["kind"] != "labels":
            raise ValueError(f"holds {file.attrs['kind']}, not labels as the pictures before")
        labels = {(mask_name(group.attrs["id"]), "labels"): group["labels"][()] for group in file.values()}
    return Content(labels, "pixels", "images")


READERS: Mapping[str, tuple[str, Callable[[Path], Content]]] = {
    ".png": ("pictures", read_picture),
    ".jpg": ("pictures", read_picture),
    ".h5": ("records", read_records),
    ".pt": ("checkpoints", read_weights),
    ".csv": ("tables", read_cells),
    ".json": ("JSON", read_json),
}
"""Suffix to the kind of file and its reader."""

OTHER = ("other", read_bytes)


def flat(value: Any, names: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The leaves of nested lists and objects by the names on the way to them.

    Examples
    --------
    >>> flat({"rule": "fixed", "levels": [0.1, 0.2], "more": []})
    {('rule',): 'fixed', ('levels', '0'): 0.1, ('levels', '1'): 0.2, ('more',): []}
    """
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    leaves = {}
    for name, child in children:
        leaves |= flat(child, (*names, str(name)))
    return leaves or {names: value}


def cell(text: str) -> int | float | str:
    """The number that a table's cell holds, or its text; an id such as 0007 is no number.

    Examples
    --------
    >>> cell("0.50"), cell("12"), cell("0007"), cell("nan"), cell("")
    (0.5, 12, '0007', 'nan', '')
    """
    try:
        number = json.loads(text)
    except ValueError:
        return text
    return number if _is_number(number) and math.isfinite(number) else text


def compare_runs(
    before: Path,
    after: Path,
    renames: Sequence[tuple[str, str]] = (),
    tolerance: float = 0.0,
    headers: bool = False,
) -> list[Comparison]:
    """Compare every file of two runs, in order of their paths.

    Parameters
    ----------
    before, after
        Folders of the runs, such as ``results/demo``.
    renames
        Pairs of what to replace in the paths before, relative to the run's folder, and by what.
    tolerance
        Floating-point numbers at most so far apart are equal.
    headers
        Whether comment lines above tables count.

    Raises
    ------
    UserError
        If a folder is missing, there is nothing to compare, or `renames` give two files one path.
    """
    old, new = _rename_paths(run_files(before), renames), run_files(after)
    if not old and not new:
        raise UserError(f"{before} and {after}: hold nothing to compare")
    comparisons = [compare_files(path, old[path], new[path], tolerance, headers) for path in old.keys() & new.keys()]
    removed, added = old.keys() - new.keys(), new.keys() - old.keys()
    for path in sorted(added):
        pictures = {name for name in removed if name.endswith(".png") and f"{Path(name).parent.as_posix()}.h5" == path}
        if pictures:
            comparisons.append(compare_labels(path, old[min(pictures)].parent, new[path]))
            removed, added = removed - pictures, added - {path}
    comparisons += [Comparison(path, _kind(path), ONLY_BEFORE) for path in removed]
    comparisons += [Comparison(path, _kind(path), ONLY_AFTER) for path in added]
    return sorted(comparisons, key=lambda comparison: comparison.path)


def run_files(run: Path) -> dict[str, Path]:
    """The files of a run that are compared, by their path below its folder."""
    if not run.is_dir():
        raise UserError(f"{run}: there is no such folder")
    paths = {path.relative_to(run): path for path in run.rglob("*") if path.is_file()}
    return {name.as_posix(): path for name, path in paths.items() if not _left_out(name)}


def compare_files(path: str, before: Path, after: Path, tolerance: float = 0.0, headers: bool = False) -> Comparison:
    """Compare two files of the same kind, called `path` in what is reported; parameters as for `compare_runs`."""
    if filecmp.cmp(before, after, shallow=False):
        return Comparison(path, _kind(path))
    _, read = READERS.get(after.suffix, OTHER)
    return _compare_contents(
        path, partial(read, before), partial(read, after), tolerance, headers and after.suffix == ".csv"
    )


def compare_labels(path: str, before: Path, after: Path) -> Comparison:
    """Compare a folder of label pictures with a file of records of kind "labels"."""
    return _compare_contents(path, partial(read_label_pictures, before), partial(read_label_records, after))


def _compare_contents(
    path: str,
    read_before: Callable[[], Content],
    read_after: Callable[[], Content],
    tolerance: float = 0.0,
    headers: bool = False,
) -> Comparison:
    try:
        before, after = read_before(), read_after()
    except (OSError, ValueError, KeyError, SyntaxError, UserError) as error:
        return Comparison(path, _kind(path), f"cannot be compared ({error})")
    if before.holds != after.holds:
        return Comparison(path, _kind(path), f"holds {before.holds} before, {after.holds} after")
    statements = _paired(before.header, after.header)
    notes = tuple(f"{name}: {_change(old, new)}" for name, old, new in statements if old != new)
    difference, largest = _difference(before, after, tolerance)
    if headers and notes:
        difference, notes = "; ".join(filter(None, (difference, *notes))), ()
    return Comparison(path, _kind(path), difference, largest, notes)


def _difference(before: Content, after: Content, tolerance: float) -> tuple[str, float]:
    """What differs, in words, and the largest difference."""
    differing = total = 0
    largest, first = 0.0, ""
    parts: dict[tuple[str, ...], bool] = {}  # whether anything differs in it
    for names, old, new in _paired(before.values, after.values):
        count, distance = apart(old, new, tolerance)
        differing, total, largest = differing + count, total + max(_size(old), _size(new)), max(largest, distance)
        parts[names[:1]] = parts.get(names[:1], False) or count > 0
        if count and not first:
            first = ": ".join(filter(None, (" ".join(names), _change(old, new))))
    if not differing:
        return "", 0.0
    size = f", by up to {largest:.6g}" if largest else ""
    where = f", in {sum(parts.values())} of {len(parts)} {before.part}" if before.part else ""
    example = f" ({first})" if first else ""
    return f"{differing} of {total} {before.unit} differ{size}{where}{example}", largest


def apart(before: Any, after: Any, tolerance: float = 0.0) -> tuple[int, float]:
    """How many elements of two values differ, and the largest difference of two numbers.

    NaN equals NaN. Arrays of another type or shape differ everywhere, by no distance.

    Examples
    --------
    >>> apart(np.array([1.0, np.nan, 3.0]), np.array([1.5, np.nan, 3.0]))
    (1, 0.5)
    >>> apart(0.25, 0.5, tolerance=0.25), apart(1, 2, tolerance=9.0), apart("a", "b"), apart("a", None)
    ((0, 0.0), (1, 1.0), (1, 0.0), (1, 0.0))
    """
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        if before.dtype != after.dtype or before.shape != after.shape:
            return max(_size(before), _size(after)), 0.0
    elif _is_number(before) and _is_number(after):
        before, after = np.asarray(before), np.asarray(after)
    else:
        return (0, 0.0) if type(before) is type(after) and before == after else (max(_size(before), _size(after)), 0.0)
    same = (before == after) | ((before != before) & (after != after))
    if same.all():
        return 0, 0.0
    if not {before.dtype.kind, after.dtype.kind} <= set("biuf"):  # texts, and integers beyond 64 bits
        return int(np.sum(~same)), 0.0
    with np.errstate(invalid="ignore"):
        distance = np.abs(before.astype(np.float64) - after.astype(np.float64))
    if "f" in before.dtype.kind + after.dtype.kind:
        same = same | (distance <= tolerance)
    return int(np.sum(~same)), float(np.max(np.nan_to_num(distance, nan=np.inf, posinf=np.inf)[~same], initial=0.0))


def _paired(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Every name of either with its values, in order of appearance."""
    for name in {**before, **after}:
        yield name, before.get(name, MISSING), after.get(name, MISSING)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _size(value: Any) -> int:
    """Number of elements; an empty array counts as one."""
    return max(value.size, 1) if isinstance(value, np.ndarray) else int(value is not MISSING)


def _change(before: Any, after: Any) -> str:
    """Both values in words, or "" where these do not tell them apart."""
    old, new = _words(before), _words(after)
    return f"{old} -> {new}" if old != new else ""


def _words(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}" if value.size > 8 else f"{value.dtype} {value.tolist()}"
    return "nothing" if value is MISSING else repr(value)


def _kind(path: str) -> str:
    return READERS.get(Path(path).suffix, OTHER)[0]


def _left_out(name: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return hidden or name.parts[0] in LEFT_OUT_FOLDERS or name.suffix in LEFT_OUT_SUFFIXES


def _rename_paths(files: Mapping[str, Path], renames: Sequence[tuple[str, str]]) -> dict[str, Path]:
    renamed: dict[str, Path] = {}
    for name, path in files.items():
        for old, new in renames:
            name = name.replace(old, new)
        if name in renamed:
            raise UserError(f"{path} and {renamed[name]}: both are renamed to {name}")
        renamed[name] = path
    return renamed


def report_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """A line for every file that differs and for every note, then one for every kind of file."""
    lines = []
    for comparison in comparisons:
        if comparison.difference:
            lines.append(f"{comparison.path}: {comparison.difference}")
        lines += [f"{comparison.path}: note, does not count: {note}" for note in comparison.notes]
    for kind in sorted({comparison.kind for comparison in comparisons}):
        of_kind = [comparison for comparison in comparisons if comparison.kind == kind]
        alone = [sum(c.difference == which for c in of_kind) for which in (ONLY_BEFORE, ONLY_AFTER)]
        differing = sum(bool(c.difference) for c in of_kind) - sum(alone)
        largest = max(c.largest for c in of_kind)
        lines.append(
            f"{kind}: {len(of_kind) - sum(alone)} files compared, {differing} differ"
            + (f" by up to {largest:.6g}" if largest else "")
            + f"; {alone[0]} {ONLY_BEFORE}, {alone[1]} {ONLY_AFTER}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if the runs are equal, 1 if not, 2 for misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.compare_runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, metavar="BEFORE", help="folder of a run before the change")
    parser.add_argument("after", type=Path, metavar="AFTER", help="folder of the same run after it")
    parser.add_argument(
        "--rename",
        type=_rename,
        nargs="+",
        action="extend",
        default=[],
        metavar="OLD=NEW",
        help="replace OLD in the paths before by NEW, in the order given; OLD ends at the first =",
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="floating-point numbers at most so far apart are equal (default 0)"
    )
    parser.add_argument("--headers", action="store_true", help="let the comment lines above tables count")
    options = parser.parse_args(arguments)
    if not options.tolerance >= 0:
        parser.error("--tolerance must be 0 or more")
    try:
        comparisons = compare_runs(options.before, options.after, options.rename, options.tolerance, options.headers)
    except UserError as error:
        parser.error(str(error))
    print(*report_lines(comparisons), sep="\n")
    return int(any(comparison.difference for comparison in comparisons))


def _rename(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not old or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW")
    return old, new


if __name__ == "__main__":
    sys.exit(main())
