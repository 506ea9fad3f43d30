"""What all tests share, those in `tests` and the examples in docstrings."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

collect_ignore = [] if find_spec("triton") else ["wsss_core/kernels/random_walk_triton.py"]
if not find_spec("hypothesis"):
    collect_ignore.append("tests/fuzz/damage.py")


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors are fastest on one thread, and results must not depend on the machine's core count."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def examples_write_elsewhere(request, tmp_path_factory, monkeypatch):
    """Examples in docstrings write files by plain names: into a folder of their own."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path_factory.mktemp("example"))
