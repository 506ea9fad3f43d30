"""Sum up what an attribution recorded of its objects: how many it found, from how many proposals, and how well."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.data.table import read_manifest
from wsss_core.execution import Execution
from wsss_core.jobs.inputs import open_records
from wsss_core.jobs.step import read_step
from wsss_core.store.atomic import write_text
from wsss_core.store.attributions import ATTRIBUTIONS

log = logging.getLogger(__name__)


def run(
    *, config: Path, manifests: Sequence[Path], attributions: Sequence[Path], statistics: Path, execution: Execution
) -> None:
    """Write a row for every quantity that the method records of an object, and the numbers of objects.

    Parameters
    ----------
    config
        Settings file of the step.
    manifests
        Manifests of all shards.
    attributions
        Their HDF5 files of attributions, named alike.
    statistics
        CSV to write: quantity, number of objects that have it, mean, least and greatest value.

    Raises
    ------
    UserError
        If a file cannot be read, or was made for other classes.
    """
    step = read_step(config)
    files = {Path(path).stem: path for path in attributions}
    found: list[bool] = []
    recorded: dict[str, list[float]] = {}
    for manifest in manifests:
        store = open_records(files[Path(manifest).stem], read_manifest(manifest), ATTRIBUTIONS)
        for record in store.values():
            found += record.found.tolist()
            for name, values in per_object(record.statistics, len(record)).items():
                recorded.setdefault(name, []).extend(values)
    rows = [("attributed", *_summed([float(one) for one in found]))]
    rows += [(name, *_summed(values)) for name, values in recorded.items()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["quantity", "objects", "mean", "least", "greatest"])
    writer.writerows(rows)
    write_text(statistics, text.getvalue())
    log.info("%s: %d of %d objects have an attribution", step.stage, sum(found), len(found))


def per_object(recorded: Mapping[str, Any], count: int) -> dict[str, list[float]]:
    """What was recorded of each of so many objects as a number; lists of objects without one (None) are shorter.

    Examples
    --------
    >>> per_object({"positives": [100, 3], "iou": [0.9, None], "without": 1}, 2)
    {'positives': [100.0, 3.0], 'iou': [0.9]}
    """
    lists = {name: values for name, values in recorded.items() if isinstance(values, list) and len(values) == count}
    numbers = {
        name: [float(value) for value in values if isinstance(value, int | float)] for name, values in lists.items()
    }
    return {name: values for name, values in numbers.items() if values}


def _summed(values: Sequence[float]) -> tuple[int, str, str, str]:
    if not values:
        return 0, "", "", ""
    return len(values), f"{np.mean(values):.6g}", f"{min(values):.6g}", f"{max(values):.6g}"
