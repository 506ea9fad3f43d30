"""Figures of ablation studies, and of features in the plane, as SVG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wsss_core.evaluate.figures import STAGE, FigureSettings, Series
from wsss_core.evaluate.results import value_text
from wsss_core.report.charts import colour, dashes, drawing, svg
from wsss_core.report.palette import LIGHT, SERIES

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH, HEIGHT = 640, 360
"""Of a figure in pixels, without its legend."""
LETTER, ROW = 7, 20
"""Pixels of a letter and of a row of the legend."""
Y_LABELS = {
    "miou": "mIoU, %",
    "oracle_miou": "mIoU at the best threshold in hindsight, %",
    "precision": "precision, %",
    "recall": "recall, %",
    "f1": "F1, %",
    "f_score": "F-score of mean precision and recall, %",
    "of_full": "mIoU of full supervision, %",
}


def figure_svg(settings: FigureSettings, lines: Sequence[Series]) -> str:
    """Lines where x are numbers, otherwise bars side by side; scores in percent. Same input, same bytes."""
    drawn = [line for line in lines if not line.level]
    labels = [line.label for line in lines if line.label]
    with drawing((WIDTH, HEIGHT + _legend_height(labels, WIDTH))) as figure:
        axes = figure.subplots()
        if settings.x != STAGE and drawn and all(line.numeric for line in drawn):
            _curves(axes, drawn, settings)
        else:
            _bars(axes, drawn)
        for number, line in enumerate([line for line in lines if line.level], len(drawn)):
            axes.axhline(
                100 * line.points[0][1], color=colour(number), linewidth=1.4, linestyle=(0, (4, 3)), label=line.label
            )
        axes.set_ylabel(Y_LABELS[settings.y])
        axes.set_xlabel("" if settings.x == STAGE else settings.x)
        axes.set_title(settings.title)
        if not lines:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "nothing was scored", transform=axes.transAxes, ha="center", color=LIGHT["muted"])
        handles, _ = axes.get_legend_handles_labels()
        _legend(figure, sorted(handles, key=lambda handle: labels.index(_name(handle))), WIDTH)
        return svg(figure, _sentence(settings, lines))


def _curves(axes: Axes, lines: Sequence[Series], settings: FigureSettings) -> None:
    for number, line in enumerate(lines):
        points = sorted(line.points)
        axes.plot(
            [x for x, _ in points],
            [100 * y for _, y in points],
            color=colour(number),
            linestyle=dashes(number),
            marker="o",
            label=line.label,
        )
    values = sorted({x for line in lines for x, _ in line.points})
    if settings.scale == "log" and values[0] > 0:
        axes.set_xscale("log")
    if len(values) <= 12:
        axes.set_xticks(values)
        axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")


def _bars(axes: Axes, lines: Sequence[Series]) -> None:
    texts = list(dict.fromkeys(value_text(x) for line in lines for x, _ in line.points))
    width = 0.8 / max(len(lines), 1)
    for number, line in enumerate(lines):
        places = [texts.index(value_text(x)) + (number - (len(lines) - 1) / 2) * width for x, _ in line.points]
        bars = axes.bar(places, [100 * y for _, y in line.points], 0.92 * width, color=colour(number), label=line.label)
        narrow = width * WIDTH / len(texts) < 5 * LETTER
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=10, color=LIGHT["muted"], rotation=90 * narrow)
    crowded = texts and max(map(len, texts)) * LETTER > 0.7 * WIDTH / len(texts)
    turned: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(len(texts)), texts, **turned)
    axes.margins(y=0.12)


def _sentence(settings: FigureSettings, lines: Sequence[Series]) -> str:
    """What a figure shows, for who cannot see it: every line with its points."""
    shown = []
    for line in lines:
        points = [f"{100 * y:.1f}" + ("" if line.level else f" at {value_text(x)}") for x, y in line.points]
        shown.append((f"{line.label}: " if line.label else "") + ", ".join(points))
    over = "stage by stage" if settings.x == STAGE else f"over {settings.x}"
    heading = f"{settings.title}. " if settings.title else ""
    return f"{heading}{Y_LABELS[settings.y]}, {over}: {'; '.join(shown) or 'nothing was scored'}."


@dataclass(frozen=True)
class Cloud:
    """Images in the plane, as one classifier sees them.

    Attributes
    ----------
    places
        float [N, 2].
    """

    title: str
    places: np.ndarray


def clouds_svg(clouds: Sequence[Cloud], groups: Sequence[str], hollow: Sequence[bool]) -> str:
    """Scatter plots side by side, one for each classifier, of the same N images.

    Parameters
    ----------
    groups
        Name of the class of each image; a colour each, in order of appearance.
    hollow
        Whether each image is drawn as a ring (an image that holds none of the classes).
    """
    names = list(dict.fromkeys(groups))
    group, rings = np.array([names.index(name) for name in groups]), np.asarray(hollow, dtype=bool)
    looks: list[dict[str, Any]] = [
        {"color": colour(k), "marker": MARKERS[k // SERIES % len(MARKERS)]} for k in range(len(names))
    ]
    handles = [Line2D([], [], linestyle="", label=name, **look) for name, look in zip(names, looks, strict=True)]
    if rings.any():
        ring: dict[str, Any] = {"marker": "o", "fillstyle": "none", "color": LIGHT["muted"]}
        handles.append(Line2D([], [], linestyle="", label="ring: holds no class", **ring))
    width = max(WIDTH, 300 * len(clouds))
    height = 300 + _legend_height([_name(handle) for handle in handles], width)
    with drawing((width, height)) as figure:
        for axes, cloud in zip(figure.subplots(1, len(clouds), squeeze=False)[0], clouds, strict=True):
            for number, look in enumerate(looks):
                for is_ring in (False, True):
                    x, y = cloud.places[(group == number) & (rings == is_ring)].T
                    fill = "none" if is_ring else "full"
                    axes.plot(x, y, linestyle="", markersize=4.5, fillstyle=fill, alpha=0.8, **look)
            axes.set_title(cloud.title)
            axes.set(xticks=[], yticks=[])
            axes.set_aspect("equal", "datalim")
            axes.spines[:].set(visible=True, color=LIGHT["line"])
        _legend(figure, handles, width)
        seen = " and ".join(cloud.title for cloud in clouds)
        return svg(figure, f"{len(groups)} images in the plane, as seen by {seen}, in groups: {', '.join(names)}.")


def _legend(figure: Figure, handles: Sequence[Artist], width: int) -> None:
    """Names under the figure, in as many columns as there is room for."""
    if handles:
        columns = _columns([_name(handle) for handle in handles], width)
        figure.legend(handles=handles, loc="outside lower left", ncols=columns)


def _name(handle: Artist) -> str:
    """What the legend calls a line or bars."""
    return str(handle.get_label())


def _legend_height(labels: Sequence[str], width: int) -> int:
    return ROW * -(-len(labels) // _columns(labels, width)) if labels else 0


def _columns(labels: Sequence[str], width: int) -> int:
    return max(1, width // (60 + LETTER * max(map(len, labels))))
