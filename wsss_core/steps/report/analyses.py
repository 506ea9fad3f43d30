"""The report's analyses, which a run shows if its configuration asks for them (`ReportSettings`)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_core.constants import IGNORE, MEAN_ROW
from wsss_core.data.missing import true_labels
from wsss_core.data.table import ImageRecord
from wsss_core.evaluate.adaptation import Trajectory, quantile_curves, stop_counts, trajectories
from wsss_core.evaluate.confusion import Metrics, metrics
from wsss_core.evaluate.gains import gains
from wsss_core.evaluate.sizes import GROUPS, object_parts, size_counts, size_ious, smallest_and_largest
from wsss_core.evaluate.tables import Evaluation, read_evaluation
from wsss_core.jobs.run_files import Labels, RunFiles
from wsss_core.registry import SCORED_SECTIONS
from wsss_core.report.charts import Line, inline, line_chart
from wsss_core.report.choose import sample
from wsss_core.report.page import Analysis, Chart, ClassTable, Number, NumberTable, percent

log = logging.getLogger(__name__)

SCORED = 2000
"""At most so many images are looked at for the sizes of objects."""

CURVES = 150
"""At most so many images' logits are drawn."""


def analyses(files: RunFiles) -> list[Analysis]:
    """What the run's configuration asks for and its files hold."""
    wanted = files.configuration.report
    found = [_scores(files, _having(files, wanted.get("scores", ()), "evaluation.csv"))]
    found += [_gains(files, wanted.get("gains", ()))]
    if wanted.get("sizes") is not None:
        names = wanted["sizes"]["stages"] or files.configuration.targets
        found.append(_sizes(files, _having(files, names, "evaluation.csv"), wanted["sizes"]))
    if wanted.get("features") is not None:
        found.append(_features(files))
    found += [_adaptation(files, name) for name in _having(files, wanted.get("adaptation", ()), "maps")]
    return [analysis for analysis in found if analysis is not None]


def figures(files: RunFiles) -> list[Chart]:
    """The figures that were drawn from the table of results."""
    settings = files.configuration.figures
    paths = {figure["name"]: files.run / "figures" / f"{figure['name']}.svg" for figure in settings}
    titles = {figure["name"]: figure["title"] or figure["name"] for figure in settings}
    texts = {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.exists()}
    return [Chart(titles[name], inline(text)) for name, text in texts.items()]


def _having(files: RunFiles, names: Sequence[str], product: str) -> list[str]:
    """The stages of the given names, or variants of them, that are up to date and have made a file."""
    found = [s for name in names for s in files.stages if name in (s, files.stages[s].base)]
    found = [
        s
        for s in dict.fromkeys(found)
        if s in files.configuration.current and files.stages[s].section in SCORED_SECTIONS
    ]
    return [s for s in found if (files.folder(s) / product).exists()]


def _evaluation(files: RunFiles, name: str) -> Evaluation:
    return read_evaluation(files.folder(name) / "evaluation.csv")


def _scored_on(evaluation: Evaluation) -> str:
    return f"{evaluation.header.images} {evaluation.header.split} images"


def _scores(files: RunFiles, names: Sequence[str]) -> Analysis | None:
    evaluations = {name: found for name in names if (found := _evaluation(files, name)).rows}
    if not evaluations:
        return None
    tables = []
    for score in ("precision", "recall", "f1"):
        rows = [evaluation.rows for evaluation in evaluations.values()]
        tables.append(
            ClassTable(
                "F1" if score == "f1" else score.capitalize(),
                "Percent" + ("; the best of each row stands out." if len(rows) > 1 else "."),
                [(name, files.series[name]) for name in evaluations],
                files.labels,
                [[row.get(label, {}).get(score, math.nan) for row in rows] for label in files.labels],
                [row[MEAN_ROW][score] for row in rows],
            )
        )
    note = "; ".join(f"{name}: {_scored_on(evaluation)}" for name, evaluation in evaluations.items())
    return Analysis("Precision, recall and F1", f"Scored on {note}.", class_tables=tables)


def _gains(files: RunFiles, pairs: Sequence[Sequence[str]]) -> Analysis | None:
    found = []
    for before, after in pairs:
        for one in _having(files, [before], "evaluation.csv"):
            found += [_gain_table(files, one, two) for two in _having(files, [after], "evaluation.csv") if one != two]
    tables = [table for table in found if table is not None]
    return Analysis("Gains by class", "IoU in percent, greatest gain first.", tables=tables) if tables else None


