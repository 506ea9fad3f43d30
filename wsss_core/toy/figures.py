"""Figures of the toy experiment: examples of gradient maps above the curves of their high gradient ratio."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = {"discriminative": "#0b6e99", "non-discriminative": "#d1495b", "background": "#7d8597"}
"""Colour of every region's curve."""


@dataclass(frozen=True)
class Example:
    """One image with gradient maps.

    Attributes
    ----------
    image
        [H, W] in 0..1.
    maps
        [M, H, W], each in 0..1.
    mark
        bool [H, W], framed in the picture.
    """

    image: np.ndarray
    maps: np.ndarray
    mark: np.ndarray


def hgr_figure(
    table: pd.DataFrame, column: str, names: Sequence[str], examples: Sequence[Example], *, title: str, label: str
) -> str:
    """An SVG of examples and curves; equal input gives equal text.

    Parameters
    ----------
    table
        As `wsss_core.toy.experiment.hgr_table` makes it.
    column
        Its column for the horizontal axis.
    names
        What to write under each of its values.
    label
        Of the horizontal axis.
    """
    count = len(names)
    figure = Figure(figsize=(1.5 + 1.1 * (count + 1), 3.4 + 1.1 * len(examples)), layout="constrained")
    grid = figure.add_gridspec(len(examples) + 1, count + 1, height_ratios=[1] * len(examples) + [2.6])
    for row, example in enumerate(examples):
        _picture(figure.add_subplot(grid[row, 0]), example.image, example.mark, "gray", "image" if row == 0 else "")
        for place, (gradient, name) in enumerate(zip(example.maps, names, strict=True), 1):
            axes = figure.add_subplot(grid[row, place])
            _picture(axes, gradient, example.mark, "magma", name if row == 0 else "")
    axes = figure.add_subplot(grid[-1, :])
    for region, rows in table.groupby("region", sort=False):
        axes.plot(range(count), 100 * rows["hgr"], marker="o", color=COLOURS[region], label=region)
        axes.plot(range(count), 100 * rows["hgr_unscaled"], color=COLOURS[region], linestyle=":")
    axes.set_xticks(range(count), names)
    axes.set_xlabel(label)
    axes.set_ylabel("high gradient ratio (%)")
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.3)
    axes.plot([], [], color="black", linestyle=":", label="gradients not divided by their maximum")
    axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    return _svg(figure)


def _picture(axes: Axes, values: np.ndarray, mark: np.ndarray, colours: str, title: str) -> None:
    axes.imshow(values, cmap=colours, vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(title)
    rows, columns = np.nonzero(mark)
    if len(rows):
        corner = (columns.min() - 1, rows.min() - 1)
        size = (np.ptp(columns) + 2, np.ptp(rows) + 2)
        axes.add_patch(matplotlib.patches.Rectangle(corner, *size, fill=False, edgecolor="#e63946"))


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "toy"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
