"""What the page says of scores: results, curves over thresholds, tables of classes, losses, what methods recorded."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace

from wsss_core.constants import MEAN_ROW
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.results import of_full_supervision
from wsss_core.evaluate.tables import CURVE_COLUMNS, read_evaluation
from wsss_core.jobs.run_files import KINDS, RunFiles, read_rows
from wsss_core.registry import SCORED_SECTIONS
from wsss_core.report.charts import Line, line_chart
from wsss_core.report.page import (
    Chart,
    ClassTable,
    Recorded,
    Result,
    percent,
)
from wsss_core.report.summary import summarise

log = logging.getLogger(__name__)


def results_of(files: RunFiles) -> dict[str, Result]:
    """Every scored target."""
    results: dict[str, Result] = {}
    for name, stage in files.stages.items():
        path = files.folder(name) / "evaluation.csv"
        if stage.section not in SCORED_SECTIONS or name not in files.configuration.targets or not path.exists():
            continue
        evaluation = read_evaluation(path)
        header = evaluation.header
        mean = evaluation.rows.get(MEAN_ROW, {})
        chosen = files.threshold(name)
        oracle = (chosen or {}).get("oracle")
        words = [_threshold_words(header)] if header.rule else []
        leaking = files.configuration.oracle_of(name)
        words += [f"built on {leaking}"] if leaking not in ("", name) else []
        words += files.configuration.learned_truths(name)
        results[name] = Result(
            stage=name,
            section=KINDS[stage.section],
            method=stage.method,
            series=files.series[name],
            source=list(stage.upstream.values()),
            scores={"miou": mean["iou"], **{k: mean[k] for k in ("precision", "recall", "f1")}} if mean else {},
            header=header,
            threshold="; ".join(words),
            leaks=header.cut.leaks or bool(leaking),
            best=(oracle["value"], oracle["miou"]) if oracle else None,
        )
    networks = {
        name: result.scores["miou"]
        for name, result in results.items()
        if result.scores and files.stages[name].section == "segmentations"
    }
    parts = of_full_supervision(networks, files.configuration.fully_supervised)
    return {name: replace(result, of_full=parts.get(name)) for name, result in results.items()}


def _threshold_words(header: ScoreHeader) -> str:
    """The threshold and its rule; that it leaks is said beside it."""
    value = "" if header.cut.threshold is None else f"{header.cut.threshold:.10g}"
    return ", ".join(filter(None, [value, header.rule, "" if header.cut.leaks else header.reason]))


def path_of(files: RunFiles, results: Mapping[str, Result]) -> list[Result]:
    """The results on the way to the last scored target, in order; those with undecided pixels are left out between."""
    scored = [name for name, result in results.items() if result.scores]
    path: list[Result] = []
    name = scored[-1] if scored else None
    while name is not None:
        if name in scored and (not path or not results[name].header.undecided):
            path.append(results[name])
        name = next(iter(files.stages[name].upstream.values()), None)
    return path[::-1]


def thresholds(files: RunFiles) -> Chart | None:
    """Mean IoU over the threshold, a curve for every scored seed and walk; None without any."""
    lines, legend = [], []
    for name in (*files.having("seeds", "curve.csv"), *files.having("refinements", "curve.csv")):
        if name not in files.configuration.targets:
            continue
        rows = read_rows(files.folder(name) / "curve.csv", CURVE_COLUMNS)
        points = [(float(row["threshold"]), float(row["miou"] or "nan")) for row in rows]
        if not points:
            continue
        chosen = files.threshold(name) or {}
        mark = (chosen["value"], chosen["miou"]) if "miou" in chosen else None
        oracle = chosen.get("oracle")
        best = (oracle["value"], oracle["miou"]) if oracle else max(points, key=lambda p: p[1])
        series = files.series[name]
        lines.append(Line(name, points, series, mark, best))
        walked = " (walked maps)" if files.stages[name].section == "refinements" else ""
        rule = chosen.get("rule")
        rule = "otsu, their median" if rule == "otsu" else rule
        at = f"{percent(mark[1])} at {mark[0]:.2f} ({rule}), " if mark else ""
        legend.append((series, f"{name}{walked}: {at}best {percent(best[1])} at {best[0]:.2f}"))
    svg = line_chart(
        lines,
        title="mIoU over the background threshold: " + "; ".join(text for _, text in legend),
        x_label="background threshold",
        y_label="mIoU, %",
        percent=True,
        size=(1000, 380),
    )
    note = (
        "Dots and drop lines: the thresholds that were chosen; under rule otsu every image has its own, and a dot may "
        "lie beside the curve. Rings: the best in hindsight. The curves are made with the masks, for reporting only."
    )
    return Chart("mIoU over the background threshold", svg, note, legend) if svg else None


def class_tables(files: RunFiles, results: Mapping[str, Result]) -> list[ClassTable]:
    """IoU of every class, for seeds and masks and for networks."""
    parts = {
        "Seeds and pseudo-masks": ("seeds", "refinements"),
        "Segmentation networks": ("segmentations",),
    }
    tables = []
    for title, sections in parts.items():
        names = [n for n, r in results.items() if r.scores and files.stages[n].section in sections]
        if not names:
            continue
        rows = [read_evaluation(files.folder(name) / "evaluation.csv").rows for name in names]
        split = results[names[0]].header.split
        best = "; the best of each row stands out" if len(names) > 1 else ""
        tables.append(
            ClassTable(
                title,
                f"IoU in percent on {split} images{best}.",
                [(name, files.series[name]) for name in names],
                files.labels,
                [[row.get(label, {}).get("iou", math.nan) for row in rows] for label in files.labels],
                [row[MEAN_ROW]["iou"] for row in rows],
            )
        )
    return tables


def training_curves(files: RunFiles) -> list[Chart]:
    """Losses of every training."""
    charts = []
    for name in files.stages:
        path = files.folder(name) / "history.csv"
        if name not in files.configuration.current or not path.exists():
            continue
        rows = read_rows(path, ("step", "loss"))
        terms = [key for key in (rows[0] if rows else {}) if key not in ("step", "rate")]
        lines = [
            Line(term, [(float(row["step"]), float(row[term] or "nan")) for row in rows], series)
            for series, term in enumerate(terms)
        ]
        title = f"{name}: training loss"
        last = ", ".join(f"{line.name} {line.points[-1][1]:.3g}" for line in lines)
        svg = line_chart(lines, title=f"{title}, at the end {last}", x_label="step", y_label="loss", size=(330, 220))
        if svg:
            charts.append(Chart(title, svg, legend=[(line.series, line.name) for line in lines]))
    return charts


def recorded(files: RunFiles) -> list[Recorded]:
    """What seed methods recorded of their images, summed up."""
    found = []
    for name in files.having("seeds", "maps"):
        summary = summarise(record for _, record in files.statistics(name))
        if not summary.images:
            continue
        charts = []
        for key, curve in summary.curves.items():
            points = [(float(k), mean) for k, (mean, _) in enumerate(curve)]
            svg = line_chart(
                [Line(key, points, files.series[name])],
                title=f"{key} of {name}, mean over images",
                x_label="step",
                y_label="mean",
                size=(330, 220),
            )
            reach = f"Mean over the images that went so far: {curve[0][1]:,} at the start, {curve[-1][1]:,} at the end."
            charts.append(Chart(key, svg, reach))
        found.append(Recorded(name, summary.images, summary.counts, summary.numbers, charts))
    return found
