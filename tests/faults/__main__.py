"""Kill a small run at random moments and fill its disk: ``python -m tests.faults --kills 50 --disks 5 --seed 0``."""

from __future__ import annotations

import argparse
import copy
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from tests.faults.trial import Trial, differences, leftovers, tail
from tests.faults.victims import Kill, strike
from wsss_core.store.atomic import atomic_path

DISK = "full disk"
SAME = "same bytes"


def changed(config: dict[str, Any]) -> dict[str, Any]:
    """The other configuration, which an orphan knows nothing of: every training and every mask is another."""
    other = copy.deepcopy(config)
    other["classifiers"]["bce"]["learning_rate"] = 0.02
    other["refinements"]["crf"]["iterations"] = 2
    if "deeplab" in other.get("segmentations", {}):
        other["segmentations"]["deeplab"]["iterations"] = 11
    return other


class Faults:
    """Kills and full disks in one project, each followed by a comparison with the undisturbed run."""

    def __init__(self, folder: Path, targets: Sequence[str] = ()) -> None:
        self.trial = Trial(folder, targets)
        self.configs = {"first": self.trial.config, "other": changed(self.trial.config)}
        self.references: dict[str, Path] = {}
        self.seconds = 0.0
        for name in ("other", "first"):
            self.trial.write_config(self.configs[name])
            self.trial.clear()
            began = time.monotonic()
            if self.trial.finish():
                raise RuntimeError("\n".join(["the undisturbed run failed", *tail(folder / "snakemake.log")]))
            self.seconds = time.monotonic() - began
            self.references[name] = self.trial.keep(name)

    def kills(self, chance: random.Random, count: int) -> tuple[list[Kill], list[str]]:
        """Begin a run, kill it so many times while it goes on, end it, and compare."""
        self.trial.clear()
        config = "first"
        self.trial.write_config(self.configs[config])
        done: list[Kill] = []
        while len(done) < count:
            snakemake = self.trial.start()
            try:
                snakemake.wait(chance.uniform(0.5, 2 * self.seconds / (count + 1)))
            except subprocess.TimeoutExpired:
                done.append(strike(self.trial, snakemake.pid, chance))
                if done[-1].kind == "orphan":
                    config = "other" if config == "first" else "first"
                    self._orphan(snakemake, config, chance)
                else:
                    snakemake.wait()
                    self.trial.wait_for_all(60)
            else:
                if snakemake.returncode == 0:
                    break  # it was done before the next kill
            self._unlock()
        self.trial.wait_for_all()
        return done, self._compared(config)

    def _orphan(self, snakemake: subprocess.Popen, config: str, chance: random.Random) -> None:
        """Let the jobs of a killed workflow sleep and wake again somewhere within the run of another configuration."""
        snakemake.wait()
        orphans = self.trial.processes()
        for process in orphans:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)
        self.trial.write_config(self.configs[config])
        self._unlock()
        waking = threading.Timer(chance.uniform(0, self.seconds), _wake, [orphans])
        waking.start()
        self.trial.finish()  # it may fail where an orphan is at work on the same files; the next start goes on
        waking.join()
        self.trial.wait_for_all()

    def full_disk(self, chance: random.Random) -> tuple[str, list[str]]:
        """Run on a disk that is too small, make room, run again, and compare; needs the right to mount."""
        self.trial.clear()
        self.trial.write_config(self.configs["first"])
        needed = sum(path.stat().st_size for path in self.references["first"].rglob("*") if path.is_file())
        size = int(needed * chance.uniform(0.02, 1.1)) // 4096 + 8
        results = self.trial.folder / "results"
        results.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 4}k", "none", str(results)], check=True)
        try:
            status = self.trial.finish()
            self.trial.wait_for_all()
            told = sum("Traceback" in log.read_text(errors="replace") for log in results.rglob("logs/**/*.log"))
            subprocess.run(["mount", "-o", "remount,size=1g", str(results)], check=True)
            self._unlock()
            found = self._compared("first")
        finally:
            subprocess.run(["umount", "-l", str(results)], check=True)
        words = f"{size * 4} of {needed // 1024} kB: {'stopped' if status else 'ended'}, {told} logs with a traceback"
        return words, found

    def _unlock(self) -> None:
        for lock in (self.trial.folder / ".snakemake/locks").glob("*.lock"):
            lock.unlink(missing_ok=True)

    def _compared(self, config: str) -> list[str]:
        """What is wrong after all was made that is missing."""
        self.trial.write_config(self.configs[config])
        self._unlock()
        if self.trial.finish():
            return ["the run does not end", *tail(self.trial.folder / "snakemake.log")]
        left = [f"left over: {name}" for name in leftovers(self.trial.results)]
        return differences(self.references[config], self.trial.results) + left


