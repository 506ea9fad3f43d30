"""One side of one work, in a process of its own, so that its peak memory is its own and the other side's runs can be
taken in turns with it (see `benchmarks.turns`).

python -m benchmarks.measure NAME SIZE DEVICE NUMBER SIDE THREADS RESULT

Runs the side once, and once more for each line of standard input. Prints the seconds of every run on standard output;
at the end of the input, writes the answer and the peak memory of the first run.
"""

from __future__ import annotations

import importlib
import resource
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from wsss_core.execution import keep_freed_memory


def main() -> None:
    """Measure the side that the command line names."""
    name, size, device, number, side, threads, result = sys.argv[1:]
    seconds_out = sys.stdout
    with redirect_stdout(sys.stderr):
        torch.set_num_threads(int(threads))
        keep_freed_memory()
        work = importlib.import_module(f"benchmarks.{name}").works(size, device)[int(number)]
        run = partial(getattr(work, side), work.prepare(torch.device(device)))
        seconds, memory, answer = first_run(run, torch.device(device))
        print(seconds, file=seconds_out, flush=True)
        for _ in sys.stdin:
            seconds, answer = _timed(run, torch.device(device))
            print(seconds, file=seconds_out, flush=True)
    torch.save({"memory": memory, "answer": _on_cpu(answer)}, result)


def first_run(run: Callable[[], Any], device: torch.device) -> tuple[float, int, Any]:
    """Seconds, peak memory in bytes above what the process held before (of the GPU if `device` is one), and answer."""
    before = _start_of_peak(device)
    seconds, answer = _timed(run, device)
    return seconds, _peak(device) - before, answer


def machine(device: torch.device) -> tuple[float, float]:
    """What the device reaches: float32 operations a second in a matrix product or a convolution, whichever is faster,
    and bytes a second in a copy."""
    cpu = device.type == "cpu"
    side, images, length = (2048, 8, 2**28) if cpu else (8192, 64, 2**30)
    matrix = torch.randn(side, side, device=device)
    maps = torch.randn(images, 256, 56, 56, device=device).to(memory_format=torch.channels_last)
    filters = torch.randn(256, 256, 3, 3, device=device)
    values = torch.zeros(length // 4, device=device)
    target = torch.empty_like(values)

    def pace(amount: float, run: Callable[[], Any]) -> float:
        return amount / min(_timed(run, device)[0] for _ in range(5))

    product = pace(2 * side**3, lambda: matrix @ matrix)
    convolution = pace(2 * filters.numel() * maps[:, 0].numel(), lambda: F.conv2d(maps, filters, padding=1))
    return max(product, convolution), pace(2 * length, lambda: target.copy_(values))


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
