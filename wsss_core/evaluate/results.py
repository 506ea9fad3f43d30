"""The table of a run's results: one row for every scored product of every stage variant."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss_core.errors import UserError
from wsss_core.registry import REPEAT
from wsss_core.store.atomic import write_text

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("miou", "precision", "recall", "f1", "f_score")
OF_FULL = "of_full"
HINDSIGHT = ("oracle_threshold", "oracle_miou")
BEFORE = ("section", "stage", "base", "method")
"""Columns before those of the swept keys."""
AFTER = (
    "product",
    "upstream",
    "split",
    "images",
    "rule",
    "threshold",
    *SCORES,
    OF_FULL,
    "undecided",
    *HINDSIGHT,
    "seconds",
    "memory_mb",
    "settings",
)
"""Columns after those of the swept keys."""
NUMBERS = ("threshold", *SCORES, OF_FULL, *HINDSIGHT, "seconds", "memory_mb")
"""Columns that hold numbers, empty where these are undefined."""
ABOUT = (
    (
        "scores",
        "fractions in [0, 1], averaged over the labels that occur in the scored masks, with the background if any",
    ),
    ("of_full", "mIoU of predictions as a part of that of the best network trained on the true masks of all images"),
    (
        "oracle_threshold and oracle_miou",
        "best in hindsight on the scored masks: optimistic, for reporting only, used by nothing unless rule says so",
    ),
    ("seconds and memory_mb", "of the whole stage: wall-clock time added up over its jobs, largest job"),
)
"""Comment lines of the file beside "run" and "seed"."""


def f_score(precision: float, recall: float) -> float:
    """Harmonic mean of mean precision and mean recall, which the papers call F-score (RIB, Table 6; all its rows).

    The mean of the labels' own F1 is another, usually smaller number: at most 2 mIoU / (1 + mIoU).

    Examples
    --------
    >>> round(f_score(0.672, 0.767), 3), f_score(0.0, 0.0)
    (0.716, 0.0)
    """
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def of_full_supervision(mious: Mapping[str, float], full: Collection[str]) -> dict[str, float]:
    """The mIoU of networks as a part of that of the best one under full supervision.

    Parameters
    ----------
    mious
        Of the predictions of networks, all on the same images, by stage; NaN where there was nothing to score.
    full
        Stages that were trained on the true masks of all images.

    Returns
    -------
    Stage to part; empty if none of them was fully supervised.

    Examples
    --------
    >>> of_full_supervision({"weak": 0.6, "full": 0.75, "worse": 0.5}, {"full", "worse"})["weak"]
    0.7999999999999999
    >>> of_full_supervision({"weak": 0.6}, set())
    {}
    """
    best = max((miou for name, miou in mious.items() if name in full and miou > 0), default=None)
    return {} if best is None else {name: miou / best for name, miou in mious.items()}


@dataclass(frozen=True)
class ResultRow:
    """Scores of one product of one stage variant.

    Attributes
    ----------
    base
        Name of the stage without its swept values: "rib" for "rib@steps=5".
    method
        The stage's method.
    swept
        Swept key ("rib.steps": stage and setting) to this variant's value, also of the stages it is built on.
    product
        What was scored: "maps" of a seed, "walk" (maps after a random walk), "masks", or "predictions".
    split
        "score" (training images whose masks are used for scoring only) or "val".
    images
        Number of images scored; 0 where there were no masks.
    rule
        How the background threshold was chosen, in words; "" if the stage has none of its own, unless it is built on
        masks whose threshold was chosen with the masks scored, or on true masks, which is said here too.
    threshold
        Background threshold; NaN if there is no single one, as under rule otsu, with one for each image.
    miou, precision, recall, f1
        Fractions; NaN where there were no masks.
    f_score
        `f_score` of precision and recall, as in the papers; f1 is the mean over labels of each label's own.
    of_full
        mIoU of a network's predictions as a part of that under full supervision (`of_full_supervision`); NaN without.
    undecided
        Pixels that the masks leave undecided.
    oracle_threshold, oracle_miou
        The one threshold that is best in hindsight on the scored masks; NaN without a curve.
    seconds, memory_mb
        Cost of the whole stage, as `wsss_core.report.provenance.costs` adds it up; NaN where that of any job was not
        recorded.
    settings
        Digest of the stage's settings and of those it is built on, without the run's seed.
    """

    section: str
    stage: str
    base: str
    method: str
    swept: Mapping[str, Any] = field(default_factory=dict)
    product: str = ""
    upstream: tuple[str, ...] = ()
    split: str = ""
    images: int = 0
    rule: str = ""
    threshold: float = math.nan
    miou: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    f1: float = math.nan
    f_score: float = math.nan
    of_full: float = math.nan
    undecided: int = 0
    oracle_threshold: float = math.nan
    oracle_miou: float = math.nan
    seconds: float = math.nan
    memory_mb: float = math.nan
    settings: str = ""


@dataclass(frozen=True)
class Results:
    """A run's table of results."""

    run: str
    seed: int
    rows: tuple[ResultRow, ...]

    @property
    def swept(self) -> tuple[str, ...]:
        """All swept keys, in order of appearance."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.swept))

    def frame(self) -> pd.DataFrame:
        """The table for pandas: a row for each of `rows`, the columns of the file, swept keys among them.

        Numbers are numbers and missing where they are undefined; a swept key that a stage does not have is None.
        """
        import pandas as pd

        swept = self.swept
        records = [
            {column: getattr(row, column) for column in BEFORE}
            | {key: row.swept.get(key) for key in swept}
            | {column: getattr(row, column) for column in AFTER}
            for row in self.rows
        ]
        return pd.DataFrame(records, columns=[*BEFORE, *swept, *AFTER])


def write_results(path: Path, results: Results) -> None:
    """Write a table of results as CSV with comment lines; undefined numbers and keys a row does not have are empty."""
    text = io.StringIO()
    for key, value in (("run", results.run), ("seed", results.seed), *ABOUT):
        text.write(f"# {key}: {value}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*BEFORE, *results.swept, *AFTER])
    for row in results.rows:
        swept = [value_text(row.swept[key]) if key in row.swept else "" for key in results.swept]
        texts = {column: _text(getattr(row, column)) for column in (*BEFORE, *AFTER)}
        writer.writerow([*(texts[c] for c in BEFORE), *swept, *(texts[c] for c in AFTER)])
    write_text(path, text.getvalue())


def read_results(path: Path | str) -> Results:
    """Read a table written by `write_results`.

    Raises
    ------
    UserError
        If the file is missing or is not a table of results.

    Examples
    --------
    >>> rows = [ResultRow("seeds", name, "rib", "rib", {"rib.steps": steps}, "maps", miou=miou)
    ...         for name, steps, miou in (("rib@steps=2", 2, 0.61), ("rib@steps=4", 4, 0.64))]
    >>> write_results(Path("results.csv"), Results("mine", 0, tuple(rows)))
    >>> results = read_results("results.csv")
    >>> results.run, results.rows[0].miou
    ('mine', 0.61)
    >>> results.frame()[["stage", "rib.steps", "miou"]]
             stage  rib.steps  miou
    0  rib@steps=2          2  0.61
    1  rib@steps=4          4  0.64
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: table of results cannot be read ({error}); make it with `snakemake results`"
        ) from error
    head = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
    header = {key: value for key, _, value in (line[2:].partition(": ") for line in head)}
    reader = csv.DictReader(lines[len(head) :])
    try:
        columns = tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise UserError(f"{path}: is not a table ({error}); make it with `snakemake results`") from error
    swept = columns[len(BEFORE) : len(columns) - len(AFTER)]
    if (*BEFORE, *swept, *AFTER) != columns or not {"run", "seed"} <= set(header):
        raise UserError(f"{path}: is not a table of results; make it with `snakemake results`")
    try:
        rows = tuple(_row(row, swept) for row in reader)
        return Results(header["run"], int(header["seed"]), rows)
    except (ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise UserError(f"{path}: is not a table of results ({error}); make it with `snakemake results`") from error


def value_text(value: Any) -> str:
    """A swept value as it stands in the table: texts as they are, everything else as JSON.

    Examples
    --------
    >>> value_text("gap"), value_text(None), value_text([1.0, 0.5]), value_text(5e-06)
    ('gap', 'null', '[1.0, 0.5]', '5e-06')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(row: Mapping[str, str], swept: Sequence[str]) -> ResultRow:
    texts = ("section", "stage", "base", "method", "product", "split", "rule", "settings")
    cells: dict[str, Any] = {
        **{column: row[column] for column in texts},
        **{column: int(row[column] or 0) for column in ("images", "undecided")},
        **{column: float(row[column] or "nan") for column in NUMBERS},
    }
    return ResultRow(
        swept={key: _value(row[key]) for key in swept if row[key]}, upstream=tuple(row["upstream"].split()), **cells
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


@dataclass(frozen=True)
class Spread:
    """A number over several runs: its mean and its standard deviation (n - 1); NaN where a run has none."""

    mean: float
    deviation: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of the values that are defined.

        Examples
        --------
        >>> Spread.of([0.5, 0.7]).mean, round(Spread.of([0.5, 0.7]).deviation, 4), Spread.of([0.5]).deviation
        (0.6, 0.1414, nan)
        """
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return cls(math.nan, math.nan, 0)
        mean = math.fsum(known) / len(known)
        if len(known) == 1:
            return cls(mean, math.nan, 1)
        return cls(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (len(known) - 1)), len(known))


