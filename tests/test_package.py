"""The package outside its clone: what `wsss run` starts, and a wheel in a folder that knows nothing of the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from wsss_core import cli, workflow


@pytest.fixture
def started(monkeypatch, tmp_path) -> list[list[str]]:
    """Command lines that would have taken the place of this process, in an empty folder with a configuration."""
    commands = []
    monkeypatch.setattr(workflow.os, "execve", lambda path, command, environment: commands.append(command))
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("run: mine\n")
    Path("broken.yaml").write_text("run: mine\nseeds: {rib: [\n")
    return commands


def test_what_follows_the_file_goes_to_snakemake_unread(started):
    cli.main(["run", "mine.yaml", "seeds", "-n", "--config", "run=x", "--", "masks"])
    snakefile = str(REPOSITORY / "Snakefile")
    assert started == [
        [sys.executable, "-m", "snakemake", "--configfile", "mine.yaml", "--snakefile", snakefile]
        + ["seeds", "-n", "--config", "run=x", "--", "masks"]
    ]


def test_a_second_configuration_adds_to_the_first(started):
    cli.main(["run", "mine.yaml", "--cores", "2", "--configfile", "gpu.yaml"])
    assert started[0][-5:] == ["--cores", "2", "--configfile", "mine.yaml", "gpu.yaml"]
    assert started[0].count("--configfile") == 1


def test_the_demo_takes_all_cores_unless_told_otherwise(started):
    cli.main(["demo", "--cores", "2"])
    assert started[0][-4:] == ["--cores", "all", "--cores", "2"]
    assert str(REPOSITORY / "config.yaml") in started[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "required: FILE"),
        (["run", "--cores", "4", "mine.yaml"], "required: FILE"),
        (["run", "yours.yaml"], "yours.yaml: there is no such file"),
        (["run", "broken.yaml", "--cores", "4"], 'in "broken.yaml", line 3, column 1'),
        (["run", ".", "--cores", "4"], "this is a folder"),
        (["copy", "config/nothing.yaml"], "nothing of this name"),
        (["copy", "../mine.yaml"], "nothing of this name"),
        (["copy", "config/voc12.yaml", "config/voc12.yaml"], "exists already"),
    ],
)
def test_a_slip_is_named_and_starts_nothing(words, message, started, capsys):
    try:
        assert cli.main(words) == 2
    except SystemExit as error:
        assert error.code == 2
    assert message in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize("words", [["run", "--help"], ["demo", "-h"]])
def test_help_right_after_the_command_is_ours(words, started, capsys):
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "option or target of Snakemake" in capsys.readouterr().out
    assert not started


def test_copies_of_what_is_shipped_lie_where_the_pages_say(started):
    assert cli.main(["copy", "profiles/slurm-generic/", "config/voc12.yaml"]) == 0
    assert os.access("profiles/slurm-generic/status.sh", os.X_OK)
    assert Path("config/voc12.yaml").read_text() == (REPOSITORY / "config/voc12.yaml").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """`bin` folder of a new environment with the package alone, by way of a source distribution and a wheel of that.

    The dependencies are those of this environment. (Its editable installations are not seen: a line in a `.pth` file
    adds a folder, but not what the `.pth` files in that folder add.)
    """
    built, environment = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("environment")
    pip = [sys.executable, "-m", "pip"]
    _run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", built, cwd=REPOSITORY)
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, *built.glob("*.tar.gz"), cwd=built)
    venv.create(environment, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": environment, "platbase": environment}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    _run(*pip, "--python", python, "install", "--no-deps", *built.glob("*.whl"), cwd=built)
    return python.parent


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A folder with a configuration, and with two traps: another `python` on PATH, and another `wsss_core`."""
    shutil.copy(REPOSITORY / "tests/config/tiny.yaml", tmp_path)
    for trap in (tmp_path / "bin" / "python", tmp_path / "wsss_core" / "__init__.py"):
        trap.parent.mkdir()
        trap.write_text("#!/bin/sh\nexit 9\n")
        trap.chmod(0o755)
    return tmp_path


def _run(*command, cwd: Path) -> str:
    """Output of a command in a shell without an activated environment; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = os.pathsep.join([str(cwd / "bin"), os.defpath])
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.workflow
def test_the_package_is_whole_without_its_clone(installed, elsewhere):
    found = _run(installed / "python", "-P", "-c", "import wsss_core; print(wsss_core.__file__)", cwd=elsewhere)
    assert Path(found).is_relative_to(installed.parent)
    assert _run(installed / "wsss", "--version", cwd=elsewhere).startswith("wsss ")
    assert "seeds/rib: rib from classifier bce" in _run(installed / "wsss", "check", "tiny.yaml", cwd=elsewhere)


@pytest.mark.workflow
def test_a_run_anywhere_goes_from_pictures_to_the_report(installed, elsewhere):
    wsss = installed / "wsss"
    output = _run(wsss, "run", "tiny.yaml", "--cores", "2", "--config", "targets=[cam]", cwd=elsewhere)
    assert "steps (100%) done" in output
    assert str(REPOSITORY / "Snakefile") not in output
    assert (elsewhere / "results/tiny/report.html").is_file()
    assert (elsewhere / "data/demo").is_dir()
