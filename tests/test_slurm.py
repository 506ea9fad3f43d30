"""A run through a real SLURM, brought up on this machine: cancelled half-way, resumed, and equal to a local run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_workflow import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slurm]

MINI_SLURM = REPOSITORY / "tests/slurm/mini_slurm.sh"
PROFILES = {
    "slurm": ["--slurm-init-seconds-before-status-checks", "12", "--slurm-no-account", "--latency-wait", "10"],
    "slurm-generic": ["--seconds-between-status-checks", "2", "--latency-wait", "10"],
}
"""What is different from the profile here: polling for short jobs, and no accounts."""
STEPS = 1000
"""Of DeepLab's training: enough for it to be cancelled between its first line of pace, after 2 s, and its end."""


def mini_slurm(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(MINI_SLURM), *arguments], capture_output=True, text=True, check=False)


class Cluster:
    """A SLURM of two nodes on loopback, which ends with this process at the latest."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wsss-slurm-"))
        done = mini_slurm("up", str(self.folder), str(os.getpid()))
        assert done.returncode == 0, done.stdout + done.stderr
        script = f"source {self.folder}/env && env --null"
        listed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        self.environment = dict(item.split("=", 1) for item in listed.split("\0") if item)

    def command(self, *arguments: str) -> str:
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def jobs(self, rule: str) -> list[dict[str, str]]:
        """What SLURM knows of every submission of a rule through profiles/slurm, alone or as a group.

        A comment ends with the names of its rules; `maps` is not meant where it says `masks_from_maps`.
        """
        lines = self.command("scontrol", "show", "job", "--oneliner").splitlines()
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        return [job for job in jobs if re.search(rf"(?<!_from)_{rule}($|_)", job.get("Comment", ""))]


@pytest.fixture(scope="module")
def cluster():
    needs = mini_slurm("needs")
    if needs.returncode:
        packages = "slurmctld slurmd slurm-client munge"
        pytest.skip(f"no SLURM on this machine ({needs.stdout.strip()}); Debian's packages: {packages}")
    started = Cluster()
    yield started
    done = mini_slurm("down", str(started.folder))
    assert done.returncode == 0 and not started.folder.exists(), done.stdout + done.stderr


class Run:
    """One project folder: RIB, its CRF masks, DeepLab trained on those; and IRN beside it."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        config = self.project.config
        sections = {"seeds": ("rib",), "refinements": ("rib-crf", "rib-irn"), "segmentations": ("deeplab",)}
        for section, names in sections.items():
            config[section] = {name: config[section][name] for name in names}
        config["segmentations"]["deeplab"] |= {"masks": "rib-crf", "iterations": STEPS, "crop": 33, "msc_scales": []}
        config["execution"] = {"device": "cpu", "train_threads": 1}
        self.project.write_config(config)
        self.results = self.project.results

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
        """Begin `snakemake`, its output in `head.log`."""
        environment = (environment or dict(os.environ)) | {
            "PYTHONPATH": str(self.project.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        command = [sys.executable, "-m", "snakemake", "--configfile", "run.yaml", *arguments]
        with open(self.project.folder / "head.log", "w") as log:
            options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            return subprocess.Popen(command, cwd=self.project.folder, env=environment, **options)

    def submit(self, cluster: Cluster, profile: str, *arguments: str) -> subprocess.Popen:
        options = ["--workflow-profile", f"profiles/{profile}", *PROFILES[profile], *arguments]
        return self.start(*options, environment=cluster.environment)

    def output(self) -> str:
        return (self.project.folder / "head.log").read_text()

    def finish(self, head: subprocess.Popen, timeout: float = 400) -> int:
        try:
            return head.wait(timeout)
        except subprocess.TimeoutExpired:
            kill(head)
            raise AssertionError(self.output()[-4000:]) from None

    def made(self, *patterns: str) -> dict[str, bytes]:
        files = [path for pattern in patterns for path in self.results.glob(pattern) if path.is_file()]
        return {str(path.relative_to(self.results)): path.read_bytes() for path in sorted(files)}

    def times(self) -> dict[str, int]:
        """Modification times of all that is finished."""
        sections = ("dataset", "classifiers", "seeds", "refinements", "segmentations")
        files = [path for section in sections for path in (self.results / section).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.results)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def local(cluster, tmp_path_factory):
    """The run on this machine's two cores, begun now, for use while SLURM's queue is polled."""
    run = Run(tmp_path_factory.mktemp("local"))
    head = run.start("--cores", "2", "segmentations", "masks")
    yield lambda: run if run.finish(head) == 0 else pytest.fail(run.output()[-4000:])
    kill(head)


@pytest.fixture(scope="module")
def run(local, tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("cluster"))


def kill(head: subprocess.Popen) -> None:
    """End a Snakemake with what it runs on this machine; the jobs of the cluster end with that."""
    if head.poll() is None:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def wait_until(condition, what: str, head: subprocess.Popen, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and head.poll() is None, f"{what} did not happen"
        time.sleep(0.1)


@pytest.mark.timeout(1200)
def test_cancelled_half_way_and_resumed(cluster, local, run):
    log = run.results / "logs/segmentations/deeplab/train.log"
    head = run.submit(cluster, "slurm", "--retries", "0", "segmentations")
    try:
        wait_until(
            lambda: log.exists() and re.search(rf"step \d+/{STEPS}", log.read_text()), "a step of a training", head
        )
    except AssertionError as error:
        kill(head)
        raise AssertionError(f"{error}: {run.output()[-4000:]}") from None
    (training,) = cluster.jobs("segmentations_train")
    cluster.command("scancel", training["JobId"])
    assert run.finish(head) != 0, "the head did not notice that a job was cancelled"

    assert cluster.jobs("segmentations_train")[0]["JobState"] == "CANCELLED"
    assert not (run.results / "segmentations/deeplab/model.pt").exists()
    assert (run.results / ".state/segmentations/deeplab.pt").exists()
    finished = run.times()
    assert "refinements/rib-crf/masks/00-of-02" in {str(Path(name).parent) for name in finished}

    head = run.submit(cluster, "slurm", "segmentations")
    assert run.finish(head) == 0, run.output()[-4000:]
    assert "resuming at step" in log.read_text()
    assert finished.items() <= run.times().items(), "finished work was done again"

    expected = local().made("segmentations/deeplab/evaluation.csv", "segmentations/deeplab/predictions/**/*.png")
    assert len(expected) > 1
    assert run.made("segmentations/deeplab/evaluation.csv", "segmentations/deeplab/predictions/**/*.png") == expected


def test_what_slurm_was_asked_for(cluster, run):
    for rule in ("classifiers_train", "maps", "segmentations_train", "predictions"):
        for job in cluster.jobs(rule):
            asked = {key: job[key] for key in ("Partition", "TresPerJob", "NumTasks")}
            assert asked == {"Partition": "gpu", "TresPerJob": "gres:gpu:1", "NumTasks": "1"}, rule
    assert [job["CPUs/Task"] for job in cluster.jobs("index")] == ["2"]
    assert [job["CPUs/Task"] for job in cluster.jobs("segmentations_train")] == ["1", "1"]
    assert len(cluster.jobs("maps")) == 2
    (group,) = cluster.jobs("masks_from_maps")
    assert (group["Partition"], group["NumCPUs"], group["TimeLimit"]) == ("cpu", "1", "00:40:00")
    assert group["MinMemoryNode"] == "2000M"


def test_the_generic_profile_goes_on_from_there(cluster, local, run):
    finished = run.times()
    head = run.submit(cluster, "slurm-generic", "masks")
    assert run.finish(head) == 0, run.output()[-4000:]
    assert finished.items() <= run.times().items(), "finished work was done again"
    assert run.made("refinements/*/*.csv", "refinements/*/masks/**/*.png") == local().made(
        "refinements/*/*.csv", "refinements/*/masks/**/*.png"
    )


def test_a_cluster_ends_with_its_owner(cluster):
    owner = subprocess.Popen(["sleep", "60"])
    folder = Path(tempfile.mkdtemp(prefix="wsss-slurm-"))
    assert mini_slurm("up", str(folder), str(owner.pid)).returncode == 0
    daemons = [int(path.read_text()) for path in folder.glob("*.pid")]
    assert len(daemons) == 4
    owner.kill()
    owner.wait()
    end = time.monotonic() + 20
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not folder.exists()
    for daemon in daemons:
        status = Path(f"/proc/{daemon}/status")
        assert not status.exists() or re.search(r"^State:\s+Z", status.read_text(), flags=re.MULTILINE)
