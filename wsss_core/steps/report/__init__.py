"""Write the HTML page of a run, from the files that its stages left."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from wsss_core.execution import Execution
from wsss_core.jobs.configuration import read_run_configuration
from wsss_core.jobs.run_files import RunFiles
from wsss_core.report import overlays
from wsss_core.report.page import Page, render
from wsss_core.steps.report.analyses import analyses, figures
from wsss_core.steps.report.galleries import galleries
from wsss_core.steps.report.health import health, opening
from wsss_core.steps.report.objects import object_galleries, object_tables
from wsss_core.steps.report.provenance import all_costs, facts, graph, problems, settings_pages, versions
from wsss_core.steps.report.scores import class_tables, path_of, recorded, results_of, thresholds, training_curves
from wsss_core.store.atomic import write_text

log = logging.getLogger(__name__)


def run(*, config: Path, run: Path, report: Path, execution: Execution) -> None:
    """Write the page of a run; what the run does not have is left out.

    Parameters
    ----------
    config
        Settings file of the step: the whole configuration.
    run
        Folder of the run.
    report
        HTML file to write.

    Raises
    ------
    UserError
        If the configuration or the image table cannot be read.
    """
    files = RunFiles(Path(run), read_run_configuration(config))
    log.info("scores and settings")
    results = results_of(files)
    spent, found = all_costs(files), health(files)
    page = Page(
        run=files.configuration.run,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        facts=facts(files, spent),
        labels=files.labels,
        opening=opening(files, results, found),
        sheet="sheet/index.html" if (files.run / "sheet/index.html").exists() else "",
        health=found,
        results=list(results.values()),
        path=path_of(files, results),
        galleries=[*galleries(files), *object_galleries(files)],
        thresholds=thresholds(files),
        tables=class_tables(files, results),
        objects=object_tables(files),
        figures=figures(files),
        analyses=analyses(files),
        training=training_curves(files),
        recorded=recorded(files),
        graph=graph(files, results),
        settings=settings_pages(files),
        costs=spent,
        versions=versions(),
        problems=problems(files.run / "problems.csv"),
        colours=[(int(red), int(green), int(blue)) for red, green, blue in overlays.PALETTE],
    )
    html = render(page)
    write_text(report, html)
    log.info("%s: %.1f MB", report, len(html) / 1e6)
