"""The shards into which a run's images are dealt now; files of an earlier dealing may lie beside theirs."""

from __future__ import annotations

from pathlib import Path


def shard_names(run: Path, split: str) -> list[str]:
    """Names of a split's shards, in order.

    Parameters
    ----------
    run
        Folder of the run.
    """
    return sorted(path.stem for path in (run / "dataset" / "shards" / split).glob("*.json"))
