"""Dropping what a finished run does not need."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss_core.errors import UserError
from wsss_core.status.disk import File, files
from wsss_core.status.reasons import sources
from wsss_core.status.state import Run, TaskState, finished

RECORDS = re.compile(r"\d+-of-\d+\.h5")
"""Files of class maps, of scores after a walk and of labels for a network: records of a shard."""


def droppable(run: Run, *, maps: bool) -> list[File]:
    """The files that a finished run does not need.

    These are what jobs keep to go on after a kill and to reuse what did not change (``.state``). What a link leads to,
    inside the run's folder or out of it, is not among them.

    Parameters
    ----------
    maps
        Also class maps, scores after a walk, and labels for the network of a refinement. What is made from them is
        there; they are made again when something new is to be made from them.

    Raises
    ------
    UserError
        If the data set lies in the run's folder.
    """
    home = run.folder.resolve()
    root = run.configuration.dataset.get("root")  # also of a data set that is not whole, whose sources are not known
    for path in [*sources(run), *([Path(root)] if root else [])]:
        if (run.working / path).resolve().is_relative_to(home):
            raise UserError(f"{path}: the data set lies in {run.folder}; nothing was dropped")
    found = list(files(run.folder / ".state"))
    if maps:
        folders = [folder for folder in _record_folders(run) if folder.resolve().is_relative_to(home)]
        found += [file for folder in folders for file in files(folder) if RECORDS.fullmatch(file.path.name)]
    return found


def _record_folders(run: Run) -> Iterable[Path]:
    """Folders of records of all stages of the configuration."""
    for stage in run.configuration.stages.values():
        for step in stage.steps:
            if step.product.endswith(".h5"):
                yield (run.folder / stage.section / stage.name / step.product).parent


def require_finished(run: Run, states: Sequence[TaskState]) -> None:
    """Let only a finished run pass, at which nobody is at work.

    Raises
    ------
    UserError
        Which says what is in the way.
    """
    if run.alive:
        raise UserError(f"{run.folder}: Snakemake is at work on this run; nothing was dropped")
    if run.start is not None and run.start.locked:
        raise UserError(
            f"{run.folder}: Snakemake has locked this run; nothing was dropped. If it was killed, start it again with"
            " --unlock once, then without"
        )
    if not finished(states):
        raise UserError(f"{run.folder}: is not finished (`wsss status` says why); nothing was dropped")


def drop(run: Run, listed: Iterable[File]) -> None:
    """Delete files of a run, and the folders of its ``.state`` that are empty then."""
    for file in listed:
        file.path.unlink(missing_ok=True)
    for folder, _, _ in os.walk(run.folder / ".state", topdown=False):
        if not os.listdir(folder):
            os.rmdir(folder)
