"""The command line: what `--help` shows, what a step's command takes, and how steps are given their files."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.scenes import write_step
from wsss_core import cli
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.registry import all_steps
from wsss_core.signature import read_signature
from wsss_core.store.atomic import write_text

STEPS = sorted({step.name for step in all_steps()})


def shown(capsys, *words: str) -> str:
    """Help of a command."""
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


def offered(capsys, step: str) -> set[str]:
    """Options of a step's command, beside the threads that all have."""
    found = set(re.findall(r"^  (?:-h, )?--([\w-]+)", shown(capsys, step), re.M))
    assert {"help", "threads"} < found
    return found - {"help", "threads"}


def test_help_lists_the_commands_of_users_first_and_then_the_steps(capsys):
    text = shown(capsys)
    users, steps = re.search(r"\ncommands:\n(.*)\n\nsteps, [^\n]*:\n(.*)\n\noptions:", text, re.S).groups()
    own = [
        "run",
        "demo",
        "copy",
        "init",
        "fetch",
        "prepare",
        "check",
        "status",
        "objects",
        "plan-labels",
        "tune",
        "clean",
        "predict",
        "export",
        "import",
        "export-model",
        "inspect",
        "table",
        "schema",
    ]
    assert [line.split()[0] for line in users.splitlines()] == own
    assert [line.split()[0] for line in steps.splitlines()] == STEPS
    assert all(len(line.split()) > 2 for line in [*users.splitlines(), *steps.splitlines()])
    assert text.startswith("usage: wsss [-h] [--version] command ...\n")


@pytest.mark.parametrize("step", STEPS)
def test_a_step_takes_its_paths_and_the_options_that_it_heeds(step, capsys):
    heeded = {option.replace("_", "-") for one in all_steps() if one.name == step for option in one.execution}
    assert offered(capsys, step) == heeded | {path.name for path in read_signature(step).paths}


def test_options_are_offered_only_where_they_apply(capsys):
    options = ("device", "precision", "workers", "images-at-once")
    by_step = {step: [option for option in options if option in offered(capsys, step)] for step in STEPS}
    assert by_step["train"] == ["device", "precision", "workers"]
    assert by_step["maps"] == ["device", "precision", "images-at-once"]
    assert by_step["walk"] == by_step["masks"] == by_step["predictions"] == ["device"]
    assert not by_step["labels"] + by_step["scores"] + by_step["evaluation"] + by_step["index"] + by_step["report"]


