"""Runs the sides of a work in turns: a machine whose pace drifts slows both alike."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import Work
from benchmarks.table import Row, Side

SECONDS, FEWEST_RUNS, MOST_RUNS = 3.0, 5, 30
"""A side is repeated until its runs took this long, usually at least and always at most so often, after one that is not
counted."""

LONG = 30.0
"""A side whose first run took longer, in seconds, is not run again: there a first run costs nothing extra."""


def take_turns(
    first: Sequence[float], again: Sequence[Callable[[], float]], fewest: int = FEWEST_RUNS
) -> list[list[float]]:
    """Seconds of the runs that count, of each side.

    Parameters
    ----------
    first
        Seconds of the first run of each side.
    again
        Functions that run a side once more and return the seconds.
    fewest
        Runs of each side at least.

    Examples
    --------
    >>> take_turns([40.0, 1.5], [lambda: 38.0, lambda: 1.25])
    [[40.0], [1.25, 1.25, 1.25, 1.25, 1.25]]
    """
    times = [[seconds] if seconds > LONG else [] for seconds in first]
    while True:
        pending = [
            side
            for side, runs in enumerate(times)
            if first[side] <= LONG and len(runs) < MOST_RUNS and (len(runs) < fewest or sum(runs) < SECONDS)
        ]
        if not pending:
            return times
        for side in pending:
            times[side].append(again[side]())


def measured(name: str, size: str, device: str, number: int, work: Work, threads: int, fewest: int) -> Row:
    """The row of a work, which is number so and so of benchmark `name`; `fewest` as for `take_turns`."""
    threads = work.threads or threads
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            SideProcess(name, size, device, number, side, threads, Path(folder) / side) for side in ("baseline", "ours")
        ]
        times = take_turns([side.first for side in sides], [side.again for side in sides], fewest)
        found = [side.finished() for side in sides]
        if work.truth:
            truth = SideProcess(name, size, device, number, "truth", threads, Path(folder) / "truth").finished()
    answers = [result["answer"] for result in found]
    difference = work.difference(*answers)
    errors = None
    if work.truth:
        errors = tuple(work.difference(answer, truth["answer"]) for answer in answers)
    return Row(
        work.name,
        tuple(Side(tuple(runs), result["memory"]) for runs, result in zip(times, found, strict=True)),
        difference,
        difference <= work.limit,
        errors,
        work.floor() if work.floor else None,
    )


class SideProcess:
    """A side in `benchmarks.measure`; it has run once when this returns.

    Parameters
    ----------
    environment
        The process's environment; None: this one's.
    """

    def __init__(
        self,
        name: str,
        size: str,
        device: str,
        number: int,
        side: str,
        threads: int,
        result: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.result = result
        given = [name, size, device, str(number), side, str(threads), str(result)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.measure", *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**(os.environ if environment is None else environment), "OMP_NUM_THREADS": str(threads)},
        )
        self.first = self._seconds()

    def again(self) -> float:
        """Seconds of one more run."""
        print(file=self._process.stdin, flush=True)
        return self._seconds()

    def finished(self) -> dict[str, Any]:
        """``memory`` and ``answer``."""
        self._process.communicate()
        if self._process.returncode:
            raise subprocess.CalledProcessError(self._process.returncode, self._process.args)
        return torch.load(self.result, weights_only=True)

    def _seconds(self) -> float:
        line = self._process.stdout.readline()
        if not line:
            raise subprocess.CalledProcessError(self._process.wait(), self._process.args)
        return float(line)