def _wake(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Record:
    """What was done to a run, and what became of it: a row of the file that a campaign writes.

    Attributes
    ----------
    run
        Number of the run, from 1; several kills of one run have one result.
    fault
        The kind of a kill, or "full disk".
    signal, victim, at_work
        As in `Kill`; empty for full disks.
    words
        Of a full disk: how large it was and how the run stopped.
    result
        "same bytes", or what differs.
    """

    run: int
    fault: str
    signal: str = ""
    victim: str = ""
    at_work: str = ""
    words: str = ""
    result: str = SAME


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write what a campaign did so far as a CSV."""
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Record))
        writer.writerows(map(astuple, records))


def read_records(path: Path) -> list[Record]:
    """Records of a campaign."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Record(**{**row, "run": int(row["run"])}) for row in csv.DictReader(file)]


def table(records: Sequence[Record]) -> str:
    """Kills by the step that was at work, and by their kind, and full disks, as tables of Markdown."""
    kills = [record for record in records if record.fault != DISK]
    steps = Counter(step for kill in kills for step in (kill.at_work or "between jobs").split(", "))
    hit = Counter(kill.victim for kill in kills if kill.fault in ("job", "worker"))
    lines = ["| step | at work in kills | itself killed |", "|---|--:|--:|"]
    lines += [f"| {step} | {number} | {hit[step]} |" for step, number in sorted(steps.items())]
    kinds = Counter((kill.fault, kill.signal) for kill in kills)
    wrong = Counter((kill.fault, kill.signal) for kill in kills if kill.result != SAME)
    lines += ["", "| killed | signal | kills | other bytes |", "|---|---|--:|--:|"]
    lines += [f"| {' | '.join(kind)} | {number} | {wrong[kind]} |" for kind, number in sorted(kinds.items())]
    if disks := [record for record in records if record.fault == DISK]:
        lines += ["", "| full disk | at the end |", "|---|---|"]
        lines += [f"| {record.words} | {record.result} |" for record in disks]
    return "\n".join(lines)


def main() -> int:
    """Returns the exit status: 1 if a run ended otherwise than the undisturbed one."""
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="kills in all (default: %(default)s)")
    parser.add_argument("--each", type=int, default=1, help="kills in one run (default: %(default)s)")
    parser.add_argument("--disks", type=int, default=0, help="full disks; needs the right to mount (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so many seconds")
    parser.add_argument("--targets", nargs="*", default=[], help="what is made (default: the whole run)")
    parser.add_argument("--record", type=Path, metavar="CSV", help="write what was done and what became of it")
    options = parser.parse_args()
    chance, began = random.Random(options.seed), time.monotonic()
    records: list[Record] = []
    runs = killed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        faults = Faults(Path(folder), options.targets)
        print(f"the undisturbed run takes {faults.seconds:.0f} s", flush=True)
        while killed < options.kills and time.monotonic() - began < options.seconds:
            kills, found = faults.kills(chance, min(options.each, options.kills - killed))
            killed, runs, result = killed + len(kills), runs + 1, "; ".join(found) or SAME
            records += [
                Record(runs, kill.kind, kill.name, kill.victim, ", ".join(kill.steps), result=result) for kill in kills
            ]
            shown = "; ".join(f"{kill.kind} {kill.name} at {', '.join(kill.steps) or 'none'}" for kill in kills)
            print(f"{killed} kills, {runs} runs: {shown}: {result}", flush=True)
            if options.record:
                write_records(options.record, records)
        for _ in range(options.disks):
            words, found = faults.full_disk(chance)
            runs += 1
            records.append(Record(runs, DISK, words=words, result="; ".join(found) or SAME))
            print(f"disk of {words}: {records[-1].result}", flush=True)
            if options.record:
                write_records(options.record, records)
    wrong = len({record.run for record in records if record.result != SAME})
    print(f"{killed} kills, {options.disks} full disks, {runs} runs; {wrong} ended otherwise\n\n{table(records)}")
    return int(wrong > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
