"""Measures every benchmark and prints the table: ``python -m benchmarks [NAME ...] [--quick] [--device cpu|cuda]``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch

from benchmarks import DEVICES, NAMES, SIZES, cores
from benchmarks.measure import machine
from benchmarks.table import Row, processor, put_into, quantity, seconds, section
from benchmarks.turns import FEWEST_RUNS, measured
from wsss_core.execution import let_threads_sleep


def main() -> int:
    """Run the command line; 1 if any answers differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all by default")
    parser.add_argument(
        "--quick", action="store_const", dest="size", const="quick", default="full", help="smaller sizes"
    )
    parser.add_argument("--size", choices=SIZES, default="full", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=DEVICES, help="only this one; both by default")
    parser.add_argument("--threads", type=int, default=cores(), help="CPU threads; all by default")
    parser.add_argument("--runs", type=int, default=FEWEST_RUNS, help="fewest runs of a side; %(default)s by default")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page too")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    let_threads_sleep()  # in the processes of both sides
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    devices = [options.device] if options.device else DEVICES
    parts, agree = [f"Command: `{command}`. torch {torch.__version__}, Python {sys.version.split()[0]}.\n"], True
    for device in devices:
        present = device == "cpu" or torch.cuda.is_available()
        torch.set_num_threads(options.threads)
        pace = machine(torch.device(device)) if present else None
        rows = []
        for name in options.names or NAMES:
            for number, work in enumerate(importlib.import_module(f"benchmarks.{name}").works(options.size, device)):
                given = (name, options.size, device, number, work, options.threads, options.runs)
                rows.append(measured(*given) if present else Row(work.name))
                _say(rows[-1])
        agree &= all(row.agrees for row in rows)
        parts.append(
            section(device.upper().replace("CUDA", "GPU"), [_about(device, options.threads, pace)], rows, pace)
        )
    text = "\n".join(parts)
    print(text)
    if options.write:
        put_into(options.write, text)
    return 0 if agree else 1


def _about(device: str, threads: int, pace: tuple[float, float] | None) -> str:
    if pace is None:
        return "No GPU: not measured. The command measures these rows where there is one."
    name = torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, {threads} of its cores"
    reached = f"{quantity(pace[0], 'FLOP/s')} in float32 products and {quantity(pace[1], 'B/s')} in a copy"
    return f"{name}: {reached}, on which the floors are based."


def _say(row: Row) -> None:
    if row.sides:
        runs = [", ".join(map(seconds, side.runs)) for side in row.sides]
        print(f"{row.name}: {runs[0]}; ours {runs[1]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
