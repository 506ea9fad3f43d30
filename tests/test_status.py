"""`wsss status` and `wsss clean`: what a run's folder tells of its state, and what may be dropped from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.warm import wsss
from wsss_core import cli
from wsss_core.config import load, step_json
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.jobs.start import FILE, Start, read_start, write_start
from wsss_core.pace import Pace
from wsss_core.registry import all_steps
from wsss_core.report.provenance import duration
from wsss_core.status import text
from wsss_core.status.cleaning import drop, droppable, require_finished
from wsss_core.status.disk import files, freed, taken
from wsss_core.status.reasons import data_changes, reasons
from wsss_core.status.state import Job, JobState, TaskState, find_run, finished, job_state, read_states, tasks

CONFIG = {
    "run": "mine",
    "dataset": {"format": "demo", "root": "data/demo"},
    "classifiers": {"bce": {"objective": "bce", "backbone": "small"}},
    "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
    "refinements": {"masks": {"method": "crf", "seed": "cam", "iterations": 3}},
    "targets": ["masks"],
}
STARTED, LATER, NOW = 1000.0, 2000.0, 3000.0


def write(path: Path, content: str = "", at: float = LATER) -> Path:
    """Write a file that was changed at a moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (at, at))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A finished run with two shards, made up, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))
    run = Path("results/mine")
    for shard in ("0-of-2", "1-of-2"):
        write(run / f"dataset/shards/train/{shard}.json")
    start = Start(CONFIG, ["mine.yaml"], str(tmp_path), socket.gethostname(), ended(), STARTED, {})
    write(run / FILE, json.dumps(start.__dict__))
    for stage, step in [("classifiers/bce", "train"), ("seeds/cam", "maps")]:
        write(run / f"config/{stage}/{step}.json", step_json(load(CONFIG), stage, step), STARTED)
    for task in tasks(find_run(run)):
        write(task.settings, step_json(load(CONFIG), task.stage, task.step.name) + "\n", STARTED)
        for job in task.jobs:
            write(job.product / "a.png" if task.step.name == "masks" else job.product, "x" * 100)
            write(job.log, "done\n")
            write(job.benchmark, "s\tmax_rss\n20.0\t100.0\n")
    write(Path("data/a.jpg"), at=STARTED)
    write_table(
        run / "dataset/images.csv", ImageTable(("cat",), (ImageRecord("a", "data/a.jpg", 8, 8, ("train",), (0,)),))
    )
    os.utime(run / "dataset/images.csv", (LATER, LATER))
    return run


def ended() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def at_work(folder) -> Iterator[Start]:
    """The run, while a Snakemake is at work on it."""
    code = "import time; print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, "snakemake"], stdout=subprocess.PIPE)
    process.stdout.readline()
    start = replace(read_start(folder), pid=process.pid)
    write(folder / FILE, json.dumps(start.__dict__))
    yield start
    process.kill()
    process.wait()


def states(run: Path) -> dict[str, list[str]]:
    """State of the jobs of each step."""
    found = read_states(find_run(run))
    return {f"{s.task.stage}: {s.task.step.name}": [job.state for job in s.jobs] for s in found}


def test_a_finished_run_is_finished_by_its_folder_and_by_its_configuration(folder, capsys):
    for name in ("results/mine", "mine.yaml"):
        assert cli.main(["status", name]) == 0
        shown = capsys.readouterr().out
        assert "run mine in results/mine: finished" in shown
        assert re.search(r"seeds/cam +maps +2/2$", shown, re.M)
        assert re.search(r"refinements/masks +masks +2/2$", shown, re.M)


def test_every_step_says_what_it_leaves():
    assert all(step.product and ("{shard}" in step.product) == (step.each == "shard") for step in all_steps())


def test_what_no_target_needs_is_not_asked_for(folder):
    assert "seeds/cam: scores" not in states(folder)
    assert "refinements/masks: evaluation" in states(folder)


