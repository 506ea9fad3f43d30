"""The workflow from any folder: where its files lie, and Snakemake started on them.

In a clone, the Snakefile and all that belongs to it lie beside the package; a wheel carries them inside the package,
in the same order (`pyproject.toml`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from wsss_core.config import read_file
from wsss_core.errors import UserError

PACKAGE = Path(__file__).resolve().parent


def workflow_folder() -> Path:
    """Folder that holds the Snakefile, `rules`, `profiles` and `config`.

    Raises
    ------
    UserError
        If the installation is incomplete.
    """
    for folder in (PACKAGE / "workflow_files", PACKAGE.parent):
        if (folder / "Snakefile").is_file():
            return folder
    raise UserError(f"{PACKAGE}: the Snakefile is neither in this folder nor beside it; install the package again")


def run(configuration: Path, arguments: Sequence[str]) -> NoReturn:
    """Become Snakemake, on a configuration.

    Snakemake takes the place of this process, so that signals (Ctrl-C, `kill`) reach it alone and the exit status is
    its own. Paths in the configuration start in the current folder. Snakemake finds `profiles/default`, or another
    profile by its bare name, beside the Snakefile.

    Parameters
    ----------
    configuration
        A YAML file.
    arguments
        What follows on Snakemake's command line: options and targets.

    Raises
    ------
    UserError
        If the configuration is no readable YAML file, or the rules could not call this interpreter.
    """
    if not configuration.exists():
        raise UserError(f"{configuration}: there is no such file")
    if configuration.is_dir():
        raise UserError(f"{configuration}: a configuration is a file, this is a folder")
    read_file(configuration)  # Snakemake would not say where in the file the slip is
    command = snakemake_command(configuration, arguments)
    environment = job_environment()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)


def demo(arguments: Sequence[str]) -> NoReturn:
    """`run` the configuration that draws its own pictures, on all cores unless the arguments say otherwise."""
    run(workflow_folder() / "config.yaml", ["--cores", "all", *arguments])


def announced(config: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """What Snakemake would run if it were started now, as it announces it in a dry-run: message and reason of each job.

    Nothing is locked, so it can be asked while a run is going on.

    Parameters
    ----------
    config
        The configuration as given.
    folder
        Working folder of the run.

    Raises
    ------
    UserError
        If Snakemake stops, with the end of what it says.
    """
    with TemporaryDirectory() as temporary:
        path = Path(temporary, "asked.yaml")
        path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        command = snakemake_command(path, ["--dry-run", "--cores", "1", "--nolock"])
        done = subprocess.run(command, cwd=folder, env=job_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError("Snakemake cannot tell what it would run:\n" + "\n".join(done.stderr.splitlines()[-20:]))
    return _JOB.findall(done.stdout + done.stderr)


_JOB = re.compile(r"^Job \d+: (.*)\nReason: (.*)$", re.MULTILINE)
"""How Snakemake announces a job of a rule with a message; all of ours have one."""


def snakemake_command(configuration: Path, arguments: Sequence[str]) -> list[str]:
    """Command line of Snakemake under this interpreter.

    A `--configfile` among the arguments adds to the configuration: Snakemake merges the files in their order, but knows
    only the last `--configfile` of a command line.
    """
    passed_on = list(arguments)
    if "--configfile" in passed_on:
        passed_on.insert(passed_on.index("--configfile") + 1, str(configuration))
        configured = []
    else:
        configured = ["--configfile", str(configuration)]
    # `--configfile` takes every word up to the next option, so a target must not follow it.
    snakefile = ["--snakefile", str(workflow_folder() / "Snakefile")]
    return [sys.executable, "-m", "snakemake", *configured, *snakefile, *passed_on]


def job_environment() -> dict[str, str]:
    """Environment in which the rules' ``python -m wsss_core.cli`` is this interpreter and this package.

    The folder of this interpreter comes first on `PATH`, though its virtual environment may not be activated, and
    Python imports nothing from the current folder, though that may be somebody's clone.

    Raises
    ------
    UserError
        If the interpreter's folder has no `python` (but, say, a `python3` alone).
    """
    folder = Path(sys.executable).parent
    if shutil.which("python", path=str(folder)) is None:
        raise UserError(f"{folder}: has no `python`, which the rules call; install wsss in a virtual environment")
    path = os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, "PYTHONSAFEPATH": "1"}


def shipped() -> list[str]:
    """Configurations, their schema, and profiles that come with the workflow, by their paths from its folder."""
    folder = workflow_folder()
    paths = [folder / "config.yaml", *folder.glob("config/**/*.yaml"), *folder.glob("schemas/*.json")]
    paths += [path.parent for path in folder.glob("profiles/*/config.yaml")]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def copy_shipped(name: str) -> Path:
    """Copy something shipped to the same path from the current folder, to be edited there.

    Parameters
    ----------
    name
        One of `shipped`.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    UserError
        If there is nothing of that name, or the copy exists already.
    """
    name = PurePosixPath(name).as_posix()
    if name not in shipped():
        raise UserError(f"{name}: nothing of this name comes with wsss (`wsss copy` lists what does)")
    source, target = workflow_folder() / name, Path(name)
    if target.exists():
        raise UserError(f"{target}: exists already and is left as it is")
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))
