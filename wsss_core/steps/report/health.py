"""What the page says in words, and what can be told without true masks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsss_core.constants import MEAN_ROW
from wsss_core.evaluate.health import Finding, above_chance, findings, read_health
from wsss_core.evaluate.tables import read_evaluation
from wsss_core.jobs.run_files import KINDS, RunFiles
from wsss_core.registry import SCORED_SECTIONS
from wsss_core.report.page import Health, Number, NumberTable, Result, percent

WORDS = (
    (0.3, "poor: most of it is wrong"),
    (0.5, "rough: the right things in about the right places"),
    (0.65, "fair: good enough to train on, not to measure with"),
    (0.8, "good: about what these methods reach on PASCAL VOC"),
    (1.01, "very good: close to masks drawn by hand"),
)
"""Mean IoU below which a result is called so."""


def health(files: RunFiles) -> Health | None:
    """Signs of every stage, and what is wrong; None in a run that was not looked at."""
    path = files.run / "health.json"
    if not path.exists():
        return None
    content = read_health(path)
    stages = content["stages"]
    tables = [_classifier_table(name, stages[name]) for name in _in(files, stages, "classifiers")]
    masks = [*_in(files, stages, "seeds"), *_in(files, stages, "refinements")]
    tables += [_mask_table(masks, stages), _coverage_table(masks, stages)] if masks else []
    return Health(findings(content["findings"]), tables)


def opening(files: RunFiles, results: Mapping[str, Result], found: Health | None) -> list[str]:
    """Sentences on what was given, what came out, how good that is, the weakest class, and what to do next."""
    scored = [result for result in results.values() if result.scores and not math.isnan(result.scores["miou"])]
    problems = found.findings if found else ()
    return [_given(files), _came_out(files), *_how_good(files, scored, problems), _next(scored, problems)]


def _given(files: RunFiles) -> str:
    names, records = files.table.class_names, files.table.split("train")
    counts = sorted(((sum(c in r.classes for r in records), name) for c, name in enumerate(names)), reverse=True)
    if len(names) == 1:
        classes = f"{counts[0][1]} (in {counts[0][0]:,} of them)"
    else:
        classes = (
            f"{len(names)} classes, from {counts[0][1]} (in {counts[0][0]:,}) to {counts[-1][1]} (in {counts[-1][0]:,})"
        )
    return f"Given were {len(records):,} photos with tags of {classes}."


def _came_out(files: RunFiles) -> str:
    made = [name for name in files.configuration.targets if files.stages[name].section in SCORED_SECTIONS]
    if not made:
        return "No masks were asked for."
    stage = files.stages[made[-1]]
    return f"What came out last is the stage {stage.name}: {KINDS[stage.section]}s of the method {stage.method}."


def _how_good(files: RunFiles, scored: Sequence[Result], problems: Sequence[Finding]) -> list[str]:
    if not scored:
        some = "1 sign" if len(problems) == 1 else f"{len(problems)} signs"
        verb = "stands" if len(problems) == 1 else "stand"
        signs = f"{some} that something is wrong {verb} below" if problems else "no sign of trouble was found"
        return [f"There are no true masks, so nobody can say how good that is; {signs}."]
    last = scored[-1]
    miou = last.scores["miou"]
    word = next(words for limit, words in WORDS if miou < limit)
    said = [
        f"On {last.header.images} photos with true masks, the stage {last.stage} has a mean IoU of {percent(miou)} %, "
        f"which is {word}."
    ]
    rows = read_evaluation(files.folder(last.stage) / "evaluation.csv").rows
    known = {name: row["iou"] for name, row in rows.items() if name != MEAN_ROW and not math.isnan(row["iou"])}
    if len(known) > 1:
        weakest = min(known, key=known.__getitem__)
        said.append(f"The weakest class is {weakest}, with {percent(known[weakest])} %.")
    return said


def _next(scored: Sequence[Result], problems: Sequence[Finding]) -> str:
    if problems:
        return f"What to do next: {problems[0].line()}."
    if not scored:
        return (
            "What to do next: look at the pictures. Masks of ten photos, drawn by hand in a folder that dataset.masks "
            "names, are enough for a first score."
        )
    return "What to do next: look at the pictures of the weakest class, and at the thresholds."


def _in(files: RunFiles, stages: Iterable[str], section: str) -> list[str]:
    return [name for name in files.stages if name in set(stages) and files.stages[name].section == section]


def _classifier_table(name: str, signs: Mapping[str, Any]) -> NumberTable:
    """Average precision of the tags, as the way from chance to perfect."""
    rows = []
    for label, one in signs["classes"].items():
        ways = [None if one[key] is None else above_chance(one[key], one["chance"]) for key in ("precision", "unseen")]
        rows.append((label, [Number(str(one["images"])), *map(_share, ways), _share(one["zero_maps"])]))
    note = (
        "How well the tags are told, in percent of the way from chance to perfect (of the average precision): on the "
        "photos for training, and cross-validated, on photos that the last layer was not fitted on. Then the share of "
        "tags whose map is zero everywhere. A dash: too few photos with the tag, or without it."
    )
    return NumberTable(f"{name}: the tags", note, ["Class", "Photos", "Training", "Unseen", "Zero maps"], rows)


def _mask_table(names: Sequence[str], stages: Mapping[str, Any]) -> NumberTable:
    """A row a stage."""
    rows = [(name, [_share(stages[name][key]) for key in ("empty", "kept", "agreement")]) for name in names]
    note = (
        "In percent: photos with tags whose mask is empty; tags that some pixel of their photo has; agreement with the "
        "stage that the masks were made from, as a mean IoU. Disagreement is no fault: it says what a stage changed."
    )
    return NumberTable("The masks", note, ["Stage", "Empty", "Tags kept", "Agreement"], rows)


def _coverage_table(names: Sequence[str], stages: Mapping[str, Any]) -> NumberTable:
    """A row a class, a column a stage."""
    labels = list(stages[names[0]]["classes"])
    rows = [(label, [_share(stages[name]["classes"][label]["coverage"]) for name in names]) for label in labels]
    note = (
        "Share of the photo's pixels that a class covers, where it is tagged, in percent: a class at 0 is in no mask."
    )
    return NumberTable("Coverage of the classes", note, ["Class", *names], rows)


def _share(value: float | None) -> Number:
    return Number(percent(value), 0.0 if value is None else min(max(value, 0.0), 1.0))
