"""Draw one figure from the table of results."""

from __future__ import annotations

from pathlib import Path

from wsss_core.evaluate.figures import FigureSettings, series
from wsss_core.evaluate.results import read_results
from wsss_core.execution import Execution
from wsss_core.jobs.step import read_step
from wsss_core.report.figures import figure_svg
from wsss_core.store.atomic import write_text


def run(*, config: Path, results: Path, figure: Path, execution: Execution) -> None:
    """Draw a figure.

    Parameters
    ----------
    config
        Settings file of the step.
    results
        CSV of the results.
    figure
        SVG to write.

    Raises
    ------
    UserError
        If a file cannot be read, or the table does not hold what the figure shows.
    """
    settings: FigureSettings = read_step(config).settings
    write_text(figure, figure_svg(settings, series(settings, read_results(results))))
