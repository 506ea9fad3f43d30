"""Damage the files of every reader in many ways: ``python -m tests.fuzz --cases 2000``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tests.fuzz.damage import damaged
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.trials import GOOD, Trials, keep

ROUND = 1000
"""Cases that Hypothesis draws at once: a failure ends the round, and is shrunk, and another begins."""


class Failure(AssertionError):
    """A damaged file was not dealt with as it must be."""


@dataclass
class Tally:
    """What became of the damaged files of a reader."""

    reader: str
    counts: Counter = field(default_factory=Counter)
    failures: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def cases(self) -> int:
        """Files that were read."""
        return sum(self.counts.values())


def fuzz(reader: Reader, cases: int, seed: int, keeping: bool = True) -> Tally:
    """Damage the files of a reader in so many ways; failures are shrunk, and kept in the corpus if asked for."""
    tally, began = Tally(reader.name), time.monotonic()
    with Trials(reader) as trials:
        ways = st.one_of(
            [
                damaged(trials.valid[name], form).map(lambda content, name=name: (name, content))
                for name, form in reader.files.items()
            ]
        )
        number = 0
        while tally.cases < cases:
            before = tally.cases
            _round(trials, ways, min(ROUND, cases - tally.cases), f"{seed}/{reader.name}/{number}", tally, keeping)
            number += 1
            if tally.cases == before:
                break
    tally.seconds = time.monotonic() - began
    return tally


def _round(trials: Trials, ways: st.SearchStrategy, cases: int, key: str, tally: Tally, keeping: bool) -> None:
    last: dict[str, tuple[str, bytes]] = {}

    @seeded(key)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(ways)
    def one(case: tuple[str, bytes]) -> None:
        outcome = trials.read(*case)
        tally.counts[outcome.kind] += 1
        if not outcome.good and f"{outcome.kind}: {outcome.words}" not in tally.failures:
            words = f"{outcome.kind}: {outcome.words}"
            if outcome.kind == "hung":  # shrinking would wait for each
                tally.failures[words] = keep(trials.reader.name, *case) if keeping else Path()
                print(f"  {trials.reader.name}: {words}", flush=True)
                return
            last["words"], last["case"] = words, case
            raise Failure(outcome.kind)

    try:
        one()
    except Failure:
        words = last["words"]
        tally.failures[words] = keep(trials.reader.name, *last["case"]) if keeping else Path()
        print(f"  {trials.reader.name}: {words}", flush=True)


def table(tallies: list[Tally]) -> str:
    """What became of the files, as a table of Markdown."""
    lines = [
        "| reader | files | read | refused | escaped | misread | hung | died |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    kinds = (*GOOD, "escaped", "misread", "hung", "died")
    for tally in tallies:
        lines.append(f"| {tally.reader} | {tally.cases} | {' | '.join(str(tally.counts[kind]) for kind in kinds)} |")
    sums = Counter()
    for tally in tallies:
        sums.update(tally.counts)
    lines.append(f"| **all** | {sum(sums.values())} | {' | '.join(str(sums[kind]) for kind in kinds)} |")
    return "\n".join(lines)


def main() -> int:
    """Returns the exit status: 1 if anything failed."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="damaged files of each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another number, other files (default: %(default)s)")
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS), metavar="READER")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table of what became of them")
    options = parser.parse_args()
    tallies = []
    for name in options.reader:
        tally = fuzz(READERS[name], options.cases, options.seed)
        print(f"{name}: {tally.cases} files, {dict(tally.counts)}, {tally.seconds:.0f} s", flush=True)
        tallies.append(tally)
    text = table(tallies)
    print(text)
    if options.table:
        options.table.write_text(text + "\n")
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
