"""Figures of the toy experiment: examples of gradient maps above the curves of their high gradient ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from wsss_core.report.charts import DOTTED, colour, drawing, svg
from wsss_core.report.palette import LIGHT

REGIONS = {"discriminative": 0, "non-discriminative": 6, "background": 7}
"""Number of the colour of every region's curve."""
CELL = 90
"""Width of a picture in pixels."""


@dataclass(frozen=True)
class Example:
    """One image with gradient maps.

    Attributes
    ----------
    image
        [H, W] in 0..1.
    maps
        [M, H, W], in units of the high gradient ratio; shown from 0 to 1.
    mark
        bool [H, W], framed in the picture.
    """

    image: np.ndarray
    maps: np.ndarray
    mark: np.ndarray


def hgr_figure(
    table: pd.DataFrame, names: Sequence[str], examples: Sequence[Example], *, title: str, label: str
) -> str:
    """An SVG of examples and curves; equal input gives equal text.

    Parameters
    ----------
    table
        As `wsss_core.toy.experiment.hgr_table` makes it.
    names
        What to write under each layer, or step, of the table.
    label
        Of the horizontal axis.
    """
    count, rows = len(names), len(examples)
    with drawing((CELL * (count + 1) + 60, CELL * rows + 330)) as figure:
        grid = figure.add_gridspec(rows + 1, count + 1, height_ratios=[1] * rows + [250 / CELL])
        for row, example in enumerate(examples):
            _picture(figure.add_subplot(grid[row, 0]), example.image, example.mark, "gray", "image" if row == 0 else "")
            for place, (gradient, name) in enumerate(zip(example.maps, names, strict=True), 1):
                axes = figure.add_subplot(grid[row, place])
                _picture(axes, gradient, example.mark, "magma", name if row == 0 else "")
        axes = figure.add_subplot(grid[-1, :])
        for region, of_region in table.groupby("region", sort=False):
            shade = colour(REGIONS[str(region)])
            axes.plot(range(count), 100 * of_region["hgr"], marker="o", color=shade, label=region)
            axes.plot(range(count), 100 * of_region["hgr_unscaled"], color=shade, linestyle=DOTTED)
        axes.plot([], [], color=LIGHT["muted"], linestyle=DOTTED, label="gradients as they are")
        axes.set_xticks(range(count), names)
        axes.set_xlabel(label)
        axes.set_ylabel("high gradient ratio, %")
        axes.set_ylim(0, 105)
        figure.legend(loc="outside lower left", ncols=2)
        figure.suptitle(title)
        return svg(figure, f"{title}: examples, and the high gradient ratio of three regions over {label}.")


def _picture(axes: Axes, values: np.ndarray, mark: np.ndarray, colours: str, title: str) -> None:
    axes.imshow(values, cmap=colours, vmin=0, vmax=1, interpolation="none")
    axes.set_axis_off()
    axes.set_title(title, loc="center", pad=6)
    rows, columns = np.nonzero(mark)
    if len(rows):
        corner = (columns.min() - 1, rows.min() - 1)
        width, height = int(np.ptp(columns)) + 2, int(np.ptp(rows)) + 2
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour(6)))
