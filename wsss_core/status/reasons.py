"""Why a step would run again, as far as its settings file and the run's data tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_core.code_digest import PACKAGE, closure, file_digests
from wsss_core.data.formats import reader
from wsss_core.data.table import read_table
from wsss_core.errors import UserError
from wsss_core.registry import find_step
from wsss_core.settings import from_mapping
from wsss_core.status.state import Run, TaskState, settings_now

LISTED = 5
"""Products that are named at most."""

ABSENT = "nothing"
"""In place of the value of a key that one of two files lacks."""


@dataclass(frozen=True)
class Difference:
    """A key whose value is another than when the step was made.

    Attributes
    ----------
    key
        Dotted, as in the configuration below the stage.
    old, new
        The values as JSON, or `ABSENT`.
    """

    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def differences(old: Any, new: Any, key: str = "") -> list[Difference]:
    """The keys in which two values of JSON differ, lists as a whole.

    Examples
    --------
    >>> [str(d) for d in differences({"steps": 10, "crf": {"w": 1}}, {"steps": 5, "crf": {"w": 1}, "flip": True})]
    ['flip: nothing -> true', 'steps: 10 -> 5']
    """
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return [] if old == new else [Difference(key, json.dumps(old), json.dumps(new))]
    found = []
    for name in sorted({*old, *new}):
        dotted = f"{key}.{name}" if key else name
        if name in old and name in new:
            found += differences(old[name], new[name], dotted)
        else:
            texts = [json.dumps(side[name]) if name in side else ABSENT for side in (old, new)]
            found.append(Difference(dotted, *texts))
    return found


def reasons(run: Run, state: TaskState) -> list[str]:
    """Why the jobs of a step that are stale would run again, one line a reason."""
    if not state.count("stale"):
        return []
    task = state.task
    wrong = [f"{job.job.product} {job.error}" for job in state.jobs or () if job.state == "stale" and job.error]
    if wrong:
        return wrong[:LISTED] + ([f"and {len(wrong) - LISTED} more"] if len(wrong) > LISTED else [])
    try:
        old = json.loads(task.settings.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"its settings file is gone: {task.settings}"]
    except ValueError:
        return [f"its settings file cannot be read: {task.settings}"]
    new = json.loads(settings_now(run, task))
    found = differences(old, new)
    if not found:
        return [f"it was made before its settings were written: {task.settings}"]
    lines = [str(d) if task.stage != "run" else _of_whole(d) for d in found if d.key != "code"]
    lines = [line.removeprefix("settings.") for line in lines]
    if any(d.key == "code" for d in found):
        lines.append(f"code: {_code(run, new)}")
    return lines


def _of_whole(difference: Difference) -> str:
    """A difference of a step that reads the whole configuration, whose values would fill pages."""
    return f"{difference.key}: changed"


def _code(run: Run, content: Mapping[str, Any]) -> str:
    """The source files of a step that are not what they were when the run was last started."""
    modules = find_step(content["stage"], content["method"], content["step"]).code
    reached = [path.relative_to(PACKAGE).as_posix() for path in closure(modules)]
    before = run.start.code if run.start else {}
    now = file_digests()
    changed = [name for name in reached if before and before.get(name) != now[name]]
    return ", ".join(f"wsss_core/{name}" for name in changed) or f"something in {', '.join(modules)} or below"


def data_changes(run: Run) -> Iterator[str]:
    """Files of the data set that are gone, or younger than the table of images, one line each; nothing before it."""
    table = run.folder / "dataset/images.csv"
    if not table.exists():
        return
    made = table.stat().st_mtime
    named = [path for record in read_table(table).records for path in (record.path, record.mask) if path]
    for path in dict.fromkeys([*named, *map(str, sources(run))]):
        file = run.working / path
        if not file.exists():
            yield f"{path} is gone"
        elif file.stat().st_mtime > made:
            yield f"{path} {'has other files in it' if file.is_dir() else 'is younger'} than the table of images"


def sources(run: Run) -> Sequence[Path]:
    """Files and folders that the data set's reader reads, as the configuration names them; nothing if they are gone."""
    given = {key: value for key, value in run.configuration.dataset.items() if key != "format"}
    module, settings_class = reader(run.configuration.dataset["format"])
    try:
        read = module.sources(from_mapping(settings_class, given))
    except UserError:
        return ()
    return [*read.folders, *read.files]
