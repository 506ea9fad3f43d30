"""What a job records of its product: whose settings made it, what it is and what it took; and that one job at a time
makes it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenes import write_step
from wsss_core.jobs.made import overtaken, overtaken_lines, read_made, recorded
from wsss_core.store.alone import alone
from wsss_core.store.atomic import atomic_folder, write_text
from wsss_core.store.sealed import seal

TOY = {"iterations": 2, "measured": 2, "tried": 2, "steps": 1, "rib_batch": 2}


def settings_of(run: Path, stage: str, method: str, step: str, **more) -> Path:
    path = run / "config" / stage / f"{step}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_step(path, stage, method, step, more)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folder, in which two shards of maps, a folder of masks and a table were made."""
    run = tmp_path / "results/mine"
    config = settings_of(run, "seeds/cam", "cam", "maps")
    for shard in ("0-of-2", "1-of-2"):
        path = run / f"seeds/cam/maps/{shard}.h5"
        with recorded(config, [path]):
            write_text(path, f"maps of {shard}")
            seal(path)
    folder = run / "refinements/crf/masks/0-of-2"
    with recorded(settings_of(run, "refinements/crf", "crf", "masks"), [folder]), atomic_folder(folder) as temporary:
        (temporary / "a.png").write_text("mask")
    with recorded(settings_of(run, "run", "results", "results"), [run, run / "results.csv"]):
        write_text(run / "results.csv", "table")
    return run


def test_every_job_leaves_a_record_beside_its_settings(run):
    records = sorted(path.relative_to(run / "made").as_posix() for path in (run / "made").rglob("*.json"))
    assert records == [
        "refinements/crf/masks.0-of-2.json",
        "run/results.json",
        "seeds/cam/maps.0-of-2.json",
        "seeds/cam/maps.1-of-2.json",
    ]
    made = read_made(run / "made/seeds/cam/maps.0-of-2.json")
    assert made.product == "seeds/cam/maps/0-of-2.h5" and 0 <= made.seconds < 60 and made.memory_mb > 10
    assert overtaken(run) == {} and overtaken_lines(run) == []


def other_settings(run: Path) -> Path:
    settings_of(run, "seeds/cam", "cam", "maps", steps=3)
    return run / "seeds/cam/maps/0-of-2.h5"


def swapped(run: Path) -> Path:
    shutil.copyfile(run / "seeds/cam/maps/1-of-2.h5", run / "seeds/cam/maps/0-of-2.h5")
    return run / "seeds/cam/maps/0-of-2.h5"


def edited(run: Path) -> Path:
    (run / "results.csv").write_text("tables")
    return run / "results.csv"


def added_to_a_folder(run: Path) -> Path:
    (run / "refinements/crf/masks/0-of-2/b.png").write_text("mask")
    return run / "refinements/crf/masks/0-of-2"


@pytest.mark.parametrize("change", [other_settings, swapped, edited, added_to_a_folder])
def test_a_product_that_is_not_what_its_record_says_is_found(run, change):
    path = change(run)
    assert path in overtaken(run)
    assert f"{next(iter(overtaken(run)))}" in overtaken_lines(run)[0]


def test_a_touched_product_a_deleted_one_and_a_record_that_cannot_be_read_are_no_fault(run):
    os.utime(run / "seeds/cam/maps/0-of-2.h5")
    (run / "refinements/crf/masks/0-of-2/.snakemake_timestamp").touch()
    (run / "seeds/cam/maps/1-of-2.h5").unlink()
    (run / "made/run/results.json").write_text("{")
    assert overtaken(run) == {}


def test_a_step_by_hand_on_files_elsewhere_records_nothing(run, tmp_path):
    config = run / "config/seeds/cam/maps.json"
    with recorded(config, [tmp_path / "own.h5"]):
        write_text(tmp_path / "own.h5", "maps")
    shutil.copyfile(config, tmp_path / "maps.json")
    with recorded(tmp_path / "maps.json", [tmp_path / "seeds/cam/maps/0-of-2.h5"]):
        pass
    assert len(list((run / "made").rglob("*.json"))) == 4 and not (tmp_path / "made").exists()


def test_a_job_that_fails_leaves_no_record(run):
    with pytest.raises(ZeroDivisionError), recorded(run / "config/run/results.json", [run / "results.csv"]):
        raise ZeroDivisionError
    assert read_made(run / "made/run/results.json") is None


def test_a_second_writer_waits_for_the_first_and_says_for_whom(tmp_path):
    lock = tmp_path / "locks/maps.lock"
    first = _hold(lock)
    second = _hold(lock, wait=False)
    said = second.stderr.readline()
    assert f"waits for process {first.pid} on " in said
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.stdout.readline() == "holds it\n"
    second.kill()
    second.wait()
    with alone(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def _hold(lock: Path, *, wait: bool = True) -> subprocess.Popen:
    """A process that takes a lock and keeps it."""
    code = (
        "import logging, sys, time; from pathlib import Path; from wsss_core.store.alone import alone\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "with alone(Path(sys.argv[1])): print('holds it', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(lock)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if wait:
        assert process.stdout.readline() == "holds it\n"
    return process


def test_two_jobs_on_the_same_files_end_in_one_result_and_its_record(tmp_path):
    """As after a start whose Snakemake was killed, and whose job goes on with the same settings."""
    run = tmp_path / "results/mine"
    config = settings_of(run, "toy", "toy", "toy", **TOY)
    command = [sys.executable, "-m", "wsss_core.cli", "toy", "--config", config, "--folder", run / "toy"]
    jobs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert read_made(run / "made/toy/toy.json").product == "toy/layers.svg"
    assert overtaken(run) == {}
