"""The stages as the user wrote them: which method each is, what it starts from, and settings that may hold sweeps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsss_core.config.graph import base_name, reached
from wsss_core.config.validate import ONE_FOLDER, Mistakes, choice, filled, meant, read_schema, shown
from wsss_core.constants import NAME, NAME_WORDS
from wsss_core.registry import DATASETS, DISCRIMINATOR, METHODS, Method


@dataclass(frozen=True)
class GivenStage:
    """One stage of the file.

    Attributes
    ----------
    edges
        Edge key to the upstream stage it names, which may be one variant (rib@steps=5).
    settings
        What else was given: no defaults, and lists where a setting is swept.
    """

    section: str
    name: str
    method: str
    edges: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Dotted key of the stage."""
        return f"{self.section}.{self.name}"

    @property
    def registered(self) -> Method:
        """Steps and edges of its method."""
        return METHODS[self.section][self.method]

    @property
    def schema(self) -> Mapping[str, Any]:
        """Schema of its settings, without sweeps."""
        return read_schema()["$defs"][f"{self.section}.{self.method}"]


def given_dataset(raw: Any, mistakes: Mistakes) -> Mapping[str, Any]:
    """The settings of the data set, defaults filled, and its format."""
    if not isinstance(raw, Mapping):
        mistakes.add("dataset", "is missing; give at least dataset.format")
        return {}
    form = choice(raw, "format", "dataset", DATASETS, mistakes)
    if form is None:
        return {}
    settings = {key: value for key, value in raw.items() if key != "format"}
    found = {"format": form, **filled(settings, read_schema()["$defs"][f"dataset.{form}"], "dataset", mistakes)}
    if form == "parts" and not mistakes:
        found["parts"] = [_part(part, f"dataset.parts[{k}]", mistakes) for k, part in enumerate(found["parts"])]
        names = [str(part.get("domain")).casefold() for part in found["parts"]]
        for k, name in enumerate(names):
            if name in names[:k]:
                mistakes.add(f"dataset.parts[{k}].domain", f"{name!r} is the name of another part")
    return found


def _part(given: Mapping[str, Any], where: str, mistakes: Mistakes) -> dict[str, Any]:
    """The settings of one data set of several: those of its format, defaults filled, and what it has beside them."""
    form = choice(given, "format", where, [name for name in DATASETS if name != "parts"], mistakes)
    if form is None:
        return {}
    schema = read_schema()["$defs"][f"dataset.{form}"]
    shared = read_schema()["$defs"]["dataset.parts"]["properties"]
    own = {
        "domain": {"type": "string", "pattern": f"^{NAME}$", "description": "name of the data set"},
        "annotated": {"type": ["array", "null"], "items": {"type": "string"}, "minItems": 1, "default": None},
    }
    own |= {key: value for key, value in schema["properties"].items() if key not in shared or key == "classes"}
    own.pop("background", None)  # of all parts, as their masks are of one kind
    rest = {key: value for key, value in given.items() if key != "format"}
    return {"format": form, **filled(rest, schema | {"properties": own}, where, mistakes)}


def given_stages(raw: Mapping[str, Any], mistakes: Mistakes) -> list[GivenStage]:
    """The stages of all sections; one whose method is unknown is left out."""
    stages = [stage for section in METHODS for stage in _section(raw.get(section), section, mistakes)]
    first: dict[str, GivenStage] = {}
    for stage in stages:
        other = first.setdefault(stage.name.casefold(), stage)
        if other.name == stage.name and other is not stage:
            mistakes.add(stage.where, f"the name is taken by {other.where}; stage names are unique")
        elif other is not stage:
            mistakes.add(
                stage.where, f"the name differs from {other.where} in upper and lower case alone; {ONE_FOLDER}"
            )
    written = {str(name) for section in METHODS if isinstance(raw.get(section), Mapping) for name in raw[section]}
    _check_edges(stages, written - {stage.name for stage in stages}, mistakes)
    return stages


def upstream_first(stages: Mapping[str, GivenStage]) -> list[GivenStage]:
    """The stages so ordered that each comes after those it starts from; else in the order of the file."""
    order: dict[str, GivenStage] = {}

    def visit(stage: GivenStage) -> None:
        for target in stage.edges.values():
            if base_name(target) not in order:
                visit(stages[base_name(target)])
        order.setdefault(stage.name, stage)

    for stage in stages.values():
        visit(stage)
    return list(order.values())


def _section(raw: Any, section: str, mistakes: Mistakes) -> Iterator[GivenStage]:
    if raw is not None and not isinstance(raw, Mapping):
        mistakes.add(section, f"must be a mapping from stage names to settings, not {shown(raw)}")
        return
    for name, given in (raw or {}).items():
        where = f"{section}.{name}"
        if not re.fullmatch(NAME, str(name)):
            mistakes.add(f"{section}.{shown(name)}", f"a stage's name is {NAME_WORDS}")
        elif not isinstance(given, Mapping):
            mistakes.add(where, f"must be a mapping of settings, not {shown(given)}")
        elif method := choice(given, DISCRIMINATOR[section], where, METHODS[section], mistakes):
            edges = METHODS[section][method].edges
            for edge in edges:
                if given.get(edge) is None:
                    mistakes.add(f"{where}.{edge}", f"is missing; it names the stage of {edges[edge]} to start from")
            settings = {k: v for k, v in given.items() if k != DISCRIMINATOR[section] and k not in edges}
            targets = {edge: str(given[edge]) for edge in edges if given.get(edge) is not None}
            yield GivenStage(section, str(name), method, targets, settings)


def _check_edges(stages: Sequence[GivenStage], left_out: Collection[str], mistakes: Mistakes) -> None:
    """Note edges that lead nowhere, but for those to a stage left out for a mistake of its own; and circles."""
    for stage in stages:
        for edge, target in stage.edges.items():
            names = _allowed(stages, stage.registered.edges[edge])
            if base_name(target) not in [*names, *left_out]:
                mistakes.add(f"{stage.where}.{edge}", f"there is no stage {target!r}{meant(base_name(target), names)}")
    if mistakes:
        return
    above = {stage.name: [base_name(target) for target in stage.edges.values()] for stage in stages}
    for stage in stages:
        if stage.name in reached(above[stage.name], above):
            mistakes.add(stage.where, "depends on itself")


def _allowed(stages: Iterable[GivenStage], target: str) -> list[str]:
    """Names of the stages that an edge may name: of "section", "section/method" or "section/method|method"."""
    section, _, methods = target.partition("/")
    return [s.name for s in stages if s.section == section and (not methods or s.method in methods.split("|"))]
