"""The page itself: what it shows, as plain records, and the template that lays it out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.health import Finding
from wsss_core.report.choose import Mistake
from wsss_core.report.palette import SERIES, style_rules
from wsss_core.report.provenance import Cost, Setting, duration, megabytes
from wsss_core.report.template import environment

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    """Scores of one stage.

    Attributes
    ----------
    series
        Number of the stage's colour.
    source
        Names of the stages it starts from.
    scores
        "miou", "precision", "recall", "f1": fractions; empty where there were no masks to score.
    header
        What the scores are, from the comment lines of the evaluation.
    threshold
        Background threshold in words, or "".
    leaks
        Whether the threshold was chosen with the very masks that are scored, here or upstream.
    best
        (threshold, mIoU) that would have been best on these masks, if known.
    of_full
        mIoU as a part of that of full supervision, if the run has such a network.
    """

    stage: str
    section: str
    method: str
    series: int
    source: Sequence[str]
    scores: Mapping[str, float]
    header: ScoreHeader
    threshold: str = ""
    leaks: bool = False
    best: tuple[float, float] | None = None
    of_full: float | None = None


@dataclass(frozen=True)
class Cell:
    """One picture of a gallery; no picture if `uri` is empty."""

    uri: str
    alt: str
    score: float | None = None


@dataclass(frozen=True)
class Row:
    """One image of a gallery: why it is shown, its tags as (label, name), a cell for every column."""

    id: str
    reason: str
    tags: Sequence[tuple[int, str]]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures under columns of (name, kind)."""

    title: str
    note: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    mistakes: Sequence[Mistake] = ()
    mistakes_of: str = ""


@dataclass(frozen=True)
class ClassTable:
    """IoU of every label (rows) in every stage (columns of (name, series))."""

    title: str
    note: str
    columns: Sequence[tuple[str, int]]
    labels: Sequence[str]
    values: Sequence[Sequence[float]]
    means: Sequence[float]

    def best(self, row: int) -> float:
        """The highest IoU of a row, or NaN where nothing stands out."""
        found = [v for v in self.values[row] if not math.isnan(v)]
        return max(found) if len(set(found)) > 1 else math.nan


@dataclass(frozen=True)
class Chart:
    """An SVG with a title, a note and a legend of (series or None, text)."""

    title: str
    svg: str
    note: str = ""
    legend: Sequence[tuple[int | None, str]] = ()


@dataclass(frozen=True)
class Number:
    """A cell of a table: text, part of a full bar behind it, and "strong", "loss" or "" for its look."""

    text: str
    part: float = 0.0
    look: str = ""


@dataclass(frozen=True)
class NumberTable:
    """Rows of (name, numbers) under columns, the first of which is that of the names."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Number]]]


@dataclass(frozen=True)
class Analysis:
    """What the configuration asked for beyond the scores."""

    title: str
    note: str = ""
    class_tables: Sequence[ClassTable] = ()
    tables: Sequence[NumberTable] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Health:
    """What can be told without true masks: what is wrong, and the signs behind it."""

    findings: Sequence[Finding]
    tables: Sequence[NumberTable]


@dataclass(frozen=True)
class Recorded:
    """What a seed method recorded: bars of (title, value to count), lines of numbers, charts."""

    stage: str
    images: int
    counts: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, tuple[float, float, float]]
    charts: Sequence[Chart]


@dataclass(frozen=True)
class StageSettings:
    """All settings of one stage."""

    stage: str
    about: str
    lines: Sequence[Setting]

    @property
    def changed(self) -> int:
        """How many settings are not the default."""
        return sum(line.changed for line in self.lines)


@dataclass(frozen=True)
class Page:
    """All that is on the page; what is empty is left out.

    Attributes
    ----------
    facts
        (label, value) pairs under the title.
    opening
        Sentences on the run as a whole.
    sheet
        The contact sheet, from the page's folder.
    path
        The results that lead to the last target, in order.
    labels
        Names of the labels in the VOC colours, background first.
    """

    run: str
    made: str
    facts: Sequence[tuple[str, str]]
    labels: Sequence[str]
    opening: Sequence[str] = ()
    sheet: str = ""
    health: Health | None = None
    results: Sequence[Result] = ()
    path: Sequence[Result] = ()
    galleries: Sequence[Gallery] = ()
    thresholds: Chart | None = None
    tables: Sequence[ClassTable] = ()
    objects: Sequence[NumberTable] = ()
    figures: Sequence[Chart] = ()
    analyses: Sequence[Analysis] = ()
    training: Sequence[Chart] = ()
    recorded: Sequence[Recorded] = ()
    graph: str = ""
    settings: Sequence[StageSettings] = ()
    costs: Sequence[Cost] = ()
    versions: Sequence[tuple[str, str]] = ()
    problems: Sequence[Mapping[str, str]] = ()
    colours: Sequence[tuple[int, int, int]] = field(default=())


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal, or a dash.

    Examples
    --------
    >>> percent(0.4567), percent(float("nan"))
    ('45.7', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def number(value: float) -> str:
    """Four significant digits.

    Examples
    --------
    >>> number(603.25), number(3.0)
    ('603.2', '3')
    """
    return f"{value:.4g}"


def slug(name: str) -> str:
    """A stage's name as part of an HTML id.

    Examples
    --------
    >>> slug("rib@steps=5")
    'rib-40-steps-3d-5'
    """
    return "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in name)


def render(page: Page) -> str:
    """The whole page as HTML; nothing on it is loaded from elsewhere."""
    from markupsafe import Markup

    from wsss_core.report.charts import swatch

    templates = environment(HERE)
    templates.filters |= {
        "pct": percent,
        "number": number,
        "slug": slug,
        "duration": duration,
        "megabytes": megabytes,
        "svg": Markup,
        "swatch": lambda series: Markup(swatch(series)),
    }
    templates.globals |= {"isnan": math.isnan, "SERIES": SERIES}
    css = style_rules() + (HERE / "page.css").read_text(encoding="utf-8")
    return templates.get_template("page.html").render(page=page, css=Markup(css))
