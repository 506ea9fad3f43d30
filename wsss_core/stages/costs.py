"""What several stages read of a run's benchmarks: the cost of a stage's steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss_core.report.provenance import Cost, costs
from wsss_core.stages.shard_names import shard_names


def step_costs(run: Path, folder: str, steps: Sequence[str]) -> tuple[list[Cost], list[str]]:
    """Cost of each step of a stage, shards added up, and the names of the benchmarks that are missing.

    Benchmarks of shards that the data set no longer has are left out.

    Parameters
    ----------
    run
        Folder of the run.
    folder
        Folder of the stage below it, such as "seeds/rib".
    """
    own = run / "benchmarks" / folder
    names = [name for step in steps for name in _jobs(run, own, step)]
    found = [name for name in names if (own / name).is_file()]
    texts = [(f"{folder}/{name}", (own / name).read_text(encoding="utf-8")) for name in found]
    return costs(texts), [f"{folder}/{name}" for name in names if name not in found]


def _jobs(run: Path, own: Path, step: str) -> list[str]:
    """Benchmarks of a step: one, or one for each shard (none for predictions without validation images)."""
    split = "val" if step == "predict" else "train"
    dealt = [f"{step}.{shard}.tsv" for shard in shard_names(run, split)]
    return dealt if split == "val" or any((own / name).is_file() for name in dealt) else [f"{step}.tsv"]
