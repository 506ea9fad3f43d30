"""Stage: the HTML page of a run, from the files that its stages left."""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import json
import logging
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss_core import __version__
from wsss_core.config import read_schema
from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.tables import CURVE_COLUMNS, read_evaluation
from wsss_core.execution import Execution
from wsss_core.registry import METHODS
from wsss_core.report import overlays
from wsss_core.report.charts import Line, line_chart
from wsss_core.report.choose import Choice, choose, image_miou, mistakes, sample
from wsss_core.report.graph import Node, graph_svg
from wsss_core.report.page import (
    Cell,
    Chart,
    ClassTable,
    Gallery,
    Page,
    Recorded,
    Result,
    Row,
    StageSettings,
    percent,
    render,
    slug,
)
from wsss_core.report.provenance import Cost, duration, settings_lines
from wsss_core.report.summary import summarise
from wsss_core.stages.analyses import analyses, figures
from wsss_core.stages.costs import step_costs
from wsss_core.stages.run_files import Labels, RunFiles
from wsss_core.store.atomic import atomic_path
from wsss_core.store.masks import read_mask

log = logging.getLogger(__name__)

RANKED = 2000
"""At most so many images are scored one by one to find the best and the worst."""

LONG_SIDE = 320
COLUMNS = 6
PROBLEMS = 200
MISTAKES = 10
LIBRARIES = ("torch", "torchvision", "numpy", "h5py", "opencv-python-headless", "pydensecrf2", "snakemake")
KINDS = {
    "classifiers": "classifier",
    "seeds": "seed",
    "refinements": "pseudo-mask",
    "segmentations": "network",
}
"""Section to what one stage of it makes."""


def run(*, config: Path, run: Path, report: Path, execution: Execution) -> None:
    """Write the page of a run; what the run does not have is left out.

    Parameters
    ----------
    config
        JSON of `Configuration.report_json`.
    run
        Folder of the run.
    report
        HTML file.

    Raises
    ------
    UserError
        If the configuration or the image table cannot be read.
    """
    device = execution.torch_device()
    files = RunFiles(Path(run), _content(config))
    log.info("scores and settings")
    results = _results(files)
    spent = _costs(files)
    page = Page(
        run=files.content["run"],
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        facts=_facts(files, spent),
        labels=files.labels,
        results=list(results.values()),
        path=_path(files, results),
        galleries=galleries(files),
        thresholds=_thresholds(files),
        tables=_class_tables(files, results),
        figures=figures(files),
        analyses=analyses(files),
        training=_training(files),
        recorded=_recorded(files),
        graph=_graph(files, results),
        settings=_settings(files),
        costs=spent,
        versions=_versions(device),
        problems=_problems(files.run / "problems.csv"),
        colours=[tuple(int(v) for v in colour) for colour in overlays.PALETTE],
    )
    html = render(page)
    with atomic_path(report) as temporary:
        temporary.write_text(html, encoding="utf-8")
    log.info("%s: %.1f MB", report, len(html) / 1e6)


