"""What a run may take, by what earlier runs took that lie beside its folder: no guess where none is like it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from wsss_core.config import Configuration
from wsss_core.data.formats import reader
from wsss_core.data.listing import data_sets, dataset_settings
from wsss_core.data.table import read_table
from wsss_core.errors import UserError
from wsss_core.jobs.costs import step_costs
from wsss_core.jobs.start import FILE
from wsss_core.report.provenance import duration
from wsss_core.status.disk import files, in_bytes, taken
from wsss_core.status.state import find_run

Kind = tuple[str, str]
"""Section and method of a stage."""


@dataclass(frozen=True)
class Earlier:
    """What earlier runs took for one photo.

    Attributes
    ----------
    seconds
        Kind of a stage to the seconds of its jobs, a number for each stage of the kind that was made.
    disk
        Bytes of each run's folder.
    """

    seconds: Mapping[Kind, list[float]]
    disk: list[float]


def earlier_runs(results: Path) -> Earlier:
    """What the runs in a folder took for a photo for training; runs that cannot be read are passed over."""
    seconds: dict[Kind, list[float]] = defaultdict(list)
    disk = []
    for folder in sorted(path for path in results.glob("*") if (path / FILE).is_file()):
        try:
            run = find_run(folder)
            count = len(read_table(folder / "dataset/images.csv").split("train"))
        except UserError:
            continue
        if not count:
            continue
        disk.append(taken(files(folder)) / count)
        for name, stage in run.configuration.stages.items():
            spent, _ = step_costs(folder, f"{stage.section}/{name}", stage.steps)
            if spent:
                seconds[stage.section, stage.method].append(sum(cost.seconds for cost in spent) / count)
    return Earlier(seconds, disk)


def foretold(configuration: Configuration) -> Iterator[str]:
    """What a run may take in time and on the disk, in lines; none where no earlier run tells, or its photos cannot be
    counted quickly.
    """
    before, count = earlier_runs(Path(configuration.results)), _photos(configuration)
    kinds = [(s.section, s.method) for s in configuration.stages.values() if s.name in configuration.current]
    known = [median(before.seconds[kind]) for kind in kinds if before.seconds.get(kind)]
    if not count or not known:
        return
    missing = sorted({method for section, method in kinds if not before.seconds.get((section, method))})
    rest = f"; of {', '.join(missing)} nothing is known yet" if missing else ""
    yield (
        f"time: about {duration(count * sum(known))} of work by earlier runs in {configuration.results}, if their "
        f"settings and photos were like these, parted among the cores{rest}"
    )
    yield f"disk: about {in_bytes(round(count * median(before.disk)))} by the same runs"


def _photos(configuration: Configuration) -> int:
    """Photos for training; 0 where counting takes long, or they are not here."""
    counts = [_count(dataset) for dataset in data_sets(configuration.dataset).values()]
    return sum(counts) if all(counts) else 0


def _count(dataset: Mapping[str, Any]) -> int:
    """Those of one data set."""
    if dataset["format"] == "demo":
        return int(dataset["train"])
    settings = dataset_settings(dataset)
    if dataset["format"] == "coco" or not os.path.isdir(settings.root):
        return 0
    return sum("train" in record.splits for record in reader(dataset["format"])[0].read(settings).records)
