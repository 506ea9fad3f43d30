"""Work in several processes, which end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from wsss_core.errors import UserError
from wsss_core.jobs.processes import in_processes


def tagged(prefix: str, number: int) -> tuple[str, int, int]:
    if number == 13:
        raise UserError("thirteen")
    return f"{prefix}{number}", os.getpid(), torch.get_num_threads()


def asleep(folder: Path, number: int) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_results_come_in_order_from_other_processes():
    found = list(in_processes(2, partial(tagged, "n"), range(8), threads=3))
    assert [name for name, _, _ in found] == [f"n{number}" for number in range(8)]
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for _, _, threads in found} == {3}


def test_the_first_error_is_raised_in_its_turn():
    found = in_processes(2, partial(tagged, "n"), [12, 13, 14])
    assert next(found)[0] == "n12"
    with pytest.raises(UserError, match="thirteen"):
        list(found)


def test_processes_end_when_theirs_is_killed(tmp_path):
    """A killed job must not leave processes behind that hold a GPU."""
    code = f"""
from functools import partial
from pathlib import Path
from tests.test_processes import asleep
from wsss_core.jobs.processes import in_processes
list(in_processes(2, partial(asleep, Path({str(tmp_path)!r})), [0, 1]))
"""
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not any(is_alive(int(path.name)) for path in tmp_path.iterdir()))


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
