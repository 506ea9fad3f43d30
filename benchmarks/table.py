"""The table of the benchmarks, in markdown."""

from __future__ import annotations

import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.store.atomic import write_text

BEGIN, END = "<!-- begin of the measured table -->", "<!-- end of the measured table -->"
"""Lines of a page between which the table stands."""

COLUMNS = "| work | baseline | ours | ratio | peak memory, baseline | ours | difference | floor |"


@dataclass(frozen=True)
class Side:
    """How one side did: seconds of its runs, peak memory in bytes above what it started with."""

    runs: tuple[float, ...]
    memory: int

    @property
    def seconds(self) -> float:
        """Median of the runs."""
        return statistics.median(self.runs)


@dataclass(frozen=True)
class Row:
    """One work; without sides it was not measured.

    Attributes
    ----------
    difference
        How far the answers are apart.
    agrees
        Whether that is within the work's limit.
    errors
        How far the baseline's answer and ours are from the exact one, where that is known.
    floor
        Operations and bytes that the work takes at least.
    """

    name: str
    sides: tuple[Side, Side] | None = None
    difference: float = 0.0
    agrees: bool = True
    errors: tuple[float, float] | None = None
    floor: tuple[float, float] | None = None


def section(title: str, about: Sequence[str], rows: Sequence[Row], machine: tuple[float, float] | None) -> str:
    """A heading, facts about the machine, and a table.

    Parameters
    ----------
    machine
        Operations and bytes a second of the device, for the floors; None if there is none.
    """
    lines = [f"### {title}", "", *about, "", COLUMNS, "|" + "---|" * (COLUMNS.count("|") - 1)]
    return "\n".join([*lines, *(line(row, machine) for row in rows)]) + "\n"


def line(row: Row, machine: tuple[float, float] | None) -> str:
    """One row of the table."""
    if row.sides is None:
        return f"| {row.name} | not measured | not measured | | | | | |"
    baseline, ours = row.sides
    difference = number(row.difference) if row.agrees else f"**{number(row.difference)}: the answers differ**"
    if row.errors is not None:
        difference += f" (from the exact answer: {number(row.errors[0])}, ours {number(row.errors[1])})"
    cells = [
        row.name,
        seconds(baseline.seconds),
        seconds(ours.seconds),
        ratios(baseline, ours),
        memory(baseline.memory),
        memory(ours.memory),
        difference,
        floor(row.floor, machine),
    ]
    return f"| {' | '.join(cells)} |"


def floor(least: tuple[float, float] | None, machine: tuple[float, float] | None) -> str:
    """The larger of the times that operations and bytes take on a machine.

    Examples
    --------
    >>> floor((4e9, 1e6), (2e11, 1e10))
    '4 GFLOP, 20 ms'
    """
    if least is None or machine is None:
        return "the baseline"
    times = [amount / pace for amount, pace in zip(least, machine, strict=True)]
    amount = quantity(least[0], "FLOP") if times[0] > times[1] else quantity(least[1], "B")
    return f"{amount}, {seconds(max(times))}"


def number(value: float) -> str:
    """Two significant digits; 0 is exact."""
    return "0" if value == 0 else f"{value:.1e}"


def ratios(baseline: Side, ours: Side) -> str:
    """Median, least and largest ratio of two runs in turn; of the medians if a side ran once.

    Examples
    --------
    >>> ratios(Side((2.0, 3.0, 2.4), 0), Side((1.0, 1.0, 1.5), 0))
    '2.0× (1.6 to 3.0)'
    """
    if min(len(baseline.runs), len(ours.runs)) == 1:
        return f"{ratio(baseline.seconds / ours.seconds)}×"
    turns = [one / other for one, other in zip(baseline.runs, ours.runs, strict=False)]
    return f"{ratio(statistics.median(turns))}× ({ratio(min(turns))} to {ratio(max(turns))})"


def ratio(value: float) -> str:
    """A ratio with two or three significant digits.

    Examples
    --------
    >>> ratio(0.613), ratio(2.4), ratio(31.7), ratio(4412.0)
    ('0.61', '2.4', '32', '4,410')
    """
    if value < 1:
        return f"{value:.2f}"
    if value < 10:
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 1000 else f"{round(value, -1):,.0f}"


def seconds(value: float) -> str:
    """Time with three significant digits.

    Examples
    --------
    >>> seconds(3.1e-5), seconds(0.0308), seconds(136.2)
    ('31 µs', '30.8 ms', '136 s')
    """
    for size, unit in ((1, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def memory(value: float) -> str:
    """Memory in MB or GB."""
    return quantity(max(value, 0), "B") if value >= 1e6 else "< 1 MB"


def quantity(value: float, unit: str) -> str:
    """A number with a decimal prefix, three significant digits."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value / 1e3:.3g} k{unit}"


def processor() -> str:
    """Model of the CPU, as the system calls it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.*)$", info.read_text(), re.M) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the lines `BEGIN` and `END` of a page, or write a page of its own."""
    body = f"{BEGIN}\n\n{text}\n{END}"
    if page.exists() and BEGIN in page.read_text(encoding="utf-8"):
        before, rest = page.read_text(encoding="utf-8").split(BEGIN, 1)
        body = before + body + rest.split(END, 1)[1]
    else:
        body += "\n"
    write_text(page, body)