def _gain_table(files: RunFiles, before: str, after: str) -> NumberTable | None:
    first, second = _evaluation(files, before), _evaluation(files, after)
    if not (first.rows and second.rows):
        return None
    iou = [{label: row["iou"] for label, row in found.rows.items() if label != MEAN_ROW} for found in (first, second)]
    found = gains(*iou)
    largest = max((abs(gain.difference) for gain in found), default=0.0)
    rows = [
        (
            gain.label,
            [
                Number(percent(gain.before)),
                Number(percent(gain.after)),
                Number(
                    f"{100 * gain.difference:+.1f}",
                    abs(gain.difference) / largest if largest else 0.0,
                    "loss" if gain.difference < 0 else "",
                ),
            ],
        )
        for gain in found
    ]
    means = [found.rows[MEAN_ROW]["iou"] for found in (first, second)]
    better = sum(gain.difference > 0 for gain in found)
    note = f"{better} of {len(found)} labels gain; the mean goes from {percent(means[0])} to {percent(means[1])}."
    if _scored_on(first) != _scored_on(second):
        note += f" Not the same images: {_scored_on(first)} against {_scored_on(second)}."
    return NumberTable(f"{before} → {after}", note, ["Class", before, after, "Gain"], rows)


@dataclass(frozen=True)
class _Sized:
    """Counts of one stage over images: by size of object [3, C, 4], and as one confusion matrix [L, L]."""

    counts: np.ndarray
    matrix: np.ndarray


def _sizes(files: RunFiles, names: Sequence[str], settings: Mapping[str, Any]) -> Analysis | None:
    tables: list[NumberTable] = []
    for split, role, product in (("train", "score", "maps and masks"), ("val", "val", "predictions")):
        shards = files.shards(split)
        having = [n for n in names if (files.stages[n].section == "segmentations") == (split == "val")]
        records = {r.id: r for r in files.table.in_shards(split) if role in r.splits and r.mask and r.id in shards}
        if not having or not records:
            continue
        chosen = [records[i] for i in sample(list(records), SCORED)]
        log.info("sizes of objects in %d %s images", len(chosen), split)
        means, sized = _sized(files, Labels(files, shards), having, chosen, settings["limits"])
        among = f"{len(chosen):,} {role} images, {product}"
        if any(_evaluation(files, n).header.choosing for n in having):
            among += ", also of the images on which a threshold was chosen"
        tables += [_size_table(sized, settings["limits"], among)]
        tables += [_class_size_table(files, means, sized, settings["classes"], among)]
    limits = " and ".join(f"{100 * limit:g} %" for limit in settings["limits"])
    note = (
        f"An object is all pixels of one class in one image; it is small, medium or large by the part of the image's "
        f"labelled pixels that it covers, with limits at {limits}."
    )
    return Analysis("Object sizes", note, tables=tables) if tables else None


def _sized(
    files: RunFiles, reader: Labels, names: Sequence[str], records: Sequence[ImageRecord], limits: Sequence[float]
) -> tuple[np.ndarray, dict[str, _Sized]]:
    """Mean size of every class's objects [C], and the counts of every stage over the images that all of them have."""
    n = len(files.labels)
    parts: list[np.ndarray] = []
    sized = {name: _Sized(np.zeros((len(GROUPS), n - 1, 4), int), np.zeros((n, n), int)) for name in names}
    for record in sorted(records, key=lambda record: reader.shards[record.id]):
        target = true_labels(record, n)
        found = {name: reader.matrix(name, record, target) for name in names}
        matrices = {name: matrix for name, matrix in found.items() if matrix is not None}
        if len(matrices) < len(found):
            continue
        parts.append(object_parts(np.bincount(target[target != IGNORE], minlength=n)))
        for name, matrix in matrices.items():
            sized[name].counts[...] += size_counts(matrix, parts[-1], limits)
            sized[name].matrix[...] += matrix
    held = np.array(parts).reshape(-1, n - 1)
    with np.errstate(invalid="ignore"):
        return held.sum(0) / (held > 0).sum(0), sized


def _size_table(sized: Mapping[str, _Sized], limits: Sequence[float], among: str) -> NumberTable:
    objects = next(iter(sized.values())).counts[..., 0].sum(1)
    low, high = (f"{100 * limit:g} %" for limit in limits)
    words = (f"small, below {low}", f"medium, {low} to {high}", f"large, from {high}")
    ious = np.array([size_ious(found.counts) for found in sized.values()])
    rows = [
        (words[g], [Number(f"{objects[g]:,}"), *(_best(percent(v), v, ious[:, g]) for v in ious[:, g])])
        for g in range(len(GROUPS))
    ]
    note = (
        f"IoU of objects, averaged over the classes that have objects of the size; {among}. "
        "Pixels given a class that the image does not hold are not counted."
    )
    return NumberTable("IoU by size of object", note, ["Objects", "Number", *sized], rows)


