"""Stage: one figure from the table of results."""

from __future__ import annotations

import json
from pathlib import Path

from wsss_core.errors import UserError
from wsss_core.evaluate.figures import FigureSettings, series
from wsss_core.evaluate.results import read_results
from wsss_core.execution import Execution
from wsss_core.report.figures import figure_svg
from wsss_core.settings import from_mapping
from wsss_core.store.atomic import write_text


def run(*, config: Path, results: Path, figure: Path, execution: Execution) -> None:
    """Draw a figure.

    Parameters
    ----------
    config
        JSON of `Configuration.figure_json`.
    results
        Table of results.
    figure
        SVG.

    Raises
    ------
    UserError
        If a file cannot be read, or the table does not hold what the figure shows.
    """
    try:
        settings = from_mapping(FigureSettings, json.loads(Path(config).read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config}: is not the configuration of a figure ({error!r})") from error
    write_text(figure, figure_svg(settings, series(settings, read_results(results))))
