"""Everything with axes, drawn by matplotlib in the page's style: SVG files, and `inline` ones for the page.

Not an SVG writer of our own, which drew the page's charts before: all it gave the page (names for screen readers, dark
mode, small text) `inline` gives to matplotlib's drawings, which have scales, bars, legends and small multiples besides.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wsss_core.report.palette import LIGHT, SERIES, VARIABLES

DASHES = ((), (6, 4), (2, 3), (9, 3, 2, 3))
DOTTED = (0, (2, 3))
STEPS = [1, 2, 2.5, 5, 10]
"""Between ticks, times a power of ten."""
PIXEL = 1 / 72
"""In inches: SVG has 72 dots to the inch here, so that sizes are pixels."""
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wsss",
    "figure.dpi": 72,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.parse_math": False,
    "text.color": LIGHT["ink"],
    "figure.facecolor": LIGHT["card"],
    "figure.constrained_layout.wspace": 0.04,
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": 12,
    "axes.labelpad": 6,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titlepad": 12,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LIGHT["line"],
    "xtick.color": LIGHT["muted"],
    "xtick.major.size": 5,
    "ytick.color": LIGHT["muted"],
    "ytick.left": False,
    "lines.linewidth": 2,
    "lines.scale_dashes": False,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}
NAMED = "named: "
"""Begins the id of a curve that shows its name under the pointer."""
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
PARTS = ("g", "defs", "path", "use", "image", "text", "tspan", "title")
KEPT = ("d", "x", "y", "width", "height", "transform")
"""What an element of the page has of a file: the parts that matplotlib draws with, and their places."""


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes
    ----------
    points
        (x, y), x ascending; a point whose y is NaN is left out.
    series
        Number of its colour; from 8 on the colours come again with other dashes.
    mark
        A point to mark with a dot and a drop line, such as the chosen threshold.
    best
        A point to mark with a ring.
    thin
        Whether it is one of many, drawn thin and pale.
    """

    name: str
    points: Sequence[tuple[float, float]]
    series: int = 0
    mark: tuple[float, float] | None = None
    best: tuple[float, float] | None = None
    thin: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    percent: bool = False,
    size: tuple[int, int] = (760, 340),
) -> str:
    """A line chart for the page, with grid, marks, and a y axis that reaches to 0; the legend is the caller's.

    Parameters
    ----------
    title
        What the chart says, for screen readers.
    percent
        Whether y holds fractions to be printed as percent.
    size
        (width, height) in pixels.

    Returns
    -------
    An ``<svg>`` element, or "" if there is no point to draw.
    """
    scale = 100 if percent else 1
    curves = [(line, [(x, scale * y) for x, y in line.points if math.isfinite(y)]) for line in lines]
    points = [point for _, kept in curves for point in kept]
    if not points:
        return ""
    with drawing(size) as figure:
        axes = figure.subplots()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _number_axes(axes, [x for x, _ in points], [0.0, *(y for _, y in points)], size[0])
        for line, kept in curves:
            _curve(axes, line, kept)
        for line in lines:
            _marks(axes, line, scale)
        return inline(svg(figure, title))


