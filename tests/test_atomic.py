"""Whole files or none, and none that another run has overtaken."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenes import write_step
from wsss_core.errors import UserError
from wsss_core.store import atomic
from wsss_core.store.atomic import Stands, atomic_folder, atomic_path, only_while, write_text


@pytest.fixture
def files(tmp_path):
    """Settings, an input, a folder with a file, and a path where nothing is yet."""
    (tmp_path / "step.json").write_text("{}")
    (tmp_path / "maps.h5").write_text("maps")
    (tmp_path / "shards").mkdir()
    return tmp_path


def stands(folder: Path) -> Stands:
    return Stands([folder / "step.json"], [folder / name for name in ("maps.h5", "shards", "out.csv", "cache.h5")])


def changed_settings(folder: Path) -> None:
    (folder / "step.json").write_text('{"rate": 1}')


def changed_input(folder: Path) -> None:
    (folder / "maps.h5").write_text("other maps")


def replaced_input(folder: Path) -> None:
    (folder / "new.h5").write_text("spam")
    os.replace(folder / "new.h5", folder / "maps.h5")


def removed_input(folder: Path) -> None:
    (folder / "maps.h5").unlink()


def replaced_folder(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "shards").rename(folder / "old")
    (folder / "other").rename(folder / "shards")


def output_of_another(folder: Path) -> None:
    (folder / "out.csv").write_text("newer")


CHANGES = [changed_settings, changed_input, replaced_input, removed_input, replaced_folder]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_written_once_what_it_is_made_from_has_changed(files, change):
    with only_while(stands(files)):
        with pytest.raises(UserError, match="changed while this was computed"), atomic_path(files / "out.csv") as path:
            path.write_text("older")
            change(files)
        with pytest.raises(UserError, match="changed while this was computed"), atomic_folder(files / "masks"):
            pass
    assert not (files / "masks").exists() and not (files / "out.csv").exists()
    assert not list(files.glob(".tmp-*"))


def test_a_file_that_another_has_written_meanwhile_stays(files):
    with only_while(stands(files)), pytest.raises(UserError, match=r"out\.csv changed while this was computed"):
        write_text(files / "cache.h5", "half")
        output_of_another(files)
        write_text(files / "out.csv", "older")
    assert (files / "out.csv").read_text() == "newer"


def test_a_folder_that_a_step_fills_file_by_file_may_appear(files):
    with only_while(Stands([files / "step.json"], [files / "drawn", files / "out.csv"])):
        write_text(files / "drawn" / "a.png", "mask")
        write_text(files / "out.csv", "made")
        write_text(files / "drawn" / "b.png", "mask")
    assert (files / "out.csv").exists() and len(list((files / "drawn").iterdir())) == 2


def test_the_same_settings_written_again_and_own_files_are_no_change(files):
    with only_while(stands(files)):
        write_text(files / "cache.h5", "half")
        (files / "step.json").write_text("{}")
        (files / "shards" / "new.json").write_text("[]")
        write_text(files / "cache.h5", "whole")
        write_text(files / "out.csv", "made")
        write_text(files / "out.csv", "made again")
    assert (files / "out.csv").read_text() == "made again"


def test_outside_of_the_block_all_is_written(files):
    with only_while(stands(files)):
        changed_settings(files)
    write_text(files / "out.csv", "made")
    assert (files / "out.csv").read_text() == "made"


def test_names_of_any_length_fit_and_hold_host_and_process(tmp_path):
    name = "é" * 120 + ".h5"
    with atomic_path(tmp_path / name) as one, atomic_path(tmp_path / name) as two:
        assert one != two and one.suffix == ".h5" and f"-{os.getpid()}-" in one.name
        for path in (one, two):
            path.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    code = f"""
import time
from pathlib import Path
from wsss_core.store.atomic import atomic_folder, atomic_path
with atomic_path(Path({str(tmp_path)!r}) / "a.txt") as path, atomic_folder(Path({str(tmp_path)!r}) / "b") as folder:
    path.write_text("half")
    (folder / "c").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    atomic._sweep.cache_clear()
    write_text(tmp_path / "d.txt", "whole")
    assert len(list(tmp_path.glob(".tmp-*"))) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    atomic._sweep.cache_clear()
    write_text(tmp_path / "d.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["d.txt"]


def test_an_orphan_does_not_replace_what_a_newer_run_has_made(tmp_path):
    """The step goes on while its settings are changed, as when its workflow is killed and started with others."""
    settings = tmp_path / "toy.json"
    write_step(settings, "run", "toy", "toy", {"iterations": 200})
    process = subprocess.Popen(
        [sys.executable, "-m", "wsss_core.cli", "toy", "--config", settings, "--folder", tmp_path / "toy"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "images to train on" in process.stderr.readline()
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"seed": 1}))
    _, said = process.communicate()
    assert process.returncode == 2
    assert "toy.json changed while this was computed" in said
    assert not [path for path in (tmp_path / "toy").glob("*") if path.is_file()]
