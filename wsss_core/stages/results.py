"""Stage: the table of a run's results, from the evaluations and benchmarks that its stages left."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss_core.errors import UserError
from wsss_core.evaluate.results import SCORES, ResultRow, Results, write_results
from wsss_core.evaluate.tables import read_evaluation
from wsss_core.execution import Execution
from wsss_core.registry import METHODS
from wsss_core.stages.costs import step_costs

log = logging.getLogger(__name__)

PRODUCTS = {
    "seeds": (("maps", "evaluation.csv"),),
    "refinements": (("walk", "walk.csv"), ("masks", "evaluation.csv")),
    "segmentations": (("predictions", "evaluation.csv"),),
}
"""Section to what a stage of it may have scored, and the file of its scores."""


def run(*, config: Path, run: Path, table: Path, execution: Execution) -> None:
    """Write the table of results; a product that was not scored (yet) has no row.

    Parameters
    ----------
    config
        JSON of `Configuration.results_json`.
    run
        Folder of the run.
    table
        CSV, a row for every scored product of every scored target.

    Raises
    ------
    UserError
        If the configuration or an evaluation cannot be read.
    """
    try:
        content = json.loads(Path(config).read_text(encoding="utf-8"))
        stages = [dict(stage) for stage in content["stages"]]
        results = Results(content["run"], int(content["seed"]), ())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config}: is not the configuration of a table of results ({error!r})") from error
    rows = tuple(row for stage in stages for row in _rows(Path(run), stage))
    write_results(table, Results(results.run, results.seed, rows))
    log.info("%s: %d rows", table, len(rows))


def _rows(run: Path, stage: Mapping[str, Any]) -> Iterator[ResultRow]:
    section, name = stage["section"], stage["stage"]
    folder = run / section / name
    steps = METHODS[section][stage["method"]].steps
    cost = _cost(run, f"{section}/{name}", list(steps))
    for product, file in PRODUCTS[section]:
        path = folder / file
        if product == "walk" and "scores" not in steps:
            continue
        if not path.exists():
            log.info("%s/%s: %s were not scored", section, name, product)
            continue
        evaluation = read_evaluation(path)
        mean = evaluation.rows.get("mean", {})
        header = evaluation.header
        rule = f"{header.rule}, {header.reason}" if header.rule else ""
        yield ResultRow(
            section=section,
            stage=name,
            base=stage["base"],
            method=stage["method"],
            swept=dict(stage["swept"]),
            product=product,
            upstream=tuple(stage["upstream"]),
            split=header.split,
            images=header.images,
            rule="; ".join(filter(None, [rule, _inherited(stage)])),
            threshold=math.nan if header.cut.threshold is None else header.cut.threshold,
            **{score: mean.get("iou" if score == "miou" else score, math.nan) for score in SCORES},
            undecided=header.undecided,
            **(_oracle(folder) if product in ("maps", "walk") else {}),
            **cost,
            settings=stage["settings"],
        )


def _cost(run: Path, folder: str, steps: Sequence[str]) -> dict[str, float]:
    """Seconds and memory of a stage; NaN where benchmarks are missing, as the sum of the others would look cheap."""
    spent, missing = step_costs(run, folder, steps)
    if missing:
        log.info("%s: no time and memory, as %s is missing (%d in all)", folder, missing[0], len(missing))
        return {"seconds": math.nan, "memory_mb": math.nan}
    return {
        "seconds": math.fsum(cost.seconds for cost in spent),
        "memory_mb": max((cost.memory for cost in spent if cost.memory is not None), default=math.nan),
    }


def _inherited(stage: Mapping[str, Any]) -> str:
    """Says that a stage is built on masks whose threshold was chosen with the masks scored; "" if it is not."""
    if stage["oracle"] in ("", stage["stage"]):
        return ""
    return f"built on {stage['oracle']}: oracle, chosen with the masks"


def _oracle(folder: Path) -> dict[str, float]:
    """The best threshold in hindsight, from the file that the scoring of maps writes; nothing without masks."""
    path = folder / "threshold.json"
    try:
        oracle = json.loads(path.read_text(encoding="utf-8")).get("oracle") if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path}: threshold cannot be read ({error})") from error
    return {"oracle_threshold": oracle["value"], "oracle_miou": oracle["miou"]} if oracle else {}
