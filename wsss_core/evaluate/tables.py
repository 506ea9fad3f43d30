"""Evaluation tables: CSV with comment lines that say what the scores are."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import Metrics
from wsss_core.store.atomic import atomic_path

COLUMNS = ("class", "iou", "precision", "recall", "f1", "pixels")
CURVE_COLUMNS = ("threshold", "miou", "precision", "recall", "f1")
NOTHING_TO_SCORE = "no masks to score"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation table as read.

    Attributes
    ----------
    header
        What the scores are, from the comment lines ``# key: value``.
    rows
        Class name (or "mean", the last) to its scores by column; NaN where undefined. Empty if there was no mask
        to score.
    """

    header: Mapping[str, str]
    rows: Mapping[str, Mapping[str, float]]


def write_evaluation(path: Path, header: Mapping[str, str], labels: Sequence[str], scores: Metrics | None) -> None:
    """Write the table of one confusion matrix: a row a label, then the row ``mean``.

    Parameters
    ----------
    header
        Written as comment lines ``# key: value``.
    labels
        Names of the labels, background first.
    scores
        Fractions in [0, 1] (not percent), undefined ones are left empty; None writes the header alone, with the
        line "no masks to score".
    """
    rows = []
    if scores is not None:
        for index, label in enumerate(labels):
            values = [getattr(scores, column)[index] for column in COLUMNS[1:5]]
            rows.append([label, *map(_number, values), int(scores.pixels[index])])
        means = [float(scores.mean(column)) for column in COLUMNS[1:5]]
        rows.append(["mean", *map(_number, means), int(scores.pixels.sum())])
    else:
        header = {**header, "note": NOTHING_TO_SCORE}
    _write(path, header, COLUMNS, rows)


def read_evaluation(path: Path) -> Evaluation:
    """Read a table written by `write_evaluation`.

    Raises
    ------
    UserError
        If the file is missing or has other columns.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: evaluation cannot be read ({error})") from error
    head = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
    table = list(csv.reader(lines[len(head) :]))
    if not table or tuple(table[0]) != COLUMNS:
        raise UserError(f"{path}: is not an evaluation table (columns {','.join(COLUMNS)})")
    header = {key: value for key, _, value in (line[2:].partition(": ") for line in head)}
    rows = {row[0]: {c: float(v or "nan") for c, v in zip(COLUMNS[1:], row[1:], strict=True)} for row in table[1:]}
    return Evaluation(header, rows)


def write_curve(path: Path, header: Mapping[str, str], thresholds: Sequence[float], scores: Metrics | None) -> None:
    """Write the mean scores of every threshold; None writes the header alone."""
    rows = []
    if scores is not None:
        means = [scores.mean(name) for name in COLUMNS[1:5]]
        rows = [[f"{t:.10g}", *map(_number, values)] for t, *values in zip(thresholds, *means, strict=True)]
    else:
        header = {**header, "note": NOTHING_TO_SCORE}
    _write(path, header, CURVE_COLUMNS, rows)


def scored_images(scored: int, choosing: int) -> str:
    """How many images were scored, in the words of an evaluation's header.

    Parameters
    ----------
    choosing
        Other images with masks, which chose the threshold.

    Examples
    --------
    >>> scored_images(230, 65), scored_images(295, 0)
    ('230 (another 65 chose the threshold)', '295')
    """
    return f"{scored} (another {choosing} chose the threshold)" if choosing else f"{scored}"


def undecided_pixels(header: Mapping[str, str]) -> int:
    """Number of pixels that the scored masks leave undecided, as the header of their evaluation tells.

    Examples
    --------
    >>> undecided_pixels({"ignored in prediction": "255, skipped (12 pixels)"}), undecided_pixels({})
    (12, 0)
    """
    found = re.search(r"\((\d+) pixels\)", header.get("ignored in prediction", ""))
    return int(found[1]) if found else 0


def threshold_of(header: Mapping[str, str]) -> tuple[float, str]:
    """Background threshold and how it was chosen, from the header of an evaluation; (NaN, ...) if it names no number.

    Examples
    --------
    >>> threshold_of({"threshold": "0.4", "threshold rule": "fixed, no masks used"})
    (0.4, 'fixed, no masks used')
    >>> threshold_of({"threshold rule": "0.27, rule heldout of the maps' scores"})
    (0.27, "rule heldout of the maps' scores")
    >>> threshold_of({"threshold rule": "that of the stage, see its settings"})
    (nan, '')
    """
    rule = header.get("threshold rule", "")
    number, _, words = rule.partition(", ")
    if "threshold" in header:
        number, words = header["threshold"], rule
    try:
        return float(number), words
    except ValueError:
        return math.nan, "" if rule.startswith("that of the stage") else rule


def label_names(class_names: Sequence[str]) -> list[str]:
    """Names of the labels: background, then the foreground classes."""
    return ["background", *class_names]


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def _write(path: Path, header: Mapping[str, str], columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    text = io.StringIO()
    for key, value in header.items():
        text.write(f"# {key}: {value}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
