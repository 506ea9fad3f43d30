"""A copy of the project with a small run in it, started, stopped, unlocked and compared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.compare_runs import compare_runs, run_files
from wsss_core.store.atomic import PREFIX

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT_FILES = ("Snakefile", "config.yaml", "rules", "wsss_core", "schemas", "report", "envs", "profiles", "config")
MARK = "WSSS_FAULTS"
"""Environment variable by which the processes of a trial are told from all others."""

OTHER = ("results.csv",)
"""Files whose bytes hold times and memory; they are compared by their cells without these."""


class Trial:
    """A project in a folder of its own.

    Parameters
    ----------
    targets
        What Snakemake is asked for; nothing for the whole run.
    """

    def __init__(self, folder: Path, targets: Sequence[str] = ()) -> None:
        self.folder, self.targets = folder, list(targets)
        self.token = f"{os.getpid()}-{folder.name}"
        self.config: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "small.yaml").read_text())
        for name in PROJECT_FILES:
            source, target = REPOSITORY / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self.write_config(self.config)

    @property
    def results(self) -> Path:
        """Folder of the run."""
        return self.folder / "results" / self.config["run"]

    def write_config(self, config: dict[str, Any]) -> None:
        """Write what the next start reads."""
        (self.folder / "run.yaml").write_text(yaml.safe_dump(config))

    def start(self) -> subprocess.Popen:
        """Snakemake at work in a session of its own."""
        command = [sys.executable, "-m", "snakemake", *self.targets, "--cores", "2", "--configfile", "run.yaml"]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PYTHONPATH": str(self.folder), "PATH": path, MARK: self.token}
        log = open(self.folder / "snakemake.log", "ab")  # noqa: SIM115  # it is the process's
        with log:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self) -> int:
        """Unlock the folder and make what is missing; Snakemake's exit status."""
        shutil.rmtree(self.folder / ".snakemake/locks", ignore_errors=True)  # as --unlock does, in no time
        command = self.start()
        return command.wait()

    def processes(self) -> list[psutil.Process]:
        """All processes of this trial that are alive, whoever their parent is now."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.token
        return False

    def wait_for_all(self, seconds: float = 300) -> None:
        """Until no process of this trial is left; those that are then still there are killed."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def clear(self) -> None:
        """Leave nothing of a run."""
        for name in ("results", ".snakemake"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "snakemake.log").unlink(missing_ok=True)

    def keep(self, name: str) -> Path:
        """Move the finished run aside, to compare others with it."""
        kept = self.folder / "kept" / name
        kept.parent.mkdir(exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(self.results, kept)
        return kept


def differences(before: Path, after: Path) -> list[str]:
    """What differs between two runs, in words: by bytes, but for files that hold times."""
    found = [f"{one.path}: {one.difference}" for one in compare_runs(before, after, headers=True) if one.difference]
    old, new = run_files(before), run_files(after)
    for path in sorted(old.keys() & new.keys()):
        if Path(path).name not in OTHER and old[path].read_bytes() != new[path].read_bytes():
            found.append(f"{path}: other bytes")
    return found


def leftovers(run: Path) -> list[str]:
    """Temporary files in a run's folder."""
    return sorted(str(path.relative_to(run)) for path in run.rglob(f"{PREFIX}*"))


def tail(path: Path, lines: int = 15) -> Iterator[str]:
    """The last lines of a log."""
    with suppress(OSError):
        yield from path.read_text(errors="replace").splitlines()[-lines:]
