"""What a figure of an ablation study shows: curves or bars taken from the table of results."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wsss_core.constants import NAME
from wsss_core.errors import UserError
from wsss_core.evaluate.results import ResultRow, Results, value_text
from wsss_core.registry import SCORED_SECTIONS
from wsss_core.settings import REQUIRED, setting

STAGE = "stage"
"""Value of `FigureSettings.x` that sets stages side by side."""


@dataclass(frozen=True, kw_only=True)
class FigureSettings:
    """A figure drawn from the table of results."""

    name: str = setting(REQUIRED, "name of the file figures/<name>.svg", pattern=f"^{NAME}$")
    x: str = setting(
        STAGE,
        "along the axis: a swept key, written as stage and setting (rib.steps), or stage: the stages side by side",
    )
    y: Literal["miou", "oracle_miou", "precision", "recall", "f1", "f_score", "of_full"] = setting(
        "miou",
        "score shown; oracle_miou is the mIoU at the threshold that is best in hindsight, of_full that of networks as "
        "a part of full supervision",
    )
    lines: str | None = setting(None, "another swept key: a line (or a bar of its own) for each of its values")
    stages: tuple[str, ...] = setting(
        (),
        "stages shown, by their names without swept values, a line each; one that `x` does not concern is a level "
        "drawn across; []: those of the first section of which any has `x`",
    )
    scale: Literal["linear", "log"] = setting("linear", "axis of `x`, where its values are numbers")
    title: str = setting("", "heading of the figure")


@dataclass(frozen=True)
class Series:
    """One line of a figure.

    Attributes
    ----------
    label
        Its name in the legend.
    points
        (x, y): x a swept value, or a stage's name; y a fraction. In the order of the table.
    level
        Whether the stage does not have `x`: its only y belongs to every x, and its x is None.
    """

    label: str
    points: tuple[tuple[Any, float], ...]
    level: bool = False

    @property
    def numeric(self) -> bool:
        """Whether all x are numbers."""
        return all(isinstance(x, (int, float)) and not isinstance(x, bool) for x, _ in self.points)


def series(settings: FigureSettings, results: Results) -> list[Series]:
    """The lines of a figure.

    Points without a score are left out. Of a stage that walks, the masks are shown; for `oracle_miou`, which masks do
    not have, the walked maps.

    Raises
    ------
    UserError
        If no row has the swept key, or several rows would be the same point.
    """
    rows = _rows(settings, results)
    if not rows:
        raise UserError(
            f"figure {settings.name!r}: the table of results has no row for x = {settings.x}"
            + (f" of {', '.join(settings.stages)}" if settings.stages else "")
        )
    several = len({row.base for row in rows}) > 1 and settings.x != STAGE
    found: dict[tuple[str, str], list[tuple[Any, ResultRow]]] = {}
    for row in rows:
        line = value_text(row.swept[settings.lines]) if settings.lines and settings.lines in row.swept else ""
        base = row.base if several else ""
        x = row.base if settings.x == STAGE else row.swept.get(settings.x)
        found.setdefault((base, line), []).append((x, row))
    lines = []
    for (base, line), pairs in found.items():
        _check_distinct(settings, pairs)
        points = [(x, getattr(row, settings.y)) for x, row in pairs]
        level = settings.x != STAGE and settings.x not in pairs[0][1].swept
        label = ", ".join(part for part in (base, f"{_short(settings.lines)} = {line}" if line else "") if part)
        lines.append(Series(label, tuple((x, y) for x, y in points if not math.isnan(y)), level))
    return [line for line in lines if line.points]


def figure_mistakes(
    figures: Sequence[Mapping[str, Any]], stages: Mapping[str, Any], targets: Collection[str]
) -> list[str]:
    """Mistakes of figures that can be seen before anything ran.

    Parameters
    ----------
    figures
        Settings of `FigureSettings`, filled.
    stages
        Name to `Stage` of the run's configuration, variants of swept ones each.
    targets
        Names of those that are scored.
    """
    mistakes = []
    sections = {stage.base: stage.section for stage in stages.values()}
    scored: dict[str, list[Mapping[str, Any]]] = {base: [] for base in sections}
    for stage in stages.values():
        if stage.name in targets:
            scored[stage.base].append(stage.swept)
    swept = {name: list(variants[0]) for name, variants in scored.items() if variants}
    keys = list(dict.fromkeys(key for found in swept.values() for key in found))
    names: set[str] = set()
    for number, figure in enumerate(figures):
        where = f"figures[{number}]"
        if figure["name"].casefold() in names:
            what = "is taken by another figure (upper and lower case count as one)"
            mistakes.append(f"{where}.name: {figure['name']!r} {what}")
        names.add(figure["name"].casefold())
        for name in figure["stages"]:
            if name not in sections:
                mistakes.append(f"{where}.stages: there is no stage {name!r} (names without swept values)")
            elif sections[name] not in SCORED_SECTIONS:
                mistakes.append(f"{where}.stages: {name!r} is one of the {sections[name]}, which have no scores")
            elif not scored[name]:
                mistakes.append(f"{where}.stages: {name!r} is not a target, so it is not scored")
        for entry in ("x", "lines"):
            if figure[entry] not in (None, *keys) and not (entry == "x" and figure[entry] == STAGE):
                listed = ", ".join(keys) or "none, as no setting is a list of values"
                mistakes.append(f"{where}.{entry}: {figure[entry]!r} is not swept; swept keys: {listed}")
        if not mistakes:
            shown = figure["stages"] or default_stages(figure["x"], swept, sections)
            if not shown:
                mistakes.append(f"{where}: no target is scored that it could show")
            for name in shown:
                values = {key: {value_text(variant[key]) for variant in scored[name]} for key in swept[name]}
                free = sorted(key for key in set(values) - {figure["x"], figure["lines"]} if len(values[key]) > 1)
                if free:
                    mistakes.append(
                        f"{where}: {name} has several variants for each point, which differ in {', '.join(free)}; name "
                        "it in lines, or leave the stage out of stages"
                    )
    return mistakes


def default_stages(x: str, swept: Mapping[str, Iterable[str]], sections: Mapping[str, str]) -> list[str]:
    """The stages of the first scored section of which any has the key `x` (all scored stages where x is "stage")."""
    scored = [name for name in swept if sections[name] in SCORED_SECTIONS]
    if x == STAGE:
        return scored
    having = [name for name in scored if x in swept[name]]
    return [name for name in having if sections[name] == sections[having[0]]]


def _rows(settings: FigureSettings, results: Results) -> list[ResultRow]:
    oracle = settings.y == "oracle_miou"
    walks = {row.stage for row in results.rows if row.product == "walk"}
    hidden = {(stage, "masks" if oracle else "walk") for stage in walks}
    rows = [row for row in results.rows if (row.stage, row.product) not in hidden]
    swept: dict[str, set[str]] = {}
    for row in rows:
        swept.setdefault(row.base, set()).update(row.swept)
    shown = settings.stages or default_stages(settings.x, swept, {row.base: row.section for row in rows})
    return [row for name in shown for row in rows if row.base == name]


def _check_distinct(settings: FigureSettings, pairs: Sequence[tuple[Any, ResultRow]]) -> None:
    stages: dict[str, str] = {}
    for x, row in pairs:
        other = stages.setdefault(value_text(x), row.stage)
        if other != row.stage:
            raise UserError(
                f"figure {settings.name!r}: {other} and {row.stage} are the same point; "
                "name in lines what they differ in"
            )


def _short(key: str | None) -> str:
    return (key or "").split(".", 1)[-1]
