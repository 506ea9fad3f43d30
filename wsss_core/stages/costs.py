"""What several stages read of a run's benchmarks: the cost of a stage's steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss_core.report.provenance import Cost, costs


def step_costs(run: Path, folder: str, steps: Sequence[str]) -> list[Cost]:
    """Cost of each step of a stage that was recorded, shards added up.

    Parameters
    ----------
    run
        Folder of the run.
    folder
        Folder of the stage below it, such as "seeds/rib".
    """
    paths = [path for step in steps for path in sorted((run / "benchmarks" / folder).glob(f"{step}.*"))]
    return costs([(f"{folder}/{path.name}", path.read_text(encoding="utf-8")) for path in paths])