def test_every_argument_says_what_it_is():
    (commands,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    arguments = [(name, argument) for name, command in commands.choices.items() for argument in command._actions]
    assert not [f"{name} {argument.dest}" for name, argument in arguments if not argument.help]


def test_the_name_alone_shows_the_help(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([])
    assert left.value.code == 0 and "\ncommands:\n" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(capsys):
    assert cli.main(["predict", "--device", "cuda", "--model", "m.pt", "--out", "masks", "photo.jpg"]) == 2
    assert "device cuda: torch finds no GPU" in capsys.readouterr().err


def test_what_the_system_refuses_is_told_in_a_line(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wsss_core.steps.results.run", lambda **paths: write_text(paths["table"], "stage\n"))
    assert cli.main(["results", "--config", "results.json", "--run", ".", "--table", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(f"error: {tmp_path}: Is a directory\n")


def test_settings_of_another_step_are_refused(given, capsys):
    assert cli.main(["results", "--config", "train.json", "--run", ".", "--table", "t.csv"]) == 2
    assert "train.json: holds the settings of the step train, not of results" in capsys.readouterr().err
    assert not given


@pytest.mark.parametrize("text", ["", "# run: x\nsection,stage\n1,2,3\n"])
def test_a_table_of_something_else_is_no_image_table(text, tmp_path, capsys):
    (tmp_path / "other.csv").write_text(text)
    assert cli.main(["inspect", str(tmp_path / "other.csv")]) == 2
    assert "image table" in capsys.readouterr().err


WITHOUT_TORCH = (
    "attribution_statistics",
    "evaluation",
    "figure",
    "index",
    "instance_scores",
    "localisation",
    "maps_from_files",
    "results",
    "scores",
)
"""Steps whose every job would start a second and a half later with it."""


WITH_TORCHVISION = ("attributions", "box_scores", "fitted_instances", "instance_predictions")
"""Steps that work with a detector, which is made of torchvision's parts."""


WITHOUT = """
import importlib, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError(name)
sys.meta_path.insert(0, NoTorch())
for step in sys.argv[1:]:
    for module in [name for name in sys.modules if name.startswith("wsss_core")]:
        del sys.modules[module]
    try:
        importlib.import_module("wsss_core.steps." + step)
    except ImportError:
        continue
    print(step)
"""
"""Prints the steps that can be imported where there is no torch."""


def printed(code: str, *words: str) -> list[str]:
    """Words that a new process prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    ).stdout.split()


def test_steps_import_no_library_that_they_do_without():
    # all steps in one process each: an import of torch costs over a second
    plain = [f"wsss_core.steps.{step}" for step in STEPS if step not in WITH_TORCHVISION]
    imported = printed(f"import sys, {', '.join(plain)}; print(*sys.modules)")
    assert "torch" in imported and "torchvision" not in imported and "snakemake" not in imported
    assert tuple(printed(WITHOUT, *STEPS)) == WITHOUT_TORCH


def test_help_costs_no_torch():
    code = "import sys; from wsss_core import cli; cli._parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def given(monkeypatch, tmp_path) -> list[dict]:
    """What steps were run with, none of which does anything, in a folder with two shards of maps and settings files."""
    calls: list[dict] = []
    for step in STEPS:
        monkeypatch.setattr(importlib.import_module(f"wsss_core.steps.{step}"), "run", lambda **k: calls.append(k))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    for name in ("0-of-2", "1-of-2"):
        Path(f"{name}.h5").touch()
        Path(f"{name}.json").touch()
    write_step(Path("scores.json"), "seeds/cam", "cam", "scores", {})
    write_step(Path("train.json"), "classifiers/bce", "bce", "train", {})
    write_step(Path("results.json"), "run", "results", "results", {})
    return calls


def test_a_step_is_run_on_its_paths_and_options(given):
    files = ["--curve", "c.csv", "--evaluation", "e.csv", "--threshold", "t.json"]
    maps = ["--manifests", "*-of-2.json", "--maps", "0-of-2.h5", "1-of-2.h5"]
    words = ["scores", "--config", "scores.json", *maps, *files]
    assert cli.main([*words, "--threads", "2"]) == 0
    assert given == [
        {
            "config": Path("scores.json"),
            "manifests": [Path("0-of-2.json"), Path("1-of-2.json")],
            "maps": [Path("0-of-2.h5"), Path("1-of-2.h5")],
            "curve": Path("c.csv"),
            "evaluation": Path("e.csv"),
            "threshold": Path("t.json"),
            "execution": Execution(device="cpu", threads=2),
        }
    ]


def test_paths_that_a_step_may_lack_are_none_and_no_files(given):
    words = ["train", "--config", "train.json", "--table", "i.csv", "--model", "m.pt", "--state", "s", "--history", "h"]
    assert cli.main([*words, "--device", "cpu", "--precision", "mixed", "--workers", "3"]) == 0
    (call,) = given
    assert (call["classifier"], call["ood"], call["labels"]) == (None, None, [])
    assert call["execution"] == Execution(device="cpu", precision="mixed", workers=3)


def test_a_path_that_a_step_must_have_is_asked_for(given, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["index", "--config", "s.json"])
    assert left.value.code == 2 and "required: --table" in capsys.readouterr().err
    assert not given


def test_a_pattern_names_the_files_of_every_shard_but_not_those_of_another_dealing(tmp_path):
    for name in ("00-of-02.h5", "01-of-02.h5", "0-of-1.h5"):
        (tmp_path / name).touch()
    named = cli.matching([tmp_path / "*-of-02.h5", tmp_path / "0-of-1.h5"])
    assert [path.name for path in named] == ["00-of-02.h5", "01-of-02.h5", "0-of-1.h5"]


def test_a_name_with_the_signs_of_a_pattern_is_itself_if_it_exists(tmp_path):
    (tmp_path / "a[1].h5").touch()
    assert cli.matching([tmp_path / "a[1].h5"]) == [tmp_path / "a[1].h5"]


def test_a_pattern_without_files_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"\*-of-02.h5: there is no such file"):
        cli.matching([tmp_path / "*-of-02.h5"])