def test_a_folder_that_is_no_run_and_a_run_that_never_started(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["status", "."]) == 2
    assert "is no run" in capsys.readouterr().err
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))
    assert cli.main(["status", "mine.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "not finished" in shown and re.search(r"masks +0/\?", shown) and "disk: 0 bytes" in shown


def test_a_changed_setting_makes_its_step_stale_and_is_named(folder, capsys):
    changed = CONFIG | {"refinements": {"masks": {"method": "crf", "seed": "cam", "iterations": 5}}}
    Path("mine.yaml").write_text(yaml.safe_dump(changed))
    run = find_run(Path("mine.yaml"))
    found = read_states(run)
    (masks,) = [s for s in found if s.count("stale") and s.task.stage != "run"]
    assert masks.task.step.name == "masks" and masks.count("stale") == 2
    assert reasons(run, masks) == ["iterations: 3 -> 5"]
    assert "  refinements/masks: masks\n      iterations: 3 -> 5" in text.why(run, found)
    assert not finished(found)
    assert cli.main(["status", "mine.yaml"]) == 0
    assert "wsss status mine.yaml --why" in capsys.readouterr().out
    assert set(sum(states(folder).values(), [])) == {"done"}, "the folder knows what it was started with"


def test_changed_code_is_named_by_its_file(folder):
    run = find_run(folder)
    (maps,) = [task for task in tasks(run) if task.step.name == "maps"]
    content = json.loads(maps.settings.read_text())
    write(maps.settings, json.dumps(content | {"code": "another"}), STARTED)
    write_start(folder, CONFIG, [])
    start = read_start(folder)
    before = dict(start.code) | {"seeds/cam.py": "another", "refine/crf.py": "another"}
    write(folder / FILE, json.dumps(replace(start, code=before).__dict__))
    run = find_run(folder)
    (state,) = [s for s in read_states(run) if s.task.step.name == "maps"]
    assert reasons(run, state) == ["code: wsss_core/seeds/cam.py"]


def test_settings_that_are_younger_than_what_was_made_or_gone(folder):
    settings = folder / "config/seeds/cam/maps.json"
    os.utime(settings, (NOW, NOW))
    run = find_run(folder)
    (state,) = [s for s in read_states(run) if s.task.step.name == "maps"]
    assert reasons(run, state) == [f"it was made before its settings were written: {settings}"]
    (folder / "config/refinements/masks/masks.json").unlink()
    (state,) = [s for s in read_states(run) if s.task.step.name == "masks"]
    assert state.count("stale") == 2 and "is gone" in reasons(run, state)[0]


def test_data_that_changed_is_named_by_its_file(folder, tmp_path):
    data = {"format": "table", "root": "data", "labels": "labels.csv", "images": "images"}
    run = replace(find_run(folder), configuration=load(CONFIG | {"dataset": data}), working=tmp_path)
    write(Path("data/images/b.jpg"))
    os.utime("data/images", (NOW, NOW))
    write(Path("data/labels.csv"), at=NOW)
    assert list(data_changes(run)) == [
        "data/images has other files in it than the table of images",
        "data/labels.csv is younger than the table of images",
    ]
    Path("data/a.jpg").unlink()
    assert next(data_changes(run)) == "data/a.jpg is gone"


@pytest.fixture
def job(tmp_path) -> Job:
    return Job("0-of-2", tmp_path / "0-of-2.h5", tmp_path / "0-of-2.log", tmp_path / "0-of-2.tsv")


def test_states_of_a_job(job):
    assert job_state(job, STARTED, None).state == "waiting"
    write(job.log, "10:00:00 image 3/10  2.00 s/image  14 s left\n", LATER)
    assert job_state(job, STARTED, None).state == "stopped"
    running = job_state(job, STARTED, STARTED)
    assert (running.state, running.pace) == ("running", Pace("image", 3, 10, 2.0))
    assert job_state(job, STARTED, NOW).state == "waiting", "the log is of an earlier start"
    write(job.log, "a line\nerror: no such file:\n  x.jpg\n", LATER)
    for alive in (None, STARTED):
        failed = job_state(job, STARTED, alive)
        assert (failed.state, failed.error) == ("failed", "error: no such file:\n  x.jpg")
    write(job.log, "Traceback (most recent call last):\n  File\nMemoryError: too much\n", LATER)
    assert job_state(job, STARTED, None).error == "MemoryError: too much"
    write(job.benchmark, at=NOW)
    assert job_state(job, STARTED, None).state == "dropped"
    write(job.product, at=NOW)
    assert job_state(job, STARTED, None).state == "done"
    assert job_state(job, None, None).state == "stale", "settings differ"
    assert job_state(job, NOW + 1, None).state == "stale", "settings are younger"


def test_a_job_that_is_made_again_is_running_though_its_old_product_may_be_there(job):
    write(job.product, at=STARTED)
    write(job.benchmark, at=STARTED)
    write(job.log, at=NOW)
    assert job_state(job, STARTED, LATER).state == "running"
    assert job_state(job, STARTED, None).state == "done"


def test_the_time_left_counts_the_jobs_that_wait(folder):
    (maps,) = [state for state in read_states(find_run(folder)) if state.task.step.name == "maps"]
    job = maps.jobs[0].job
    running = JobState(job, "running", Pace("image", 5, 10, 2.0))
    waiting = JobState(job, "waiting")
    assert replace(maps, jobs=(running, running, waiting, waiting)).left == (10 + 10 + 2 * 20) / 2
    assert replace(maps, jobs=(JobState(job, "running"), waiting)).left is None
    assert TaskState(maps.task, (waiting,), None).left is None


def test_a_run_that_is_going_on_shows_its_pace_and_cannot_be_cleaned(folder, at_work, capsys):
    job = tasks(find_run(folder))[2].jobs[1]
    job.product.unlink()
    job.benchmark.unlink()
    write(job.log, "10:00:00 image 3/10  2.00 s/image  14 s left\n", time.time() - 400)
    assert cli.main(["status", "results/mine"]) == 0
    shown = capsys.readouterr().out
    assert "going on" in shown
    pattern = r"maps +1/2 +1 +1-of-2 image 3/10, 2\.00 s each, 14 s left, silent for 6 min \d+ s; about 14 s for all$"
    assert re.search(pattern, shown, re.M), shown
    assert cli.main(["clean", "results/mine"]) == 2
    assert "at work" in capsys.readouterr().err


def test_a_lock_that_a_killed_snakemake_left_is_told_and_stops_cleaning(folder, capsys):
    write(Path(".snakemake/locks/0.output.lock"), "results/other/report.html\n")
    assert not find_run(folder).start.locked
    write(Path(".snakemake/locks/1.output.lock"), "results/mine/report.html\n")
    (folder / "report.html").unlink()
    (folder / "benchmarks/report.tsv").unlink()
    assert cli.main(["status", "results/mine"]) == 0
    shown = capsys.readouterr().out
    assert "not finished, and locked" in shown
    assert "run: report stopped; log: results/mine/logs/report.log" in shown
    assert cli.main(["clean", "results/mine"]) == 2
    assert "--unlock" in capsys.readouterr().err


def test_a_process_of_another_machine_is_believed_by_its_lock(folder):
    start = replace(read_start(folder), host="elsewhere", pid=os.getpid())
    write(folder / FILE, json.dumps(start.__dict__))
    assert not find_run(folder).alive
    write(Path(".snakemake/locks/0.output.lock"), "results/mine/report.html\n")
    assert find_run(folder).alive


def test_cleaning_says_how_many_bytes_and_leaves_the_run_finished(folder, capsys):
    cache = write(folder / ".state/seeds/cam/0-of-2.h5", "x" * 500)
    os.link(folder / "seeds/cam/maps/1-of-2.h5", folder / ".state/seeds/cam/1-of-2.h5")
    assert cli.main(["clean", "results/mine", "--dry-run"]) == 0
    assert "2 files would be dropped, 500 bytes freed" in capsys.readouterr().out
    assert cache.exists()
    assert cli.main(["clean", "results/mine"]) == 0
    assert "2 files dropped, 500 bytes freed" in capsys.readouterr().out
    assert not (folder / ".state").exists()
    assert (folder / "seeds/cam/maps/1-of-2.h5").exists()
    assert cli.main(["clean", "mine.yaml", "--maps"]) == 0
    assert "2 files dropped, 200 bytes freed" in capsys.readouterr().out
    assert states(folder)["seeds/cam: maps"] == ["dropped", "dropped"]
    assert finished(read_states(find_run(folder)))
    cli.main(["status", "results/mine"])
    assert "files of 2 dropped since" in capsys.readouterr().out


def test_an_unfinished_run_is_not_cleaned(folder):
    shutil.rmtree(folder / "refinements/masks/masks/0-of-2")
    (folder / "refinements/masks/evaluation.csv").unlink()
    run = find_run(folder)
    with pytest.raises(UserError, match="is not finished"):
        require_finished(run, read_states(run))


def test_links_are_not_followed_and_nothing_but_the_runs_own_files_is_dropped(folder, tmp_path):
    outside = write(tmp_path / "outside/0-of-2.h5", "mine")
    (folder / ".state").mkdir()
    (folder / ".state/linked").symlink_to(outside.parent)
    (folder / ".state/one.h5").symlink_to(outside)
    shutil.rmtree(folder / "seeds/cam/maps")
    (folder / "seeds/cam/maps").symlink_to(outside.parent)
    own = write(folder / "seeds/cam/maps.csv")
    run = find_run(folder)
    listed = droppable(run, maps=True)
    assert listed == []
    drop(run, listed)
    assert outside.read_text() == "mine" and own.exists() and (folder / ".state/one.h5").is_symlink()


def test_a_data_set_inside_the_run_stops_cleaning(folder):
    data = {"format": "table", "root": "results/mine/.state", "labels": "labels.csv", "images": "images"}
    run = replace(find_run(folder), configuration=load(CONFIG | {"dataset": data}))
    write(folder / ".state/labels.csv")
    with pytest.raises(UserError, match="the data set lies in"):
        droppable(run, maps=False)


def test_bytes_of_hard_links_count_once_and_are_free_when_the_last_goes(tmp_path):
    first = write(tmp_path / "a/first", "12345")
    os.link(first, tmp_path / "a/second")
    os.link(first, write(tmp_path / "b/other", "1").with_name("third"))
    assert taken(files(tmp_path)) == 6
    assert freed(files(tmp_path / "a")) == 0
    assert freed(files(tmp_path)) == 6


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with a real run, of one shard, as far as IRN's masks."""
    folder = tmp_path_factory.mktemp("tiny")
    config = yaml.safe_load((REPOSITORY / "tests/config/tiny.yaml").read_text())
    config["dataset"]["shard_size"] = 64
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config | {"targets": ["rib-irn"]}))
    done = wsss(folder, "run", "tiny.yaml", "--cores", "2")
    assert "steps (100%) done" in done
    assert "training classifier bce; log: results/tiny/logs/classifiers/bce/train.log" in done
    return folder


