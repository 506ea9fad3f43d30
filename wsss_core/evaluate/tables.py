"""Evaluation tables: CSV with comment lines that say what the scores are."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_core.constants import BACKGROUND, MEAN_ROW
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import Metrics
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.store.atomic import atomic_path
from wsss_core.store.cells import cell, name_of

COLUMNS = ("class", "iou", "precision", "recall", "f1", "pixels")
CURVE_COLUMNS = ("threshold", "miou", "precision", "recall", "f1")


@dataclass(frozen=True)
class Evaluation:
    """An evaluation table as read.

    Attributes
    ----------
    header
        What the scores are, from the comment lines.
    rows
        Class name (or "mean", the last) to its scores by column; NaN where undefined. Empty if there was no mask
        to score.
    """

    header: ScoreHeader
    rows: Mapping[str, Mapping[str, float]]


def write_evaluation(path: Path, header: ScoreHeader, labels: Sequence[str], scores: Metrics | None) -> None:
    """Write the table of one confusion matrix: a row a label, then the row ``mean``.

    Parameters
    ----------
    header
        Written as comment lines.
    labels
        Names of the labels, background first.
    scores
        Fractions in [0, 1] (not percent), undefined ones are left empty; None writes the header alone.
    """
    rows = []
    if scores is not None:
        for index, label in enumerate(labels):
            values = [getattr(scores, column)[index] for column in COLUMNS[1:5]]
            rows.append([cell(label), *map(_number, values), int(scores.pixels[index])])
        means = [float(scores.mean(column)) for column in COLUMNS[1:5]]
        rows.append([MEAN_ROW, *map(_number, means), int(scores.pixels.sum())])
    _write(path, header, COLUMNS, rows)


def write_domains(path: Path, header: ScoreHeader, labels: Sequence[str], scores: Mapping[str, Metrics]) -> None:
    """Write the table of `write_evaluation` for each data set of several, in a first column `domain`; of one data set
    the header alone.

    Parameters
    ----------
    scores
        Name of the data set to the scores of its images.
    """
    rows = []
    for domain, one in scores.items():
        for index, label in enumerate(labels):
            values = [getattr(one, column)[index] for column in COLUMNS[1:5]]
            rows.append([cell(domain), cell(label), *map(_number, values), int(one.pixels[index])])
        means = [float(one.mean(column)) for column in COLUMNS[1:5]]
        rows.append([cell(domain), MEAN_ROW, *map(_number, means), int(one.pixels.sum())])
    _write(path, header, ("domain", *COLUMNS), rows)


def read_rows_of_domains(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Name of each data set to the rows of its table, as `Evaluation.rows`; {} where there was one data set alone.

    Raises
    ------
    UserError
        If the file is missing or of another kind.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: scores by data set cannot be read ({error})") from error
    table = list(csv.reader(line for line in lines if not line.startswith("# ")))
    if not table or table[0] != ["domain", *COLUMNS]:
        raise UserError(f"{path}: is not a table of scores by data set (columns domain,{','.join(COLUMNS)})")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for domain, name, *values in table[1:]:
        numbers = [float(value) if value else float("nan") for value in values]
        found.setdefault(name_of(domain), {})[name_of(name)] = dict(zip(COLUMNS[1:], numbers, strict=True))
    return found


def write_rows(
    path: Path, header: ScoreHeader, columns: Sequence[str], rows: Mapping[str, Mapping[str, float]]
) -> None:
    """Write a table of other scores by class, such as those of objects.

    Parameters
    ----------
    header
        Written as comment lines.
    columns
        Beside the class.
    rows
        Name of a class, or "mean", to its values by column; undefined ones (NaN) are left empty. Without any, the
        header is written alone.
    """
    cells = [[cell(name), *(_cell(row[column]) for column in columns)] for name, row in rows.items()]
    _write(path, header, ("class", *columns), cells)


def read_evaluation(path: Path, columns: Sequence[str] = COLUMNS[1:]) -> Evaluation:
    """Read a table written by `write_evaluation`, or one of other columns by `write_rows`.

    Raises
    ------
    UserError
        If the file is missing, has other columns, or its comment lines are not a header of scores.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        head = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
        table = list(csv.reader(lines[len(head) :]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: evaluation cannot be read ({error})") from error
    if not table or table[0] != ["class", *columns]:
        raise UserError(f"{path}: is not an evaluation table (columns {','.join(('class', *columns))})")
    try:
        header = ScoreHeader.read(head)
        rows = {
            name_of(row[0]): {c: float(v or "nan") for c, v in zip(columns, row[1:], strict=True)} for row in table[1:]
        }
        if len(rows) != len(table) - 1:
            raise ValueError("a class stands twice")
    except (UserError, ValueError, IndexError) as error:
        raise UserError(f"{path}: {error}; make it again") from error
    return Evaluation(header, rows)


def write_curve(path: Path, header: ScoreHeader, thresholds: Sequence[float], scores: Metrics | None) -> None:
    """Write the mean scores of every threshold; None writes the header alone."""
    rows = []
    if scores is not None:
        means = [scores.mean(name) for name in COLUMNS[1:5]]
        rows = [[f"{t:.10g}", *map(_number, values)] for t, *values in zip(thresholds, *means, strict=True)]
    _write(path, header, CURVE_COLUMNS, rows)


def label_names(class_names: Sequence[str]) -> list[str]:
    """Names of the labels: background, then the foreground classes."""
    return [BACKGROUND, *class_names]


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else _number(value)


def _write(path: Path, header: ScoreHeader, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    text = io.StringIO()
    text.writelines(f"{line}\n" for line in header.lines())
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