def _content(config: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(Path(config).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{config}: is not a report's configuration ({error!r})") from error
    missing = {"run", "stages", "targets", "dataset", "report", "seed"} - set(content)
    if missing:
        raise UserError(f"{config}: is not a report's configuration ({', '.join(sorted(missing))} missing)")
    return content


def _facts(files: RunFiles, spent: Sequence[Cost]) -> list[tuple[str, str]]:
    words = {"train": "train", "score": "scored", "val": "val", "ood": "out of distribution"}
    counts = {words[s]: len(files.table.split(s)) for s in words}
    facts = [
        ("Data", f"{files.content['dataset'].get('format', '?')}, {len(files.table.class_names)} classes"),
        ("Images", ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"),
        ("Seed of the run", str(files.content["seed"])),
    ]
    if spent:
        facts.append(("Time of all jobs", duration(sum(cost.seconds for cost in spent))))
    return facts


def _results(files: RunFiles) -> dict[str, Result]:
    results: dict[str, Result] = {}
    for name, stage in files.stages.items():
        path = files.folder(name) / "evaluation.csv"
        if name not in files.content["targets"] or not path.exists():
            continue
        evaluation = read_evaluation(path)
        header = evaluation.header
        mean = evaluation.rows.get("mean", {})
        chosen = files.threshold(name)
        oracle = (chosen or {}).get("oracle")
        words = [_threshold_words(header)] if header.rule else []
        words += [f"built on {stage['oracle']}"] if stage["oracle"] not in ("", name) else []
        results[name] = Result(
            stage=name,
            section=KINDS[stage["section"]],
            method=stage["method"],
            series=files.series[name],
            source=list(stage["upstream"].values()),
            scores={"miou": mean["iou"], **{k: mean[k] for k in ("precision", "recall", "f1")}} if mean else {},
            header=header,
            threshold="; ".join(words),
            leaks=header.cut.leaks or bool(stage["oracle"]),
            best=(oracle["value"], oracle["miou"]) if oracle else None,
        )
    return results


def _threshold_words(header: ScoreHeader) -> str:
    """The threshold and its rule; that it leaks is said beside it."""
    value = "" if header.cut.threshold is None else f"{header.cut.threshold:.10g}"
    return ", ".join(filter(None, [value, header.rule, "" if header.cut.leaks else header.reason]))


def _path(files: RunFiles, results: Mapping[str, Result]) -> list[Result]:
    scored = [name for name, result in results.items() if result.scores]
    path: list[Result] = []
    name = scored[-1] if scored else None
    while name is not None:
        if name in scored and (not path or not results[name].header.undecided):
            path.append(results[name])
        name = next(iter(files.stages[name]["upstream"].values()), None)
    return path[::-1]


def galleries(files: RunFiles) -> list[Gallery]:
    """Pictures of training and of validation images, stage by stage; empty without images or settings to show any."""
    count = files.content["report"].get("images", 0)
    if not count:
        return []
    seeds, refinements = files.having("seeds", "maps"), files.having("refinements", "masks")
    networks = files.having("segmentations", "predictions")
    found = [
        _gallery(files, "Training images", "train", "score", [*seeds, *refinements], count),
        _gallery(files, "Validation images", "val", "val", networks, count),
    ]
    return [gallery for gallery in found if gallery is not None]


def _gallery(files: RunFiles, title: str, split: str, role: str, names: Sequence[str], count: int) -> Gallery | None:
    """Pictures of a split; `role` is that of the images whose masks may be looked at."""
    records = {record.id: record for record in files.table.split(split)}
    if not records or not names:
        return None
    log.info("pictures of %s", title.lower())
    names = _as_columns(files, names)
    shards = files.shards(split)
    reader = Labels(files, shards)
    scored = [r.id for r in records.values() if role in r.splits and r.mask and r.id in shards]
    ranked = sample(scored, RANKED)
    choices, matrix = _ranking(files, reader, names[-1], [records[i] for i in ranked], count)
    if not choices:
        tagged = [i for i, record in records.items() if record.classes and i in shards]
        choices = [Choice(i) for i in (tagged or sorted(records))[:count]]
    rows = [_row(files, reader, records[choice.id], choice, names, role) for choice in choices]
    with_truth = any(row.cells[-1].uri for row in rows)
    columns = [("image", "")]
    columns += [(name, f"{KINDS[files.stages[name]['section']]}, {files.stages[name]['method']}") for name in names]
    columns += [("truth", "for reporting")] if with_truth else []
    if not with_truth:
        rows = [Row(row.id, row.reason, row.tags, row.cells[:-1]) for row in rows]
    return Gallery(
        title,
        _gallery_note(files, names, scored, ranked, choices),
        columns,
        rows,
        mistakes(matrix, MISTAKES) if matrix is not None else [],
        names[-1],
    )


def _gallery_note(
    files: RunFiles, names: Sequence[str], scored: Sequence[str], ranked: Sequence[str], choices: Sequence[Choice]
) -> str:
    words = []
    if any(choice.reason for choice in choices):
        among = (
            f"{len(scored):,} images" if len(ranked) == len(scored) else f"{len(ranked):,} of {len(scored):,} images"
        )
        words.append(f"The best, the median and the worst of {among} by {names[-1]}.")
    if scored:
        words.append("Under each picture: mIoU over the labels of this image, in percent.")
    if any(files.stages[name]["section"] == "seeds" for name in names):
        words.append("Seeds show the strongest class of every pixel; the dark line is the background threshold.")
    return " ".join(words)


def _as_columns(files: RunFiles, names: Sequence[str]) -> list[str]:
    """At most `COLUMNS` stages: the last one and as many others as fit, targets before the rest."""
    targets = [name for name in names[:-1] if name in files.content["targets"]]
    others = [name for name in names[:-1] if name not in targets]
    kept = {names[-1], *[*targets, *others][: COLUMNS - 1]}
    return [name for name in names if name in kept]


def _ranking(
    files: RunFiles, reader: Labels, name: str, records: Sequence[ImageRecord], count: int
) -> tuple[list[Choice], np.ndarray | None]:
    """The images to show by the scores of one stage, among those that hold a class; and their confusion matrix."""
    scores: dict[str, float] = {}
    total = np.zeros((len(files.labels), len(files.labels)), dtype=np.int64)
    for record in records:
        target = read_mask(Path(record.mask), record.size, len(files.labels))
        matrix = reader.matrix(name, record, target)
        if matrix is None:
            continue
        total += matrix
        if matrix[1:].any():
            scores[record.id] = image_miou(matrix)
    return choose(scores, count), total if scores else None


def _row(files: RunFiles, reader: Labels, record: ImageRecord, choice: Choice, names: Sequence[str], role: str) -> Row:
    image = read_image(Path(record.path))
    size = overlays.fitted(*record.size, LONG_SIDE)
    small = overlays.resized(image, size)
    tags = [(c + 1, files.labels[c + 1]) for c in record.classes]
    described = f"image {record.id} ({', '.join(name for _, name in tags) or 'no class'})"
    target = None
    if role in record.splits and record.mask:
        target = read_mask(Path(record.mask), record.size, len(files.labels))
    cells = [Cell(overlays.data_uri(small), f"Photo: {described}")]
    for name in names:
        matrix = reader.matrix(name, record, target) if target is not None else None
        score = None if matrix is None else image_miou(matrix)
        picture = _picture(files, reader, name, record, small, size)
        alt = f"{name} on {described}" + (f", mIoU {percent(score)} %" if score is not None else "")
        cells.append(Cell(overlays.data_uri(picture) if picture is not None else "", alt, score))
    truth = overlays.mask_overlay(small, overlays.resized_labels(target, size)) if target is not None else None
    cells.append(Cell(overlays.data_uri(truth) if truth is not None else "", f"True mask of {described}"))
    return Row(record.id, choice.reason, tags, cells)


def _picture(
    files: RunFiles, reader: Labels, name: str, record: ImageRecord, small: np.ndarray, size: tuple[int, int]
) -> np.ndarray | None:
    if files.stages[name]["section"] == "seeds":
        found = reader.maps(name, record.id)
        if found is None:
            return None
        maps, classes = found
        return overlays.heat_overlay(small, overlays.resized_maps(maps.numpy(), size), classes, reader.threshold(name))
    labels = reader.labels(name, record)
    return None if labels is None else overlays.mask_overlay(small, overlays.resized_labels(labels, size))


def _thresholds(files: RunFiles) -> Chart | None:
    lines, legend = [], []
    for name in (*files.having("seeds", "curve.csv"), *files.having("refinements", "curve.csv")):
        if name not in files.content["targets"]:
            continue
        rows = _csv(files.folder(name) / "curve.csv", CURVE_COLUMNS)
        points = [(float(row["threshold"]), float(row["miou"] or "nan")) for row in rows]
        if not points:
            continue
        chosen = files.threshold(name) or {}
        mark = (chosen["value"], chosen["miou"]) if "miou" in chosen else None
        oracle = chosen.get("oracle")
        best = (oracle["value"], oracle["miou"]) if oracle else max(points, key=lambda p: p[1])
        series = files.series[name]
        lines.append(Line(name, points, series, mark, best))
        walked = " (walked maps)" if files.stages[name]["section"] == "refinements" else ""
        at = f"{percent(mark[1])} at {mark[0]:.2f} ({chosen.get('rule')}), " if mark else ""
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
        "Dots and drop lines: the thresholds that were chosen. Rings: the best in hindsight. The curves are made with "
        "the masks, for reporting only."
    )
    return Chart("mIoU over the background threshold", svg, note, legend) if svg else None


def _class_tables(files: RunFiles, results: Mapping[str, Result]) -> list[ClassTable]:
    parts = {
        "Seeds and pseudo-masks": ("seeds", "refinements"),
        "Segmentation networks": ("segmentations",),
    }
    tables = []
    for title, sections in parts.items():
        names = [n for n, r in results.items() if r.scores and files.stages[n]["section"] in sections]
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
                [row["mean"]["iou"] for row in rows],
            )
        )
    return tables


