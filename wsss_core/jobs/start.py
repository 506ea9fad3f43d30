"""How a run was last started. Snakemake writes it into the run's folder, so that a folder knows its configuration."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsss_core.code_digest import file_digests
from wsss_core.errors import UserError
from wsss_core.store.atomic import write_text

FILE = "config/started.json"
"""From the folder of the run."""


KINDS = {"config": dict, "configfiles": list, "folder": str, "host": str, "pid": int, "began": float, "code": dict}
"""What each part of a `Start` is in its file."""


@dataclass(frozen=True)
class Start:
    """How Snakemake was started on a run.

    Attributes
    ----------
    config
        What the user asked for: the configuration files merged, and the words of ``--config``.
    configfiles
        The configuration files.
    folder
        Working folder, in which the configuration's paths start.
    host, pid
        Machine and number of the process.
    began
        When, in seconds since 1970.
    code
        Digest of every source file of this package, by its path from the package's folder.
    """

    config: Mapping[str, Any]
    configfiles: Sequence[str]
    folder: str
    host: str
    pid: int
    began: float
    code: Mapping[str, str]

    @property
    def alive(self) -> bool | None:
        """Whether that process is still at work; None if it is another machine's."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's process, so it exists
            pass
        words = Path(f"/proc/{self.pid}/cmdline")
        return not words.exists() or b"snakemake" in words.read_bytes()

    @property
    def locked(self) -> bool:
        """Whether Snakemake has locked the files of this run; a killed one leaves its lock behind."""
        own = f"{self.config.get('results', 'results')}/{self.config['run']}/"
        locks = Path(self.folder, ".snakemake/locks").glob("*.lock")
        return any(line.startswith(own) for lock in locks for line in lock.read_text().splitlines())


def write_start(run: Path, config: Mapping[str, Any], configfiles: Sequence[str]) -> None:
    """Write that this process starts to make a run.

    Parameters
    ----------
    run
        Folder of the run.
    config, configfiles
        As for `Start`.
    """
    start = Start(config, configfiles, os.getcwd(), socket.gethostname(), os.getpid(), time.time(), file_digests())
    write_text(run / FILE, json.dumps(asdict(start), indent=1, default=str))


def read_start(run: Path) -> Start:
    """How a run was last started.

    Raises
    ------
    UserError
        If its folder does not say so.
    """
    path = run / FILE
    try:
        start = Start(**json.loads(path.read_text(encoding="utf-8")))
        for name, kind in KINDS.items():
            if not isinstance(getattr(start, name), kind):
                raise ValueError(f"{name} is {getattr(start, name)!r:.40}")
        if not isinstance(start.config.get("run"), str) or not 0 < start.pid < 2**31 or "\0" in start.folder:
            raise ValueError("there is no run, process or folder of this name")
        return start
    except FileNotFoundError as error:
        raise UserError(
            f"{run}: is no run, or one that this version did not start: there is no {FILE} in it"
        ) from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: does not say how the run was started ({error})") from error
