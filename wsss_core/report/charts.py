"""Line charts as SVG text, in colours of the page's style sheet (``series-0`` … ``series-7``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SERIES = 8
DASHES = ("", "6 4", "2 3", "9 3 2 3")


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
    zero: bool = True,
    size: tuple[int, int] = (760, 340),
) -> str:
    """An SVG line chart with grid, axes and marks; the legend is the caller's.

    Parameters
    ----------
    percent
        Whether y holds fractions to be printed as percent.
    zero
        Whether the y axis reaches to 0.
    size
        (width, height) of the view box.

    Returns
    -------
    An ``<svg>`` element, or "" if there is no point to draw.
    """
    drawn = [(line, [(x, y) for x, y in line.points if math.isfinite(y)]) for line in lines]
    points = [p for _, kept in drawn for p in kept]
    if not points:
        return ""
    width, height = size
    across, heights = [x for x, _ in points], [y for _, y in points] + [0.0] * zero
    x_low, x_high = min(across), max(across)
    x_ticks = [t for t in ticks(x_low, x_high, 8) if x_low - 1e-9 <= t <= x_high + 1e-9] or [x_low]
    x_high = x_high if x_high > x_low else x_low + 1
    if all(float(x).is_integer() for x in across):
        x_ticks = [t for t in x_ticks if float(t).is_integer()]
    y_ticks = ticks(min(heights), max(heights), 5)
    y_low, y_high = y_ticks[0], y_ticks[-1]
    y_texts = [f"{100 * value:g}" if percent else f"{value:g}" for value in y_ticks]
    left, right, top, bottom = 34 + 7 * max(map(len, y_texts)), 14, 14, 44

    def place(x: float, y: float) -> tuple[float, float]:
        column = left + (x - x_low) / (x_high - x_low) * (width - left - right)
        return column, height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    parts = []
    for value, text in zip(y_ticks, y_texts, strict=True):
        _, y = place(x_low, value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    for value in x_ticks:
        x, y = place(value, y_low)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 5:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 19:.1f}" text-anchor="middle">{value:g}</text>')
    floor = height - bottom
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{floor}" y2="{floor}"/>')
    middle = (left + width - right) / 2
    parts.append(
        f'<text class="label" x="{middle:.0f}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="label" transform="translate(13 {(top + floor) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for line, kept in drawn:
        if kept:
            parts.append(_path(line, [place(x, y) for x, y in kept]))
    for line, _ in drawn:
        parts += _marks(line, place, floor)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers, in even steps, that enclose [low, high].

    Examples
    --------
    >>> ticks(0, 0.62, 4)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    span = high - low if high > low else max(abs(high), 1.0) * 0.1
    rough = span / count
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def swatch(series: int) -> str:
    """A short sample of a line, for a legend."""
    return (
        f'<svg class="swatch" viewBox="0 0 26 10" width="26" height="10" aria-hidden="true">'
        f'<line class="curve series-{series % SERIES}" x1="1" x2="25" y1="5" y2="5"{_dash(series)}/></svg>'
    )


def _path(line: Line, places: Sequence[tuple[float, float]]) -> str:
    if len(places) == 1:
        x, y = places[0]
        return f'<circle class="dot series-{line.series % SERIES}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return (
        f'<path class="curve{" thin" * line.thin} series-{line.series % SERIES}" d="{path}"{_dash(line.series)}>'
        f"<title>{escape(line.name)}</title></path>"
    )


def _marks(line: Line, place, floor: float) -> list[str]:
    parts, series = [], f"series-{line.series % SERIES}"
    if line.best is not None and math.isfinite(line.best[1]):
        x, y = place(*line.best)
        parts.append(f'<circle class="ring {series}" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>')
    if line.mark is not None and math.isfinite(line.mark[1]):
        x, y = place(*line.mark)
        parts.append(f'<line class="drop {series}" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{floor}"/>')
        parts.append(f'<circle class="dot {series}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    return parts


def _dash(series: int) -> str:
    dash = DASHES[series // SERIES % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""