def _training(files: RunFiles) -> list[Chart]:
    charts = []
    for name in files.stages:
        path = files.folder(name) / "history.csv"
        if name not in files.current or not path.exists():
            continue
        rows = _csv(path, ("step", "loss"))
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


def _recorded(files: RunFiles) -> list[Recorded]:
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


def _graph(files: RunFiles, results: Mapping[str, Result]) -> str:
    nodes = {"": Node("images", files.content["dataset"].get("format", ""), kind="dataset", link="#stage-dataset")}
    edges: dict[str, list[str]] = {"": []}
    for name, stage in files.stages.items():
        scores = results[name].scores if name in results else {}
        kind = stage["section"] + ("" if name in files.current else " aside")
        nodes[name] = Node(
            name, stage["method"], percent(scores["miou"]) if scores else "", kind, f"#stage-{slug(name)}"
        )
        edges[name] = list(stage["upstream"].values()) or [""]
    described = "; ".join(f"{name} from {', '.join(e or 'images' for e in edges[name])}" for name in files.stages)
    return graph_svg(nodes, edges, f"Stages: {described}")


def _settings(files: RunFiles) -> list[StageSettings]:
    definitions = read_schema()["$defs"]
    dataset = dict(files.content["dataset"])
    form = dataset.pop("format", "")
    pages = [StageSettings("dataset", form, settings_lines(dataset, definitions.get(f"dataset.{form}", {})))]
    for name, stage in files.stages.items():
        if name not in files.current:
            continue
        schema = definitions.get(f"{stage['section']}.{stage['method']}", {})
        steps = METHODS[stage["section"]][stage["method"]].steps
        given: dict[str, Any] = {}
        for step, settings in stage["settings"].items():
            key = steps[step].key if step in steps else step
            given |= {key: settings} if key else settings
        about = f"{KINDS[stage['section']]}, {stage['method']}"
        sources = ", ".join(stage["upstream"].values())
        about += f" from {sources}" if sources else ""
        pages.append(StageSettings(name, about, settings_lines(given, schema)))
    return pages


def _costs(files: RunFiles) -> list[Cost]:
    steps = {"dataset": ["index"]}
    for name, stage in files.stages.items():
        if name in files.current:
            steps[f"{stage['section']}/{name}"] = list(METHODS[stage["section"]][stage["method"]].steps)
    return [cost for folder, names in steps.items() for cost in step_costs(files.run, folder, names)[0]]


def _versions(device: torch.device) -> list[tuple[str, str]]:
    found = [("wsss", __version__), ("Python", platform.python_version())]
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append((library, importlib.metadata.version(library)))
    found += [("system", platform.platform(terse=True)), ("CPU cores", str(os.cpu_count()))]
    if device.type == "cuda":
        found.append(("GPU", torch.cuda.get_device_name(device)))
    return found


def _problems(path: Path) -> list[Mapping[str, str]]:
    return _csv(path, ())[:PROBLEMS] if path.exists() else []


def _csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file, comment lines skipped; UserError if it lacks a column."""
    with open(path, encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(line for line in handle if not line.startswith("#"))
        missing = set(columns) - set(reader.fieldnames or ())
        if missing and reader.fieldnames:
            raise UserError(f"{path}: has no column {', '.join(sorted(missing))}")
        return list(reader)