@pytest.mark.workflow
def test_a_real_run_is_finished_and_says_why_it_would_run_again(tiny):
    assert "run tiny in results/tiny: finished" in wsss(tiny, "status", "results/tiny")
    for words in (("results/tiny",), ("tiny.yaml",)):
        shown = wsss(tiny, "status", *words, "--why")
        assert "data that changed:\n  none" in shown and "and why:\n  nothing" in shown
    config = yaml.safe_load((tiny / "tiny.yaml").read_text())
    config["refinements"]["rib-irn"]["walk"] = {"beta": 8.0}
    (tiny / "changed.yaml").write_text(yaml.safe_dump(config))
    shown = wsss(tiny, "status", "changed.yaml", "--why")
    assert "  refinements/rib-irn: walk\n      beta: 10.0 -> 8.0" in shown
    assert "  masks rib-irn from walked scores\n      Input files updated by another job: " in shown
    assert "seeds rib" not in shown.partition("What Snakemake would run")[2]


@pytest.mark.workflow
def test_a_product_that_was_replaced_or_passed_over_is_told_by_status_and_by_the_next_start(tiny):
    """As where a job of an earlier start ends last, or files are copied between runs."""
    record = next((tiny / "results/tiny/made/seeds/rib").glob("maps.*.json"))
    before = record.read_text()
    record.write_text(json.dumps(json.loads(before) | {"settings": "of an earlier start"}))
    shown = wsss(tiny, "status", "results/tiny", "--why")
    assert "not finished" in shown
    assert "was made with other settings than results/tiny/config/seeds/rib/maps.json" in shown
    record.write_text(before)
    swapped = next((tiny / "results/tiny/refinements/rib-irn/masks").glob("*/*.png"))
    kept = swapped.read_bytes()
    swapped.write_bytes(kept + b" ")
    shown = wsss(tiny, "status", "results/tiny", "--why")
    assert "not finished" in shown and "it was changed or replaced since" in shown
    shown = wsss(tiny, "run", "tiny.yaml", "--cores", "1", "--forcerun", "report")
    assert f"warning: {swapped.parent.relative_to(tiny)}: is not as its step wrote it" in shown
    swapped.write_bytes(kept)
    assert "run tiny in results/tiny: finished" in wsss(tiny, "status", "results/tiny")


