"""Write the table of a run's results, from the evaluations and benchmarks that its stages left."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from wsss_core.config import Configuration, Stage
from wsss_core.constants import MEAN_ROW
from wsss_core.evaluate.results import SCORES, ResultRow, Results, f_score, of_full_supervision, write_results
from wsss_core.evaluate.tables import read_evaluation
from wsss_core.execution import Execution
from wsss_core.jobs.configuration import read_run_configuration
from wsss_core.jobs.costs import step_costs
from wsss_core.jobs.inputs import read_threshold
from wsss_core.registry import METHODS, Step

log = logging.getLogger(__name__)


def run(*, config: Path, run: Path, table: Path, execution: Execution) -> None:
    """Write the table of results; a product that was not scored (yet) has no row.

    Parameters
    ----------
    config
        Settings file of the step: the stages of the run.
    run
        Folder of the run.
    table
        CSV to write, a row for every scored product of every target.

    Raises
    ------
    UserError
        If the configuration or an evaluation cannot be read.
    """
    configuration = read_run_configuration(config)
    sections = list(METHODS)
    targets = [configuration.stages[name] for name in configuration.targets]
    in_order = sorted(targets, key=lambda stage: sections.index(stage.section))
    rows = [row for stage in in_order for row in _rows(Path(run), configuration, stage)]
    networks = {row.stage: row.miou for row in rows if row.section == "segmentations"}
    parts = of_full_supervision(networks, configuration.fully_supervised)
    whole = tuple(replace(row, of_full=parts.get(row.stage, math.nan)) for row in rows)
    write_results(table, Results(configuration.run, configuration.seed, whole))
    log.info("%s: %d rows", table, len(rows))


def _rows(run: Path, configuration: Configuration, stage: Stage) -> Iterator[ResultRow]:
    folder = run / stage.section / stage.name
    cost = _cost(run, f"{stage.section}/{stage.name}", stage.steps) if any(s.scored for s in stage.steps) else {}
    for step in stage.steps:
        if not step.scored:
            continue
        product, file = step.scored
        path = folder / file
        if not path.exists():
            log.info("%s/%s: %s were not scored", stage.section, stage.name, product)
            continue
        evaluation = read_evaluation(path)
        mean = evaluation.rows.get(MEAN_ROW, {})
        header = evaluation.header
        rule = f"{header.rule}, {header.reason}" if header.rule else ""
        yield ResultRow(
            section=stage.section,
            stage=stage.name,
            base=stage.base,
            method=stage.method,
            swept=dict(stage.swept),
            product=product,
            upstream=tuple(stage.upstream.values()),
            split=header.split,
            images=header.images,
            rule="; ".join(
                filter(None, [rule, _inherited(configuration, stage), *configuration.learned_truths(stage.name)])
            ),
            threshold=math.nan if header.cut.threshold is None else header.cut.threshold,
            **(_scores(mean) if mean else {}),
            undecided=header.undecided,
            **(_oracle(folder) if step.name == "scores" else {}),
            **cost,
            settings=configuration.lineage(stage.name),
        )


def _scores(mean: Mapping[str, float]) -> dict[str, float]:
    """The scores of a row of the table, of the row `MEAN_ROW` of an evaluation."""
    own = {"miou": mean["iou"], "f_score": f_score(mean["precision"], mean["recall"])}
    return {score: own[score] if score in own else mean[score] for score in SCORES}


def _cost(run: Path, folder: str, steps: Iterable[Step]) -> dict[str, float]:
    """Seconds and memory of a stage; NaN where benchmarks are missing, as the sum of the others would look cheap."""
    spent, missing = step_costs(run, folder, steps)
    if missing:
        log.info("%s: no time and memory, as %s is missing (%d in all)", folder, missing[0], len(missing))
        return {"seconds": math.nan, "memory_mb": math.nan}
    return {
        "seconds": math.fsum(cost.seconds for cost in spent),
        "memory_mb": max((cost.memory for cost in spent if cost.memory is not None), default=math.nan),
    }


def _inherited(configuration: Configuration, stage: Stage) -> str:
    """Says that a stage is built on masks whose threshold was chosen with the masks scored; "" if it is not."""
    oracle = configuration.oracle_of(stage.name)
    return f"built on {oracle}: oracle, chosen with the masks" if oracle not in ("", stage.name) else ""


def _oracle(folder: Path) -> dict[str, float]:
    """The best threshold in hindsight, from the file that the scoring of maps writes; nothing without masks."""
    path = folder / "threshold.json"
    chosen = read_threshold(path) if path.exists() else None
    oracle = (chosen or {}).get("oracle")
    return {"oracle_threshold": oracle["value"], "oracle_miou": oracle["miou"]} if oracle else {}