@dataclass(frozen=True)
class Combined:
    """The same row of several runs: the first run's texts, and the spread of every number."""

    row: ResultRow
    numbers: Mapping[str, Spread]


def is_repetition(swept: str) -> bool:
    """Whether a swept key ("rib.repeat") tells repetitions apart."""
    return swept.rpartition(".")[2] == REPEAT


def without_repetition(row: ResultRow) -> ResultRow:
    """A row as that of all its repetitions: names and swept values do not say which one it is."""
    swept = {key: value for key, value in row.swept.items() if not is_repetition(key)}
    upstream = tuple(_REPETITION.sub("", name) for name in row.upstream)
    return replace(row, stage=_REPETITION.sub("", row.stage), upstream=upstream, swept=swept)


_REPETITION = re.compile(rf"@{REPEAT}=\d+")


def combine(runs: Sequence[Results]) -> list[Combined]:
    """Join the rows of runs that differ in their seed alone, and those of a stage's repetitions.

    They are in the order of the first run that has them.

    Raises
    ------
    UserError
        If two runs have the same seed, or a stage's settings (or those it is built on) or the number of images that it
        was scored on differ between runs.
    """
    seeds: dict[int, str] = {}
    for results in runs:
        if results.seed in seeds:
            raise UserError(
                f"runs {seeds[results.seed]!r} and {results.run!r} have the same seed {results.seed}: a spread is "
                "taken over different seeds (`--config run=… seed=…`)"
            )
        seeds[results.seed] = results.run
    found: dict[tuple[str, str], list[tuple[str, ResultRow]]] = {}
    for results in runs:
        for row in map(without_repetition, results.rows):
            found.setdefault((row.stage, row.product), []).append((results.run, row))
    for (stage, _), rows in found.items():
        for run, row in rows:
            if row.settings != rows[0][1].settings:
                raise UserError(
                    f"stage {stage!r} has other settings in run {run!r} than in {rows[0][0]!r}, or is built on others"
                )
            scored = [f"{each.images} {each.split} images" for each in (row, rows[0][1])]
            if scored[0] != scored[1]:
                raise UserError(
                    f"stage {stage!r} is scored on {scored[0]} in run {run!r}, on {scored[1]} in {rows[0][0]!r}: these "
                    "are not the same data"
                )
    return [
        Combined(rows[0][1], {name: Spread.of([getattr(row, name) for _, row in rows]) for name in NUMBERS})
        for rows in found.values()
    ]
