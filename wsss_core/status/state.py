"""The state of a run, read from its folder: which steps are made, which are at work, and which would be made again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss_core.config import Configuration, load, read_configuration, step_json
from wsss_core.jobs.costs import step_costs
from wsss_core.jobs.made import overtaken, product_path
from wsss_core.jobs.shard_names import shard_names
from wsss_core.jobs.start import FILE, Start, read_start
from wsss_core.pace import Pace, read_pace
from wsss_core.registry import RUN_STEPS, Step

TAIL = 16384
"""Bytes at a log's end that are looked at."""

State = Literal["done", "stale", "dropped", "running", "failed", "stopped", "waiting"]
"""State of a job: made; made, but of other settings or code; made, and its file deleted since; at work; ended by an
error; ended before it was done, without saying why; not begun."""


@dataclass(frozen=True)
class Run:
    """A run, by its folder.

    Attributes
    ----------
    configuration
        What is asked for: what the configuration file says now, or what the run was last started with.
    start
        How it was last started; None if it never was.
    working
        Folder in which the configuration's paths start.
    """

    folder: Path
    configuration: Configuration
    start: Start | None
    working: Path

    @property
    def alive(self) -> bool:
        """Whether Snakemake is at work on it; for another machine's process, whether the files are locked."""
        if self.start is None:
            return False
        return self.start.locked if self.start.alive is None else self.start.alive


@dataclass(frozen=True)
class Task:
    """A step of a stage, or of the run itself, by its files.

    Attributes
    ----------
    stage
        "section/name", "dataset", "features", "figures/name" or "run", as in the settings file.
    settings
        The settings file.
    jobs
        What it is made of: for each shard, or once. None while the data set was not read, so that nobody knows.
    final
        Whether the run is not finished without its product.
    """

    stage: str
    step: Step
    settings: Path
    jobs: tuple[Job, ...] | None
    final: bool


