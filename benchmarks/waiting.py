"""How long waiting OpenMP threads should spin: work of jobs with three settings in turns, idle and beside other work.

    python -m benchmarks.waiting [--size full] [--threads 2] [--busy 2] [--runs 5]

The other work is `--busy` processes that count, one for every core by default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import SIZES, cores
from benchmarks.table import processor, ratio, seconds
from benchmarks.turns import SideProcess
from wsss_core.execution import SPINS

WORKS = {
    "training of the classifier": ("training", 0),
    "CAM": ("cam_inference", 0),
    "RIB": ("rib", 0),
    "dense CRF in torch": ("dense_crf", 1),
}
"""Work to the benchmark and its number there, of which the side `ours` runs."""

SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP's own": {},
    f"GOMP_SPINCOUNT={SPINS}": {"GOMP_SPINCOUNT": str(SPINS)},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}


def main() -> None:
    """Run the command line and print a table of Markdown."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=about)
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--threads", type=int, default=cores(), help="of the work; all cores by default")
    parser.add_argument("--busy", type=int, default=cores(), help="processes of other work; one a core by default")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    about = f"{options.threads} threads, {options.busy} processes of other work, load {os.getloadavg()[0]:.1f}"
    print(f"{processor()}, {about}\n")
    print(f"| work | machine | {' | '.join(SETTINGS)} |\n|---|---|{'---|' * len(SETTINGS)}")
    for title, (name, number) in WORKS.items():
        for machine, runs in times(name, number, options.size, options.threads, options.busy, options.runs).items():
            medians = [statistics.median(taken) for taken in runs]
            cells = [f"{seconds(time)} ({ratio(medians[0] / time)}×)" for time in medians]
            print(f"| {title} | {machine} | {' | '.join(cells)} |", flush=True)


def times(name: str, number: int, size: str, threads: int, busy: int, runs: int) -> dict[str, list[list[float]]]:
    """Seconds of every run with every setting, on the machine as it is and with `busy` processes of other work.

    Returns
    -------
    "idle" and "busy", each for every setting of `SETTINGS` the seconds of `runs` runs, taken in turns.
    """
    bare = {word: value for word, value in os.environ.items() if word not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            SideProcess(name, size, "cpu", number, "ours", threads, Path(folder) / str(place), bare | setting)
            for place, setting in enumerate(SETTINGS.values())
        ]
        idle = [[side.again() for side in sides] for _ in range(runs)]
        with other_work(busy):
            loaded = [[side.again() for side in sides] for _ in range(runs)]
        for side in sides:
            side.finished()
    return {"idle": list(map(list, zip(*idle, strict=True))), "busy": list(map(list, zip(*loaded, strict=True)))}


@contextmanager
def other_work(count: int) -> Iterator[None]:
    """So many processes that do nothing but count."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
