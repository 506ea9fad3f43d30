"""How a step is executed: threads, device, and one GPU for each process."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from wsss_core.execution import Execution, gpu_lease

HOLD = """
import sys, time
from pathlib import Path
from wsss_core.execution import gpu_lease

folder, log, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with gpu_lease("auto", folder, poll=0.01) as number:
    begin = time.monotonic()
    print(number, flush=True)
    time.sleep(seconds)
    with open(log, "a") as handle:
        handle.write(f"{number} {begin} {time.monotonic()}\\n")
"""


def start(folder: Path, seconds: float, devices: str = "0,1") -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}
    environment |= {"CUDA_VISIBLE_DEVICES": devices, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", HOLD, str(folder / "locks"), str(folder / "log"), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_eight_processes_share_two_gpus_one_at_a_time(tmp_path):
    processes = [start(tmp_path, 0.1) for _ in range(8)]
    assert [process.wait(timeout=30) for process in processes] == [0] * 8
    held = {"0": [], "1": []}
    for line in (tmp_path / "log").read_text().splitlines():
        number, begin, end = line.split()
        held[number].append((float(begin), float(end)))
    assert sum(map(len, held.values())) == 8
    assert all(held.values()), "one GPU was never used"
    for intervals in held.values():
        intervals.sort()
        assert all(end <= begin for (_, end), (begin, _) in zip(intervals, intervals[1:], strict=False))


def test_a_killed_process_gives_its_gpu_back(tmp_path):
    holder = start(tmp_path, 60, devices="3")
    assert holder.stdout.readline().strip() == "3"
    waiting = start(tmp_path, 0, devices="3")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.5)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert waiting.communicate(timeout=30)[0].strip() == "3"


@pytest.mark.parametrize(
    ("device", "environment"),
    [
        ("cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}),
        ("auto", {"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_ID": "7"}),
    ],
    ids=["on CPU", "no GPU", "SLURM has chosen"],
)
def test_nothing_to_lease(device, environment, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with gpu_lease(device, tmp_path) as number:
        assert number is None
        assert os.environ["CUDA_VISIBLE_DEVICES"] == environment["CUDA_VISIBLE_DEVICES"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("listed", ["GPU-5a2f, GPU-77e1", "MIG-GPU-5a2f/1/0"])
def test_devices_may_be_named(listed, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    with gpu_lease("cuda", tmp_path) as number:
        assert number in listed.split(", ")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == number


def test_device_and_threads():
    assert Execution("cpu", threads=2).torch_device() == torch.device("cpu")
    assert torch.get_num_threads() == 1, "asking for the device changes nothing"
    Execution("cpu", threads=2).set_threads()
    assert torch.get_num_threads() == 2
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert Execution("auto").torch_device() == torch.device(expected)
    Execution("auto").set_threads()
    assert torch.get_num_threads() == 1


FAULTS = """
import resource, sys
import numpy as np
from wsss_core.execution import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def layers():
    return [np.ones(20_000_000, np.uint8) for _ in range(3)]

layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again():
    """The pages of three blocks of 20 MB, five times over, are fetched again by default, not where they are kept."""
    faults = {
        how: int(
            subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, cwd=REPOSITORY).stdout
        )
        for how in ("returned", "kept")
    }
    assert 4 * faults["kept"] < faults["returned"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="torch may bring another OpenMP")
@pytest.mark.parametrize(
    ("own", "spins"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_threads_of_a_command_sleep_soon_unless_the_user_decides(own, spins, tmp_path):
    """OpenMP itself says what it read when torch loads it."""
    kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = kept | {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(REPOSITORY)} | own
    command = [sys.executable, "-m", "wsss_core.cli", "predict", "--model", "none.pt", "none.jpg", "--out", "out"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path).stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in said
