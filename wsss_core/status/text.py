"""The state of a run in words, for the terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from textwrap import shorten

from wsss_core.evaluate.health import health_lines
from wsss_core.report.provenance import duration
from wsss_core.status.disk import files, in_bytes, taken
from wsss_core.status.reasons import data_changes, reasons
from wsss_core.status.state import JobState, Run, TaskState, finished

QUIET = 300
"""Seconds without a line in its log after which that is said of a job."""

COLUMNS = ("done", "running", "failed", "stale")
LISTED = 5
"""Files and jobs that are named at most."""

MOST = 400
"""Characters of a reason that are shown at most."""


def status(run: Run, states: Sequence[TaskState]) -> str:
    """A line a step, what went wrong, what follows, and the disk."""
    stages = max([len(state.task.stage) for state in states], default=0)
    steps = max([len(state.task.step.name) for state in states], default=0)
    head = " ".join(["", " " * stages, " " * steps, *(f"{name:>9}" for name in COLUMNS)])
    lines = [_headline(run, states), "", head]
    above = ""
    for state in states:
        stage, above = ("" if state.task.stage == above else state.task.stage), state.task.stage
        cells = " ".join(f"{cell:>9}" for cell in _cells(state))
        lines.append(f" {stage:<{stages}} {state.task.step.name:<{steps}} {cells}  {_note(state)}".rstrip())
    failures = [line for state in states for line in _failures(state)]
    return "\n".join([*lines, *([""] if failures else []), *failures, *_health(run), "", _disk(run)])


def why(run: Run, states: Sequence[TaskState]) -> str:
    """Why steps would run again: by their settings files, and by the data set's files."""
    lines = []
    for state in states:
        found = [f"      {line}" for line in reasons(run, state)]
        lines += [f"  {state.task.stage}: {state.task.step.name}", *found] if found else []
    changed = list(data_changes(run))
    if changed:
        lines += ["  the data set", *(f"      {line}" for line in changed[:LISTED])]
        lines += [f"      and {len(changed) - LISTED} more"] if len(changed) > LISTED else []
    return "\n".join(["Settings, code and data that changed:", *(lines or ["  none"])])


def announced(jobs: Iterable[tuple[str, str]]) -> str:
    """What Snakemake would run, and why; the shards of one step in one line, if they run for one reason.

    Settings files are left out, of which `why` tells more.

    Parameters
    ----------
    jobs
        Message and reason of each job.

    Examples
    --------
    >>> jobs = [(f"seeds rib, shard {k}-of-2; log: x", f"Missing output files: maps/{k}-of-2.h5") for k in (0, 1)]
    >>> print(announced(jobs))
    What Snakemake would run, and why:
      seeds rib, 2 shards
          Missing output files: maps/SHARD.h5
    """
    counts: Counter[tuple[str, str]] = Counter()
    for message, reason in jobs:
        step, _, shard = message.partition("; log: ")[0].partition(", shard ")
        if not step.startswith("settings of "):
            counts[step, shorten(reason.replace(shard, "SHARD") if shard else reason, MOST, placeholder=" …")] += 1
    lines = []
    for (step, reason), count in counts.items():
        lines += [f"  {step}{f', {count} shards' if count > 1 else ''}", f"      {reason}"]
    return "\n".join(["What Snakemake would run, and why:", *(lines or ["  nothing"])])


def _headline(run: Run, states: Sequence[TaskState]) -> str:
    words = f"run {run.configuration.run} in {run.folder}: {_state(run, states)}"
    if run.start is None:
        return words
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.start.began))
    return f"{words}; last started {began} on {run.start.host} (process {run.start.pid})"


def _state(run: Run, states: Sequence[TaskState]) -> str:
    if run.alive:
        return "going on"
    if finished(states):
        return "finished"
    locked = run.start is not None and run.start.locked
    return "not finished, and locked (Snakemake was killed: --unlock)" if locked else "not finished"


def _cells(state: TaskState) -> list[str]:
    if state.jobs is None:
        return ["0/?", "", "", ""]
    made = f"{state.count('done', 'stale', 'dropped')}/{len(state.jobs)}"
    counts = [state.count("running"), state.count("failed", "stopped"), state.count("stale")]
    return [made, *(str(count or "") for count in counts)]


def _note(state: TaskState) -> str:
    running = [job for job in state.jobs or () if job.state == "running"]
    words = [_pace(job) for job in running[:LISTED]]
    words += [f"and {len(running) - LISTED} more"] if len(running) > LISTED else []
    if running and state.left is not None and len(state.jobs or ()) > 1:
        words.append(f"about {duration(state.left)} for all")
    dropped = state.count("dropped")
    words += [f"files of {dropped} dropped since"] if dropped else []
    return "; ".join(words)


def _pace(job: JobState) -> str:
    name = f"{job.job.shard} " if job.job.shard else ""
    quiet = f", silent for {duration(job.silent)}" if job.silent > QUIET else ""
    if job.pace is None:
        return f"{name}began{quiet}"
    pace = job.pace
    told = f"{pace.unit} {pace.done}/{pace.total}, {pace.seconds:.2f} s each, {duration(pace.left)} left"
    return f"{name}{told}{quiet}"


def _failures(state: TaskState) -> list[str]:
    """What went wrong: the end of the log of each failed job, and the logs of those that were stopped."""
    ended = [job for job in state.jobs or () if job.state in ("failed", "stopped")]
    lines = []
    for job in ended[:LISTED]:
        name = f"{state.task.stage}: {state.task.step.name} {job.job.shard}".rstrip()
        lines.append(f"{name} {job.state}; log: {job.job.log}")
        lines += [f"    {line}" for line in job.error.splitlines()[:LISTED]]
    return lines + ([f"{state.task.stage}: and {len(ended) - LISTED} more"] if len(ended) > LISTED else [])


def _health(run: Run) -> list[str]:
    """What is wrong as far as can be told without true masks; of the classifiers alone while the run is not through."""
    whole = run.folder / "health.json"
    parts = [run.folder / "classifiers" / name / "tag_scores.json" for name in run.configuration.section("classifiers")]
    lines = health_lines([whole] if whole.exists() else parts)
    return ["", *lines] if lines else []


def _disk(run: Run) -> str:
    """Bytes of the run's folder, and of its parts from the largest."""
    parts = {}
    for path in sorted(run.folder.iterdir()) if run.folder.is_dir() else []:
        stages = path.name in {stage.section for stage in run.configuration.stages.values()}
        for folder in sorted(path.iterdir()) if stages and not path.is_symlink() else [path]:
            parts[folder.relative_to(run.folder).as_posix()] = taken(files(folder))
    largest = sorted((item for item in parts.items() if item[1]), key=lambda item: -item[1])[:LISTED]
    words = ", ".join(f"{name} {in_bytes(size)}" for name, size in largest)
    return f"disk: {in_bytes(taken(files(run.folder)))}{f' ({words})' if words else ''}"
