"""What the jobs of a step cost, read from the run's benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsss_core.jobs.shard_names import shard_names
from wsss_core.registry import Step
from wsss_core.report.provenance import Cost, costs


def step_costs(run: Path, folder: str, steps: Iterable[Step]) -> tuple[list[Cost], list[str]]:
    """Cost of each step of a stage, shards added up, and the names of the benchmarks that are missing.

    Benchmarks of shards that the data set no longer has are left out.

    Parameters
    ----------
    run
        Folder of the run.
    folder
        Folder of the stage below it, such as "seeds/rib".
    steps
        Its steps.
    """
    own = run / "benchmarks" / folder
    names = [name for step in steps for name in _jobs(run, step)]
    found = [name for name in names if (own / name).is_file()]
    texts = [(f"{folder}/{name}", (own / name).read_text(encoding="utf-8")) for name in found]
    return costs(texts), [f"{folder}/{name}" for name in names if name not in found]


def _jobs(run: Path, step: Step) -> list[str]:
    """Benchmarks of a step: one, or one for each shard of its split."""
    if step.each == "once":
        return [f"{step.name}.tsv"]
    return [f"{step.name}.{shard}.tsv" for shard in shard_names(run, step.split)]
