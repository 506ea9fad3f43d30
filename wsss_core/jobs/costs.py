"""What the jobs of a step cost, read from Snakemake's benchmarks, or from the jobs' own records.

A job that outlives its Snakemake has no benchmark; what it took is in its record (`wsss_core.jobs.made`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsss_core.jobs.made import read_made, record_path
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
    jobs = [
        (f"{folder}/{step.name}{f'.{shard}' if shard else ''}.tsv", record_path(run, folder, step, shard))
        for step in steps
        for shard in ([""] if step.each == "once" else shard_names(run, step.split))
    ]
    texts = {name: _text(run / "benchmarks" / name, record) for name, record in jobs}
    return costs([(name, text) for name, text in texts.items() if text]), [n for n, text in texts.items() if not text]


def _text(benchmark: Path, record: Path) -> str:
    """A benchmark, or the record of the job in its form; "" if there is neither."""
    if benchmark.is_file():
        return benchmark.read_text(encoding="utf-8")
    made = read_made(record)
    return f"s\tmax_rss\n{made.seconds}\t{made.memory_mb}\n" if made else ""
