"""Look at a run without true masks: what its classifiers found of the tags, and what its masks look like."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.data.table import ImageRecord
from wsss_core.evaluate.health import findings, read_health, write_health
from wsss_core.evaluate.mask_signs import judge, mask_signs
from wsss_core.execution import Execution
from wsss_core.jobs.configuration import read_run_configuration
from wsss_core.jobs.run_files import Labels, RunFiles
from wsss_core.report.choose import sample

log = logging.getLogger(__name__)

MOST = 500
"""Photos that are looked at, chosen by a hash of their ids."""


def run(*, config: Path, run: Path, health: Path, execution: Execution) -> None:
    """Write the signs of every classifier, seed and pseudo-mask of a run, and what is wrong.

    Parameters
    ----------
    config
        Settings file of the step: the whole configuration.
    run
        Folder of the run.
    health
        JSON to write.

    Raises
    ------
    UserError
        If the configuration, the image table or a file of a stage cannot be read.
    """
    files = RunFiles(Path(run), read_run_configuration(config))
    stages: dict[str, dict[str, Any]] = {}
    found = []
    for name in files.having("classifiers", "tag_scores.json"):
        content = read_health(files.folder(name) / "tag_scores.json")
        stages[name] = {key: content[key] for key in ("classes", "domains") if key in content}
        found += findings(content["findings"])
    tagged = {record.id: record for record in files.table.split("train") if record.classes}
    records = [tagged[image_id] for image_id in sample(sorted(tagged), MOST)]
    reader = Labels(files, files.shards("train"))
    for section, product in (("seeds", "maps"), ("refinements", "masks")):
        for name in files.having(section, product):
            signs = mask_signs(_masks(files, reader, name, records), len(files.table.class_names))
            if signs is not None:
                stages[name] = signs.content(files.table.class_names)
                of_domains = _by_domain(files, reader, name, records)
                stages[name] |= {"domains": of_domains} if of_domains else {}
                found += judge(f"{section}/{name}", signs, files.table.class_names)
    for finding in found:
        log.warning("%s", finding.line())
    write_health(health, {"stages": stages, "images": len(records)}, found)


def _by_domain(files: RunFiles, reader: Labels, name: str, records: Sequence[ImageRecord]) -> dict[str, Any]:
    """The same signs of the photos of each data set, if there are several."""
    found = {}
    for domain in files.table.domains:
        own = [record for record in records if record.domain == domain]
        signs = mask_signs(_masks(files, reader, name, own), len(files.table.class_names))
        if signs is not None:
            found[domain] = signs.content(files.table.class_names)
    return found


def _masks(
    files: RunFiles, reader: Labels, name: str, records: Sequence[ImageRecord]
) -> Iterator[tuple[np.ndarray, Sequence[int], np.ndarray | None]]:
    """A stage's labels of photos, their tags, and the labels of the seed or masks that it was made from."""
    above = files.stages[name].upstream.values()
    before = next((up for up in above if files.stages[up].section in ("seeds", "refinements")), None)
    for record in records:
        labels = reader.labels(name, record)
        if labels is not None:
            yield labels, record.classes, None if before is None else reader.labels(before, record)