def _class_size_table(
    files: RunFiles, means: np.ndarray, sized: Mapping[str, _Sized], count: int, among: str
) -> NumberTable:
    smallest, largest = smallest_and_largest(means.tolist(), count)
    groups = {
        "all classes": [c for c in range(len(means)) if not np.isnan(means[c])],
        f"smallest objects: {_names(files, smallest)}": smallest,
        f"largest objects: {_names(files, largest)}": largest,
    }
    scores = {name: metrics(found.matrix) for name, found in sized.items()}
    rows = []
    for words, classes in groups.items():
        if not classes:
            continue
        values = {s: [_mean(found, s, classes) for found in scores.values()] for s in ("precision", "recall", "f1")}
        numbers = [
            _best(percent(values[s][k]), values[s][k], np.array(values[s])) for k in range(len(scores)) for s in values
        ]
        rows.append((words, numbers))
    columns = [f"{name} {score}" for name in sized for score in ("precision", "recall", "F1")]
    note = (
        f"Classes by the mean size of their objects; percent, averaged over the classes without background; {among}. "
        "As in Table 3.5 of J. Lee's dissertation, where 10 classes of COCO were taken on each side."
    )
    return NumberTable("Classes of small and of large objects", note, ["Classes", *columns], rows)


def _names(files: RunFiles, classes: Sequence[int]) -> str:
    return ", ".join(files.labels[c + 1] for c in classes)


def _mean(scores: Metrics, name: str, classes: Sequence[int]) -> float:
    values = getattr(scores, name)[[c + 1 for c in classes]]
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _best(text: str, value: float, among: np.ndarray) -> Number:
    known = among[~np.isnan(among)]
    stands_out = len(known) > 1 and len(set(known.tolist())) > 1 and value == known.max()
    return Number(text, 0.0 if math.isnan(value) else float(value), "strong" if stands_out else "")


def _features(files: RunFiles) -> Analysis | None:
    path = files.run / "analyses" / "features.svg"
    if not path.exists():
        return None
    note = (
        "Features before the last layer, averaged over all cells, in the plane by t-SNE (analyses/features.csv): "
        "training images that hold exactly one class. Rings: images that hold none, under the class the first "
        "classifier finds in them most. Axes and distances between groups mean nothing; each classifier has a plane of "
        "its own."
    )
    chart = Chart("Features of training images", inline(path.read_text(encoding="utf-8")))
    return Analysis("Features", note, charts=[chart])


def _adaptation(files: RunFiles, name: str) -> Analysis | None:
    found = trajectories(files.statistics(name))
    if not found:
        return None
    counts = stop_counts(found)
    steps = sorted({maps for by_maps in counts.values() for maps in by_maps})
    rows = []
    for reason, by_maps in counts.items():
        total = sum(by_maps.values())
        numbers = [Number(f"{by_maps.get(k, 0):,}", by_maps.get(k, 0) / len(found)) for k in steps]
        rows.append((reason, [*numbers, Number(f"{total:,}", total / len(found), "strong")]))
    columns = ["Ended by", *(f"{k} maps" for k in steps), "Images"]
    table = NumberTable("Why images ended, by the number of maps summed", "", columns, rows)
    chart = _logit_chart(name, found, list(counts))
    return Analysis(f"How {name} went, image by image", f"{len(found):,} images.", tables=[table], charts=[chart])


def _logit_chart(name: str, found: Sequence[Trajectory], reasons: Sequence[str]) -> Chart:
    shown = set(sample([one.id for one in found], CURVES))
    lines = [
        Line(f"{one.id}, {one.stop}", list(enumerate(one.target)), reasons.index(one.stop), thin=True)
        for one in found
        if one.id in shown
    ]
    median = quantile_curves(found, (0.5,))[0]
    lines.append(Line("median", list(enumerate(median.tolist())), len(reasons)))
    svg = line_chart(
        lines,
        title=f"Target's summed logits over the steps of {name}, {len(shown)} images",
        x_label="step",
        y_label="target's summed logits",
        size=(1000, 380),
    )
    legend = [(k, reason) for k, reason in enumerate(reasons)] + [
        (len(reasons), "median of the images that went so far")
    ]
    note = f"{len(shown)} images, chosen by a hash of their ids, coloured by why they ended."
    return Chart("Target's summed logits", svg, note, legend)