@dataclass(frozen=True)
class Job:
    """What Snakemake runs once, by its files.

    Attributes
    ----------
    shard
        Name of the shard; "" for a step that runs once.
    """

    shard: str
    product: Path
    log: Path
    benchmark: Path


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes
    ----------
    pace
        How far it is, if it is at work and has said so.
    silent
        Seconds since it last wrote to its log, if it is at work.
    error
        What its log says of its end, if it failed; if it is stale by its product, what is wrong with that.
    """

    job: Job
    state: State
    pace: Pace | None = None
    silent: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class TaskState:
    """The state of a step.

    Attributes
    ----------
    jobs
        State of each job; None while nobody knows how many there are.
    seconds
        Mean time of the jobs that were done; None if there are none.
    """

    task: Task
    jobs: tuple[JobState, ...] | None
    seconds: float | None

    def count(self, *states: State) -> int:
        """How many jobs are in one of these states."""
        return sum(job.state in states for job in self.jobs or ())

    @property
    def left(self) -> float | None:
        """Seconds until it is done, if as many jobs go on at a time as now; None if nothing tells."""
        running = [job for job in self.jobs or () if job.state == "running"]
        waiting = self.count("waiting", "failed", "stopped")
        if not running or any(job.pace is None for job in running) or (waiting and self.seconds is None):
            return None
        told = [job.pace.left for job in running if job.pace is not None]
        return max(max(told), (sum(told) + waiting * (self.seconds or 0.0)) / len(running))


def find_run(path: Path) -> Run:
    """The run of a folder, or of a configuration file.

    Raises
    ------
    UserError
        If the folder is no run's, or the configuration cannot be read.
    """
    if path.is_dir():
        start = read_start(path)
        return Run(path, load(start.config), start, Path(start.folder))
    configuration = read_configuration(path)
    folder = Path(configuration.results) / configuration.run
    return Run(folder, configuration, read_start(folder) if (folder / FILE).exists() else None, Path())


def tasks(run: Run) -> list[Task]:
    """All that the run is asked for, in the order of the graph.

    That is what the targets are made of. What they are built upon counts as soon as Snakemake has found that it is
    needed, when it writes the settings file.
    """
    index = RUN_STEPS["index"]
    found = [_of_stage(run, "dataset", index, final=True)]
    for stage in run.configuration.stages.values():
        target = stage.name in run.configuration.targets
        for step in stage.steps:
            name = f"{stage.section}/{stage.name}"
            if stage.name in run.configuration.current:
                task = _of_stage(run, name, step, final=target and bool(step.files))
                found += [task] if target or task.settings.exists() else []
    return found + list(_of_run(run))


def _of_stage(run: Run, stage: str, step: Step, final: bool) -> Task:
    settings = run.folder / "config" / stage / f"{step.name}.json"
    if step.each == "once":
        return Task(stage, step, settings, (_job(run, stage, step, ""),), final)
    if not (run.folder / "dataset/shards" / step.split).is_dir():
        return Task(stage, step, settings, None, final)
    shards = shard_names(run.folder, step.split)
    return Task(stage, step, settings, tuple(_job(run, stage, step, shard) for shard in shards), final)


def _job(run: Run, stage: str, step: Step, shard: str) -> Job:
    name = f"{step.name}.{shard}" if shard else step.name
    product = product_path(run.folder, stage, step, shard)
    return Job(shard, product, run.folder / f"logs/{stage}/{name}.log", run.folder / f"benchmarks/{stage}/{name}.tsv")


def _of_run(run: Run) -> Iterator[Task]:
    """The steps of the run itself: logs and benchmarks are named as what they make."""
    names = [("features", "features")] if run.configuration.feature_classifiers else []
    names += [("run", "results")]
    sheet = [("run", "sheet")] if run.configuration.report["sheet"] else []
    names += [(f"figures/{figure['name']}", "figure") for figure in run.configuration.figures]
    for stage, name in [*names, ("run", "health"), *sheet, ("run", "report")]:
        step = RUN_STEPS[name]
        product = product_path(run.folder, stage, step)
        log, benchmark = (run.folder / kind / product.relative_to(run.folder) for kind in ("logs", "benchmarks"))
        job = Job("", product, log.with_suffix(".log"), benchmark.with_suffix(".tsv"))
        yield Task(stage, step, run.folder / "config" / stage / f"{name}.json", (job,), True)


def settings_now(run: Run, task: Task) -> str:
    """Text of the settings file that the configuration would write now."""
    return step_json(run.configuration, task.stage, task.step.name)


def read_states(run: Run) -> list[TaskState]:
    """The state of all that the run is asked for."""
    alive, began = run.alive, run.start.began if run.start else 0.0
    wrong = overtaken(run.folder)
    return [_state(run, task, alive, began, wrong) for task in tasks(run)]


def finished(states: Sequence[TaskState]) -> bool:
    """Whether all that the run was asked for is made, of the present settings and code, and nothing is at work."""
    final = [state for state in states if state.task.final]
    return all(state.jobs is not None and state.count("done") == len(state.jobs) for state in final) and not any(
        state.count("stale", "running") for state in states
    )


def _state(run: Run, task: Task, alive: bool, began: float, wrong: Mapping[Path, str]) -> TaskState:
    if task.jobs is None:
        return TaskState(task, None, None)
    made = _changed(task.settings)
    same = made is not None and task.settings.read_text(encoding="utf-8").strip() == settings_now(run, task)
    jobs = tuple(job_state(job, made if same else None, began if alive else None) for job in task.jobs)
    jobs = tuple(
        JobState(state.job, "stale", error=wrong[state.job.product])
        if state.state == "done" and state.job.product in wrong
        else state
        for state in jobs
    )
    spent, _ = step_costs(run.folder, task.stage, [task.step])
    return TaskState(task, jobs, sum(c.seconds for c in spent) / sum(c.jobs for c in spent) if spent else None)


def job_state(job: Job, settings: float | None, alive: float | None) -> JobState:
    """The state of a job, told by its files and their times of change.

    Parameters
    ----------
    settings
        Time of change of its step's settings file; None if that is missing or is not what would be written now.
    alive
        When the Snakemake that is at work was started; None if there is none.
    """
    product, log, benchmark = map(_changed, (job.product, job.log, job.benchmark))
    # A log that is younger than its product belongs to an attempt that began since, until its benchmark is written.
    at_work = alive is not None and log is not None and log >= alive and (benchmark is None or benchmark < log)
    if product is not None and not (at_work and log is not None and log > product):
        return JobState(job, "done" if settings is not None and product >= settings else "stale")
    if log is None:
        return JobState(job, "waiting")
    if benchmark is not None and benchmark >= log:
        return JobState(job, "dropped")
    text = _tail(job.log)
    error = _error(text)
    if at_work and not error:
        return JobState(job, "running", read_pace(text), max(0.0, time.time() - log))
    if alive is not None and log < alive:
        return JobState(job, "waiting")
    return JobState(job, "failed", error=error) if error else JobState(job, "stopped")


def _error(text: str) -> str:
    """What the end of a log says of an error: of a mistake the user can mend, its text; else the exception."""
    lines = text.strip().splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            return "\n".join(lines[number:])
        if lines[number].startswith("Traceback "):
            return lines[-1]
    return ""


def _tail(path: Path) -> str:
    with open(path, "rb") as handle:
        handle.seek(max(0, os.fstat(handle.fileno()).st_size - TAIL))
        return handle.read().decode("utf-8", "replace")


def _changed(path: Path) -> float | None:
    """Time of a file's or folder's last change; None if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
