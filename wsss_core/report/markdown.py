"""The table of results in Markdown, for pages that should not be typed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from wsss_core.evaluate.results import Combined, Results, Spread, combine, is_repetition, value_text


def results_table(runs: Sequence[Results]) -> str:
    """A Markdown table of one run, or of several that differ in their seed: mean ± standard deviation (n - 1).

    They are also taken over the repetitions of a stage.

    Raises
    ------
    UserError
        If the runs have the same seed or other settings; see `combine`.
    """
    rows = combine(runs)
    columns: list[tuple[str, Callable[[Combined], str]]] = [("stage", _stage)]
    swept = dict.fromkeys(key for results in runs for key in results.swept if not is_repetition(key))
    columns += [(key, partial(_swept, key=key)) for key in swept]
    columns += [
        ("scored on", lambda c: f"{c.row.split}, {c.row.images} images" if c.row.images else "no masks"),
        ("threshold", _threshold),
        ("mIoU", lambda c: percent(c.numbers["miou"]) + (" †" if c.row.undecided else "")),
        ("precision", lambda c: percent(c.numbers["precision"])),
        ("recall", lambda c: percent(c.numbers["recall"])),
        ("F1", lambda c: percent(c.numbers["f1"])),
        ("F-score", lambda c: percent(c.numbers["f_score"])),
        *([("of full supervision", lambda c: percent(c.numbers["of_full"]))] if _any(rows, "of_full") else []),
        ("best in hindsight", _hindsight),
        ("time", lambda c: _seconds(c.numbers["seconds"])),
        ("memory", lambda c: _megabytes(c.numbers["memory_mb"])),
    ]
    if any(c.numbers["miou"].runs not in (0, len(runs)) for c in rows):
        columns.append(("runs", lambda c: str(c.numbers["miou"].runs)))
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[text(row) for _, text in columns] for row in rows]
    return f"{_table(lines)}\n\n{_note(runs, rows)}"


def refinement_table(runs: Sequence[Results]) -> str:
    """A Markdown table of every seed and the masks that each method of refinement makes of it: mIoU and F1.

    Seeds are rows, in the order of the results, and methods are columns. A refinement of other masks, such as `fill`,
    has no seed of its own and is left out.

    Raises
    ------
    UserError
        As `results_table`.
    """
    rows = combine(runs)
    seeds = [c for c in rows if c.row.section == "seeds"]
    masks = [c for c in rows if c.row.section == "refinements" and c.row.product == "masks"]
    names = {c.row.stage for c in seeds}
    methods = list(dict.fromkeys(c.row.method for c in masks if names & set(c.row.upstream)))
    lines = [["seed", "threshold", "as it is", *methods], ["---"] * (3 + len(methods))]
    for seed in seeds:
        made = [c for c in masks if seed.row.stage in c.row.upstream]
        cells = [", ".join(_both(c) for c in made if c.row.method == method) for method in methods]
        lines.append([seed.row.stage, _threshold(seed), _both(seed), *cells])
    scored = sorted({f"{c.row.images} images ({c.row.split})" for c in (*seeds, *masks)})
    return f"{_table(lines)}\n\nmIoU (F1), of {' or '.join(scored)}. {_note(runs, seeds)}"


def _any(rows: Sequence[Combined], number: str) -> bool:
    """Whether a run has a number of any row."""
    return any(row.numbers[number].runs for row in rows)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _both(combined: Combined) -> str:
    miou, f1 = (percent(combined.numbers[name]) for name in ("miou", "f1"))
    return f"{miou} ({f1})" if miou else ""


def percent(spread: Spread) -> str:
    """Fractions as percent.

    Examples
    --------
    >>> percent(Spread(0.4567, 0.0123, 3)), percent(Spread(0.4567, float("nan"), 1)), percent(Spread.of([]))
    ('45.7 ± 1.2', '45.7', '')
    """
    return _number(spread, lambda value: f"{100 * value:.1f}")


def _number(spread: Spread, text: Callable[[float], str]) -> str:
    if spread.runs == 0:
        return ""
    return text(spread.mean) + ("" if math.isnan(spread.deviation) else f" ± {text(spread.deviation)}")


def _stage(combined: Combined) -> str:
    row = combined.row
    return f"{row.base if row.swept else row.stage}{' (walked maps)' if row.product == 'walk' else ''}"


def _swept(combined: Combined, key: str) -> str:
    swept = combined.row.swept
    return value_text(swept[key]) if key in swept else ""


def _threshold(combined: Combined) -> str:
    spread = combined.numbers["threshold"]
    same = spread.runs < 2 or spread.deviation < 1e-9
    value = f"{spread.mean:.2f}" if same and spread.runs else _number(spread, lambda v: f"{v:.2f}")
    return ", ".join(part for part in (value, combined.row.rule) if part)


def _hindsight(combined: Combined) -> str:
    best, at = combined.numbers["oracle_miou"], combined.numbers["oracle_threshold"]
    return f"{percent(best)} at {_number(at, lambda v: f'{v:.2f}')}" if best.runs else ""


def _seconds(spread: Spread) -> str:
    return _number(spread, lambda v: f"{v:.0f} s") if spread.runs else ""


def _megabytes(spread: Spread) -> str:
    return f"{spread.mean:.0f} MB" if spread.runs else ""


def _note(runs: Sequence[Results], rows: Sequence[Combined]) -> str:
    names = ", ".join(f"{results.run} (seed {results.seed})" for results in runs)
    words = [f"Run{'s' if len(runs) > 1 else ''} {names}."]
    if len(runs) > 1:
        words.append(f"Mean ± standard deviation over {len(runs)} runs.")
    if any(is_repetition(key) for results in runs for key in results.swept):
        over = "the runs and their repetitions" if len(runs) > 1 else "the repetitions"
        words.append(f"Stages that are repeated, and what is built on them: mean ± standard deviation over {over}.")
    words.append("Percent, averaged over the labels that occur in the masks scored, with the background if any.")
    if _any(rows, "of_full"):
        words.append("Of full supervision: mIoU as a part of that of the best network trained on all true masks.")
    if _any(rows, "oracle_miou"):
        words.append("Best in hindsight: at the threshold that suits the scored masks best, so optimistic.")
    if any(row.row.undecided for row in rows):
        words.append("†: with undecided pixels, which its evaluation counts as background or skips.")
    words.append("Time: added up over the jobs of the stage.")
    return " ".join(words)
