"""Who is killed, and by what: any process of a run."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.faults.trial import Trial

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KINDS = ("job", "job", "worker", "snakemake", "group", "orphan")


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes
    ----------
    kind
        "snakemake": the workflow's process alone; "job": a step; "worker": a process that a step has started; "group":
        all of them; "orphan": the workflow's process, whose jobs go on while another configuration is run.
    name
        Of the signal.
    steps
        The steps at work in that moment, such as "segmentations train".
    victim
        The step that was killed, or that had started the worker; the kind itself where no step was.
    """

    kind: str
    name: str
    steps: tuple[str, ...]
    victim: str


def steps_of(processes: Sequence[psutil.Process]) -> dict[int, str]:
    """Process of a job to the step that it is at."""
    found = {}
    for process in processes:
        with suppress(psutil.Error):
            words = process.cmdline()
            if "wsss_core.cli" in words and words[0].endswith(("python", "python3")):
                config = re.search(r"config/(\w+)(?:/[^/ ]+)?/\w+\.json", " ".join(words))
                found[process.pid] = f"{config[1] if config else 'run'} {words[words.index('wsss_core.cli') + 1]}"
    return found


def strike(trial: Trial, snakemake: int, chance: random.Random) -> Kill:
    """Kill a process of a running workflow; a kind that there is none of now is replaced by one that there is."""
    processes = trial.processes()
    jobs = steps_of(processes)
    workers = {p.pid: jobs[parent] for p in processes if (parent := _parent(p)) in jobs and p.pid not in jobs}
    kind, which = chance.choice(KINDS), chance.choice(SIGNALS)
    if kind == "worker" and not workers:
        kind = "job"
    if kind in ("job", "orphan") and not jobs:
        kind = "snakemake"
    if kind == "orphan":
        which = signal.SIGKILL
    found = {"job": jobs, "worker": workers}.get(kind, {snakemake: kind})
    victim = chance.choice(sorted(found))
    with suppress(ProcessLookupError):
        (os.killpg if kind == "group" else os.kill)(victim, which)
    return Kill(kind, which.name, tuple(sorted(jobs.values())), found[victim])


def _parent(process: psutil.Process) -> int | None:
    with suppress(psutil.Error):
        return process.ppid()
    return None
