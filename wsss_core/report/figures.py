"""Figures of ablation studies, and of features in the plane, as SVG files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_core.evaluate.figures import STAGE, FigureSettings, Series
from wsss_core.evaluate.results import value_text

COLOURS = ("#2f6db3", "#c65a11", "#1f8a70", "#a13d82", "#7a6a00", "#5b52b5", "#b5323f", "#4d6472")
"""The colours of the page's curves on white."""
INK, MUTED, LINE = "#1f2328", "#5b626c", "#e3e1db"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
Y_LABELS = {
    "miou": "mIoU, %",
    "oracle_miou": "mIoU at the best threshold in hindsight, %",
    "precision": "precision, %",
    "recall": "recall, %",
    "f1": "F1, %",
}
STYLE = {
    "svg.hashsalt": "wsss",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "grid.color": LINE,
    "legend.frameon": False,
}


def figure_svg(settings: FigureSettings, lines: Sequence[Series]) -> str:
    """Lines where x are numbers, otherwise bars side by side; scores in percent. Same input, same bytes."""
    drawn = [line for line in lines if not line.level]
    with _figure((7.2, 4.4)) as (figure, axes):
        if settings.x != STAGE and drawn and all(line.numeric for line in drawn):
            _curves(axes, drawn, settings)
        else:
            _bars(axes, drawn)
        for number, line in enumerate([line for line in lines if line.level], len(drawn)):
            colour = COLOURS[number % len(COLOURS)]
            axes.axhline(100 * line.points[0][1], color=colour, linewidth=1.4, linestyle=(0, (4, 3)), label=line.label)
        axes.set_ylabel(Y_LABELS[settings.y])
        axes.set_xlabel("" if settings.x == STAGE else settings.x)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if settings.title:
            axes.set_title(settings.title, loc="left", fontsize=11, pad=12)
        if not lines:
            axes.text(0.5, 0.5, "nothing was scored", transform=axes.transAxes, ha="center", color=MUTED)
        if any(line.label for line in lines):
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        return _text(figure)


def _curves(axes: Any, lines: Sequence[Series], settings: FigureSettings) -> None:
    for number, line in enumerate(lines):
        points = sorted(line.points)
        axes.plot(
            [x for x, _ in points],
            [100 * y for _, y in points],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number // len(COLOURS) % len(MARKERS)],
            linewidth=1.8,
            label=line.label or None,
        )
    values = sorted({x for line in lines for x, _ in line.points})
    if settings.scale == "log" and values[0] > 0:
        axes.set_xscale("log")
    if len(values) <= 12:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()


def _bars(axes: Any, lines: Sequence[Series]) -> None:
    texts = list(dict.fromkeys(value_text(x) for line in lines for x, _ in line.points))
    width = 0.8 / max(len(lines), 1)
    lowest = min((y for line in lines for _, y in line.points), default=0.0)
    for number, line in enumerate(lines):
        places = [texts.index(value_text(x)) + (number - (len(lines) - 1) / 2) * width for x, _ in line.points]
        bars = axes.bar(
            places,
            [100 * y for _, y in line.points],
            0.92 * width,
            color=COLOURS[number % len(COLOURS)],
            label=line.label or None,
        )
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8.5, color=MUTED)
    axes.set_xticks(
        range(len(texts)), texts, rotation=25 if len(texts) > 4 else 0, ha="right" if len(texts) > 4 else "center"
    )
    axes.margins(y=0.12)
    axes.set_ylim(bottom=min(0.0, 100 * lowest))


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
    group = np.array([names.index(name) for name in groups])
    rings = np.asarray(hollow, dtype=bool)
    with _figure((3.6 * len(clouds) + 1.6, 3.7), columns=len(clouds)) as (figure, axes):
        for axis, cloud in zip(np.atleast_1d(axes), clouds, strict=True):
            for number, name in enumerate(names):
                colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]
                for ring, face in ((False, colour), (True, "none")):
                    chosen = cloud.places[(group == number) & (rings == ring)]
                    label = f"{name}{', holds no class' if ring else ''}" if len(chosen) else None
                    style = {"s": 16, "marker": marker, "edgecolors": colour, "facecolors": face, "linewidths": 0.8}
                    axis.scatter(chosen[:, 0], chosen[:, 1], label=label, alpha=0.8, **style)
            axis.set_title(cloud.title, loc="left", fontsize=11)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_aspect("equal", "datalim")
        axis.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, fontsize=8.5)
        return _text(figure)


@contextmanager
def _figure(size: tuple[float, float], columns: int = 1) -> Iterator[tuple[Any, Any]]:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        yield figure, figure.subplots(1, columns)


def _text(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", pad_inches=0.15, facecolor="white", metadata={"Date": None})
    return text.getvalue()