def _number_axes(axes: Axes, across: Sequence[float], heights: Sequence[float], width: int) -> None:
    """Limits and ticks: x as far as the data go, y from tick to tick."""
    low, high = min(across), max(across)
    if high > low:
        axes.set_xlim(low, high)
        whole = all(float(x).is_integer() for x in across)
        axes.xaxis.set_major_locator(MaxNLocator(max(3, min(9, width // 80)), integer=whole, steps=STEPS))
    else:
        axes.set_xlim(low - 0.5, low + 0.5)
        axes.set_xticks([low])
    axes.set_yticks(ticks(min(heights), max(heights), 5))
    axes.set_ylim(*axes.get_yticks()[[0, -1]])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")


def ticks(low: float, high: float, count: int) -> Sequence[float]:
    """At most `count` + 2 round numbers, in even steps, that enclose [low, high].

    Examples
    --------
    >>> [float(tick) for tick in ticks(0, 62, 4)]
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    top = high if high > low else low + 0.1 * max(abs(low), 1.0)
    return MaxNLocator(count, steps=STEPS).tick_values(low, top)


def _curve(axes: Axes, line: Line, points: Sequence[tuple[float, float]]) -> None:
    if len(points) == 1:
        axes.plot(*points[0], "o", color=colour(line.series), markersize=7, clip_on=False)
        return
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=colour(line.series),
        linestyle=dashes(line.series),
        linewidth=1 if line.thin else 2,
        alpha=0.45 if line.thin else None,
        gid=NAMED + line.name,
        clip_on=False,
    )


def _marks(axes: Axes, line: Line, scale: float) -> None:
    if line.best is not None and math.isfinite(line.best[1]):
        x, y = line.best
        ring: dict[str, Any] = {"fillstyle": "none", "markersize": 13, "markeredgewidth": 1.6}
        axes.plot(x, scale * y, "o", color=colour(line.series), clip_on=False, **ring)
    if line.mark is not None and math.isfinite(line.mark[1]):
        x, y = line.mark[0], scale * line.mark[1]
        axes.plot([x, x], [axes.get_ylim()[0], y], color=colour(line.series), linestyle=DOTTED, linewidth=1.2)
        dot: dict[str, Any] = {"markersize": 9, "markeredgewidth": 1.5, "markeredgecolor": LIGHT["card"]}
        axes.plot(x, y, "o", color=colour(line.series), clip_on=False, **dot)


def colour(series: int) -> str:
    """The colour of a series on white."""
    return LIGHT[f"s{series % SERIES}"]


def dashes(series: int) -> str | tuple[int, Sequence[int]]:
    """Line style of a series, as matplotlib has it."""
    pattern = DASHES[series // SERIES % len(DASHES)]
    return (0, pattern) if pattern else "solid"


def swatch(series: int) -> str:
    """A short sample of a line, for a legend of the page."""
    pattern = " ".join(map(str, DASHES[series // SERIES % len(DASHES)])) or "none"
    line = f'<line class="series-{series % SERIES}" x1="1" x2="25" y1="5" y2="5" stroke-dasharray="{pattern}"/>'
    return f'<svg class="swatch" viewBox="0 0 26 10" width="26" height="10" aria-hidden="true">{line}</svg>'


@contextmanager
def drawing(size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure of (width, height) in pixels; it is in the page's style until the block ends."""
    with style.context(STYLE, after_reset=True):
        yield Figure(figsize=(size[0] * PIXEL, size[1] * PIXEL), layout="constrained")


def svg(figure: Figure, title: str) -> str:
    """A drawing as the text of an SVG file, with a sentence that says what it shows. Same input, same text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return text.getvalue()


def inline(drawn: str) -> str:
    """An SVG file of `svg` as an element of the page.

    Its colours become those of the style sheet, which has others for dark pages, and its text takes the page's font.
    What the drawing and its curves are called stays with them. Nothing remains that could meddle with other drawings:
    no style rules, no clip paths, no ids but those of its own markers.
    """
    root = ET.fromstring(drawn)
    digest = hashlib.sha256(drawn.encode()).hexdigest()[:8]
    used = {use.get(HREF, ""): f"#{digest}-{k}" for k, use in enumerate(root.iter(SVG + "use"))}
    title = root.findtext(SVG + "title", "")
    _, _, width, height = map(float, root.get("viewBox", "").split())
    element = _part(root, used)
    element.attrib = {
        "class": "chart",
        "viewBox": f"0 0 {width:g} {height:g}",
        "style": f"min-width:{0.65 * width:.0f}px;max-width:{1.2 * width:.0f}px",
        "role": "img",
        "aria-label": title,
    }
    return ET.tostring(element, encoding="unicode")


def _part(element: ET.Element, used: Mapping[str, str]) -> ET.Element:
    """A copy of an element of a file for the page; `used` are the old and new references to the markers."""
    kept = ET.Element(element.tag.removeprefix(SVG))
    for key, value in element.items():
        if key == "id" and f"#{value}" in used:
            kept.set("id", used[f"#{value}"][1:])
        elif key == "id" and value.startswith(NAMED):
            ET.SubElement(kept, "title").text = value.removeprefix(NAMED)
        elif key == HREF:
            kept.set("href", used.get(value, value))
        elif key == "style":
            kept.set("style", _page_style(value))
        elif key in KEPT and not value.startswith("rotate(-0 "):
            kept.set(key, _short(value))
    if kept.tag in ("text", "tspan", "title"):
        kept.text = element.text
    kept.extend(_part(child, used) for child in element if child.tag.removeprefix(SVG) in PARTS)
    return kept


def _page_style(declarations: str) -> str:
    """A style in the colours of the style sheet and in the page's font; the size of the text stays."""
    sized = re.sub(r"font: (\S+)[^;]*", r"font-size: \1", declarations)
    plain = re.sub(r"font-family: [^;]*; ", "", sized)
    return re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), plain)


def _short(numbers: str) -> str:
    """Four digits of every number, one space between them."""
    return " ".join(re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.4g}", numbers).split())