@pytest.mark.workflow
def test_a_real_run_stays_finished_without_its_maps(tiny):
    assert "freed" in wsss(tiny, "clean", "results/tiny", "--maps")
    assert not (tiny / "results/tiny/.state").exists()
    assert not list(tiny.glob("results/tiny/**/*.h5"))
    assert "Nothing to be done" in wsss(tiny, "run", "tiny.yaml", "--cores", "1", "--dry-run")
    assert "run tiny in results/tiny: finished" in wsss(tiny, "status", "results/tiny")
    shutil.rmtree(tiny / ".snakemake")
    assert "run tiny in results/tiny: finished" in wsss(tiny, "status", "results/tiny")
    assert "Nothing to be done" in wsss(tiny, "run", "tiny.yaml", "--cores", "1", "--dry-run")


def test_check_foretells_time_and_disk_by_earlier_runs(folder, capsys):
    """Each job of the run took 20 s; its two shards hold one photo, and its disk is what its files take."""
    Path("photos").mkdir()
    for name in ("a", "b", "c"):
        (Path("photos") / f"{name}.jpg").touch()
    Path("photos/labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,cat\nc.jpg,\n")
    rib = {"rib": {"method": "rib", "classifier": "bce"}}
    changed = CONFIG | {"run": "next", "dataset": {"format": "table", "root": "photos"}}
    changed |= {"seeds": CONFIG["seeds"] | rib, "targets": ["masks", "rib"]}
    Path("next.yaml").write_text(yaml.safe_dump(changed))
    assert cli.main(["check", "next.yaml"]) == 0
    told = capsys.readouterr().out
    jobs = sum(len(task.jobs) for task in tasks(find_run(folder)) if "/" in task.stage)
    expected = duration(3 * 20.0 * jobs)
    assert (
        f"time: about {expected} of work by earlier runs in results" in told and "of rib nothing is known yet" in told
    )
    assert re.search(r"disk: about [\d.]+ (kB|MB|bytes)", told)


def test_check_foretells_nothing_without_an_earlier_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(CONFIG))
    assert cli.main(["check", "mine.yaml"]) == 0
    assert "time:" not in capsys.readouterr().out
