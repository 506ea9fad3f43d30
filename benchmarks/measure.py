"""Measures one side of one work. Every side runs in a process of its own, so that its peak memory is its own.

python -m benchmarks.measure NAME SIZE DEVICE NUMBER SIDE THREADS RESULT
"""

from __future__ import annotations

import importlib
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SECONDS, FEWEST_RUNS, MOST_RUNS = 3.0, 3, 30
"""A side is repeated until its runs took this long, at least and at most so often, after one that is not counted."""

LONG = 30.0
"""A side whose first run took longer, in seconds, is not run again: there a first run costs nothing extra."""


def main() -> None:
    """Measure the side that the command line names and write `Measurement` fields with the answer."""
    name, size, device, number, side, threads, result = sys.argv[1:]
    torch.set_num_threads(int(threads))
    work = importlib.import_module(f"benchmarks.{name}").works(size, device)[int(number)]
    inputs = work.prepare(torch.device(device))
    torch.save(measured(lambda: getattr(work, side)(inputs), torch.device(device)), result)


def measured(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Median seconds, number of runs counted, and peak memory of a function above what its process held before.

    Returns
    -------
    ``seconds``, ``runs``, ``memory`` in bytes (of the GPU if `device` is one), ``answer``.
    """
    before = _start_of_peak(device)
    first, answer = _timed(run, device)
    memory = _peak(device) - before
    times = [first] if first > LONG else []
    while first <= LONG and len(times) < MOST_RUNS and (len(times) < FEWEST_RUNS or sum(times) < SECONDS):
        seconds, answer = _timed(run, device)
        times.append(seconds)
    return {"seconds": statistics.median(times), "runs": len(times), "memory": memory, "answer": _on_cpu(answer)}


def machine(device: torch.device) -> tuple[float, float]:
    """What the device reaches: float32 operations a second in a matrix product, bytes a second in a copy."""
    side, length = (2048, 2**28) if device.type == "cpu" else (8192, 2**30)
    matrix = torch.randn(side, side, device=device)
    values = torch.zeros(length // 4, device=device)
    target = torch.empty_like(values)
    operations = 2 * side**3 / min(_timed(lambda: matrix @ matrix, device)[0] for _ in range(5))
    traffic = 2 * length / min(_timed(lambda: target.copy_(values), device)[0] for _ in range(5))
    return operations, traffic


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    _finish(device)
    start = time.perf_counter()
    answer = run()
    _finish(device)
    return time.perf_counter() - start, answer


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _start_of_peak(device: torch.device) -> int:
    """Memory held now; the peak counts from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _on_cpu(answer: Any) -> Any:
    if isinstance(answer, tuple):
        return tuple(_on_cpu(part) for part in answer)
    return torch.as_tensor(answer).detach().cpu()


if __name__ == "__main__":
    main()
