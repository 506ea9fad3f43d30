"""Sweeps: a list where a setting takes one value makes a variant of the stage for each value, and so of all that is
built on the stage.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsss_core.config.given import GivenStage, upstream_first
from wsss_core.config.graph import Stage, base_name
from wsss_core.config.validate import ONE_FOLDER, Mistakes, accepts_array, filled, meant, object_schema
from wsss_core.constants import LONGEST_NAME
from wsss_core.registry import REPEAT

MOST = 10_000
"""Variants of one stage, before those whose swept values contradict one another are left out."""

Tags = dict[tuple[str, str], Any]
"""What makes a variant: (stage, dotted key of the setting that it sweeps) to this variant's value."""


@dataclass(frozen=True)
class Variant:
    """A stage with one value for each swept key."""

    stage: Stage
    tags: Tags


def expanded(given: Sequence[GivenStage], mistakes: Mistakes) -> dict[str, list[Stage]]:
    """Every stage's name to its variants, which for a stage without sweeps is the stage alone.

    Values that give two variants the same name, and edges that leave a stage without any variant, are mistakes.
    """
    variants: dict[str, list[Variant]] = {}
    for stage in upstream_first({stage.name: stage for stage in given}):
        variants[stage.name] = _variants(stage, variants, mistakes)
    _check_names(variants, mistakes)
    return {name: [variant.stage for variant in found] for name, found in variants.items()}


def targeted(
    given: Sequence[str] | None, variants: Mapping[str, Sequence[Stage]], mistakes: Mistakes
) -> tuple[str, ...]:
    """Names of the variants that a run makes: those given, by their own name or that of their stage; None: all."""
    names = {base: [stage.name for stage in found] for base, found in variants.items()}
    names |= {name: [name] for found in names.values() for name in found}
    chosen: list[str] = []
    for target in variants if given is None else given:
        if target not in names:
            mistakes.add("targets", f"there is no stage {target!r}{meant(target, variants)}")
        chosen += names.get(target, [])
    return tuple(dict.fromkeys(chosen))


def without_sweeps(stage: GivenStage) -> Mapping[str, Any]:
    """A stage's settings with the first value of everything swept."""
    return _replaced(stage.settings, {key: values[0] for key, values in _sweeps(stage.settings, stage.schema)})


def _variants(given: GivenStage, made: Mapping[str, Sequence[Variant]], mistakes: Mistakes) -> list[Variant]:
    """The variants of a stage: each of what it starts from, in all combinations with its own swept values."""
    sources = {edge: _named(target, made) for edge, target in given.edges.items()}
    for edge, target in given.edges.items():
        known = [variant.stage.name for variant in made[base_name(target)]]
        if known and not sources[edge]:
            what = f"there is no stage {target!r}; variants of {base_name(target)}: {', '.join(known)}"
            mistakes.add(f"{given.where}.{edge}", what)
            return []
    own_values = dict(_sweeps(given.settings, given.schema))
    count = math.prod(map(len, (*sources.values(), *own_values.values())))
    if count > MOST:
        mistakes.add(given.where, f"its swept values make {count} combinations, and {MOST} are the most of a stage")
        return []
    variants: dict[str, Variant] = {}
    for upstream in itertools.product(*sources.values()):
        inherited = _joined([variant.tags for variant in upstream])
        if inherited is None:
            continue
        for own in _combinations(own_values):
            tags = inherited | {(given.name, key): value for key, value in own.items()}
            name = "".join([given.name, *(f"@{key}={_tag(value)}" for (_, key), value in tags.items())])
            if name in variants:
                mistakes.add(given.where, f"two variants would have the name {name}; give each value once")
                continue
            edges = {edge: variant.stage.name for edge, variant in zip(given.edges, upstream, strict=True)}
            settings = filled(_replaced(given.settings, own), given.schema, f"{given.section}.{name}", mistakes)
            swept = {f"{owner}.{key}": value for (owner, key), value in tags.items()}
            by_step = _by_step(given, settings)
            stage = Stage(given.section, name, given.method, edges, by_step, swept, settings.get(REPEAT, 0))
            variants[name] = Variant(stage, tags)
    if not variants and all(sources.values()):
        mistakes.add(given.where, f"{' and '.join(given.edges.values())} have no variants with the same swept values")
    return list(variants.values())


def _check_names(variants: Mapping[str, Sequence[Variant]], mistakes: Mistakes) -> None:
    """Note what makes bad folders of variants, or one column of the table of results of two swept keys."""
    for found in variants.values():
        folded: dict[str, str] = {}
        where = f"{found[0].stage.section}.{found[0].stage.base}" if found else ""
        for name in (variant.stage.name for variant in found):
            other = folded.setdefault(name.casefold(), name)
            if other != name:
                mistakes.add(where, f"{other} and {name} differ in upper and lower case alone; {ONE_FOLDER}")
        longest = max(folded.values(), key=len, default="")
        if len(longest) > LONGEST_NAME:
            what = (
                f"the variant {longest[:40]}… would have a name of {len(longest)} letters, with all swept values in it"
            )
            mistakes.add(where, f"{what}; allowed: {LONGEST_NAME}, so give stages shorter names or sweep fewer keys")
    owners: dict[str, str] = {}
    for stage, key in dict.fromkeys(pair for found in variants.values() for variant in found for pair in variant.tags):
        owner = owners.setdefault(f"{stage}.{key}", stage)
        if owner != stage:
            where = f"{variants[stage][0].stage.section}.{stage}"
            mistakes.add(where, f"{stage}.{key} is swept in two stages, {owner} and {stage}; rename one of them")


def _named(target: str, made: Mapping[str, Sequence[Variant]]) -> list[Variant]:
    """The variants that an edge names: one, or all of a stage."""
    return [variant for variant in made[base_name(target)] if target in (base_name(target), variant.stage.name)]


def _joined(upstream: Sequence[Tags]) -> Tags | None:
    """The tags of all that a variant starts from; None where two of them have the same key with different values."""
    joined: Tags = {}
    for tags in upstream:
        if any(joined.setdefault(key, value) != value for key, value in tags.items()):
            return None
    return joined


def _combinations(sweeps: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*sweeps.values()):
        yield dict(zip(sweeps, values, strict=True))


def _sweeps(settings: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list]]:
    """Dotted key and values of every setting that was given a list where its schema takes none."""
    for key, value in settings.items():
        known = schema["properties"].get(key, {})
        nested = object_schema(known)
        if nested is not None and isinstance(value, Mapping):
            yield from _sweeps(value, nested, f"{prefix}{key}.")
        elif known and _is_sweep(value, known):
            yield f"{prefix}{key}", value


def _is_sweep(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is a list of values: of lists, where the setting itself is a list."""
    if not isinstance(value, list) or not value:
        return False
    return not accepts_array(schema) or all(isinstance(item, list) for item in value)


def _replaced(settings: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings with other values for some dotted keys."""
    for path, value in values.items():
        head, _, rest = path.partition(".")
        settings = {**settings, head: _replaced(settings[head], {rest: value}) if rest else value}
    return settings


def _tag(value: Any) -> str:
    """A swept value in a name."""
    text = "-".join(_tag(item) for item in value) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", text)


def _by_step(given: GivenStage, settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A stage's settings dealt to its steps."""
    steps = given.registered.steps
    nested = {step.key for step in steps.values() if step.key}
    own = {key: value for key, value in settings.items() if key not in {*nested, REPEAT}}
    return {name: settings[step.key] if step.key else own for name, step in steps.items()}
