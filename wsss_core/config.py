"""A run's configuration: validated, defaults filled, sweeps expanded, one small JSON per step.

A configuration describes a graph of named stages (see `docs/configuration.md`). `load` turns the user's mapping
into a `Configuration` or raises one `UserError` that lists every mistake. `Configuration.step_json` is all that a
step's rule ever sees of it: the step's own settings and the digest of the library code it uses.

No torch is imported here, so the workflow can parse in a fraction of a second.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from wsss_core.code_digest import code_digest
from wsss_core.errors import UserError
from wsss_core.registry import DATASETS, DISCRIMINATOR, METHODS, Step

SCHEMA = Path(__file__).resolve().parents[1] / "schemas" / "config.schema.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Stage:
    """One named stage of the graph, all settings filled.

    Attributes
    ----------
    section
        "classifiers", "seeds", "refinements" or "segmentations".
    upstream
        Edge key ("classifier", "seed", "masks", "segmentation") to the name of the upstream stage.
    settings
        Step name to that step's settings.
    swept
        Swept key ("rib.steps": stage and setting), of this stage or of one it is built on, to this variant's value.
    """

    section: str
    name: str
    method: str
    upstream: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    swept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """Name without swept values."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Configuration:
    """A whole run."""

    run: str
    results: str
    seed: int
    dataset: Mapping[str, Any]
    stages: Mapping[str, Stage]
    targets: tuple[str, ...]
    execution: Mapping[str, Any]
    report: Mapping[str, Any]
    figures: tuple[Mapping[str, Any], ...] = ()
    toy: Mapping[str, Any] = field(default_factory=dict)

    def section(self, section: str, method: str | None = None) -> list[str]:
        """Names of a section's stages, optionally of one method only."""
        return [s.name for s in self.stages.values() if s.section == section and method in (None, s.method)]

    def ancestor(self, name: str, section: str) -> Stage:
        """The stage of `section` that a stage is built upon, following its first edges."""
        stage = self.stages[name]
        while stage.section != section:
            stage = self.stages[next(iter(stage.upstream.values()))]
        return stage

    def oracle_of(self, name: str) -> str:
        """The stage, this one or one it is built on, whose masks are cut at a threshold that was chosen with true masks
        on these very images (rule oracle); "" if there is none.
        """
        if self._threshold_rule(name)["rule"] == "oracle":
            return name
        return next(filter(None, map(self.oracle_of, self._masks_under(name))), "")

    def held_out_of(self, name: str) -> float:
        """Part of the images with masks, by a hash of their ids, that chose the threshold of this stage's masks, or of
        those that it is built on (rule heldout); 0 if there is none.
        """
        chosen = self._threshold_rule(name)
        own = chosen["heldout_fraction"] if chosen["rule"] == "heldout" else 0.0
        return max([own, *map(self.held_out_of, self._masks_under(name))])

    def _threshold_rule(self, name: str) -> Mapping[str, Any]:
        """How the threshold of a stage's own masks is chosen: as for the scores that they take it from, if they do."""
        stage = self.stages[name]
        masks = stage.settings.get("masks", {})
        asked = masks.get("threshold") if masks.get("band") is None else None
        if asked == "score":
            scored = stage if "scores" in stage.settings else self.stages[next(iter(stage.upstream.values()))]
            return scored.settings["scores"]
        return {"rule": "oracle" if asked == "oracle" else "fixed"}

    def _masks_under(self, name: str) -> list[str]:
        """The stages whose masks, or a network trained on them, a stage starts from."""
        return [up for edge, up in self.stages[name].upstream.items() if edge in ("masks", "segmentation")]

    def step_json(self, section: str, name: str, step: str) -> str:
        """Canonical JSON text of one step's settings, which is an input file of the step's rule."""
        stage = self.stages[name]
        content = {
            "stage": f"{section}/{name}",
            "step": step,
            "method": stage.method,
            "seed": self.seed,
            "settings": stage.settings[step],
            "code": code_digest(METHODS[section][stage.method].steps[step].code),
        }
        if section == "refinements" and step == "evaluation":
            content["held_out"] = self.held_out_of(name)
        return _canonical(content)

    def dataset_json(self) -> str:
        """Canonical JSON text of the data set's settings."""
        settings = {key: value for key, value in self.dataset.items() if key != "format"}
        module = DATASETS[self.dataset["format"]].split(":")[0]
        content = {
            "stage": "dataset",
            "step": "index",
            "method": self.dataset["format"],
            "seed": 0,
            "settings": settings,
            "code": code_digest(("wsss_core.stages.index", module)),
        }
        return _canonical(content)

    def report_json(self) -> str:
        """Canonical JSON text of all that the report prints about the configuration."""
        content = {
            "run": self.run,
            "seed": self.seed,
            "dataset": dict(self.dataset),
            "stages": {
                name: {
                    "section": s.section,
                    "method": s.method,
                    "upstream": dict(s.upstream),
                    "settings": dict(s.settings),
                    "oracle": self.oracle_of(name),
                }
                for name, s in self.stages.items()
            },
            "targets": list(self.targets),
            "report": dict(self.report),
            "figures": [dict(figure) for figure in self.figures],
            "code": code_digest(("wsss_core.stages.report",)),
        }
        return _canonical(content)

    def results_json(self) -> str:
        """Canonical JSON text of all that the table of results says about the scored targets."""
        scored = [self.stages[name] for name in self.targets if self.stages[name].section != "classifiers"]
        content = {
            "run": self.run,
            "seed": self.seed,
            "stages": [
                {
                    "section": s.section,
                    "stage": s.name,
                    "base": s.base,
                    "method": s.method,
                    "swept": list(s.swept.items()),
                    "upstream": list(s.upstream.values()),
                    "oracle": self.oracle_of(s.name),
                    "settings": self._lineage(s.name),
                }
                for s in sorted(scored, key=lambda s: list(METHODS).index(s.section))
            ],
            "code": code_digest(("wsss_core.stages.results",)),
        }
        return _canonical(content)

    def figure_json(self, name: str) -> str:
        """Canonical JSON text of one figure's settings."""
        settings = next(figure for figure in self.figures if figure["name"] == name)
        return _canonical({"settings": dict(settings), "code": code_digest(("wsss_core.stages.figures",))})

    def toy_json(self) -> str:
        """Canonical JSON text of the toy experiment's settings."""
        content = {
            "stage": "toy",
            "step": "toy",
            "method": "toy",
            "seed": self.seed,
            "settings": dict(self.toy),
            "code": code_digest(("wsss_core.stages.toy",)),
        }
        return _canonical(content)

    def features_json(self) -> str:
        """Canonical JSON text of the settings of the report's picture of features."""
        content = {
            "stage": "features",
            "step": "features",
            "method": "t-SNE",
            "seed": self.seed,
            "settings": {**self.report["features"], "classifiers": self.feature_classifiers},
            "code": code_digest(("wsss_core.stages.features",)),
        }
        return _canonical(content)

    @property
    def feature_classifiers(self) -> list[str]:
        """Classifiers whose features the report shows, variants of swept ones each."""
        wanted = (self.report["features"] or {}).get("classifiers", ())
        return [s.name for base in wanted for s in self.stages.values() if base in (s.name, s.base)]

    def _lineage(self, name: str) -> str:
        """Digest of a stage's settings and of those it is built on; the run's seed and the data set are not in it."""
        stage = self.stages[name]
        settings = {step: dict(settings) for step, settings in stage.settings.items()}
        content = [stage.section, stage.method, settings, [self._lineage(up) for up in stage.upstream.values()]]
        return hashlib.sha256(_canonical(content).encode()).hexdigest()[:12]


def load(raw: Mapping[str, Any]) -> Configuration:
    """Validate a configuration, fill its defaults and expand its sweeps.

    Parameters
    ----------
    raw
        The mapping read from YAML.

    Raises
    ------
    UserError
        With one line for every mistake: key, value and what is allowed.
    """
    mistakes: list[str] = []
    schema = read_schema()
    top = _filled(raw, schema, "", mistakes, skip=set(METHODS) | {"dataset"})
    dataset = _dataset(raw.get("dataset"), mistakes)
    given = {section: _named_stages(raw.get(section), section, mistakes) for section in METHODS}
    owners: dict[str, str] = {}
    for section, stages in given.items():
        for name in stages:
            if name in owners:
                mistakes.append(f"{section}.{name}: the name is taken by {owners[name]}.{name}; stage names are unique")
            owners.setdefault(name, section)
    _check_edges(given, mistakes)
    if mistakes:
        _check_settings(given, mistakes)
        raise UserError(_listing(mistakes))
    stages, variants = _expanded(given, mistakes)
    targets = _targets(top["targets"], variants, mistakes)
    _check_shown(top, stages, variants, targets, mistakes)
    if mistakes:
        raise UserError(_listing(mistakes))
    return Configuration(
        run=top["run"],
        results=top["results"],
        seed=top["seed"],
        dataset=dataset,
        stages=stages,
        targets=targets,
        execution=top["execution"],
        report=top["report"],
        figures=tuple(top["figures"]),
        toy=top["toy"],
    )


def load_file(path: Path) -> Configuration:
    """`load` a YAML file."""
    import yaml

    try:
        with open(path, encoding="utf-8") as handle:
            raw = yaml.safe_load(handle)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: configuration cannot be read ({error})") from error
    if not isinstance(raw, Mapping):
        raise UserError(f"{path}: a configuration is a mapping of keys, this is {type(raw).__name__}")
    return load(raw)


@cache
def read_schema() -> dict[str, Any]:
    """The JSON schema of a configuration."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _listing(mistakes: list[str]) -> str:
    head = (
        "the configuration has a mistake:" if len(mistakes) == 1 else f"the configuration has {len(mistakes)} mistakes:"
    )
    return "\n  ".join([head, *mistakes])


def _dataset(raw: Any, mistakes: list[str]) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        mistakes.append("dataset: is missing; give at least dataset.format")
        return {}
    form = _choice(raw, "format", "dataset", DATASETS, mistakes)
    if form is None:
        return {}
    settings = {key: value for key, value in raw.items() if key != "format"}
    return {"format": form, **_filled(settings, read_schema()["$defs"][f"dataset.{form}"], "dataset", mistakes)}


def _named_stages(raw: Any, section: str, mistakes: list[str]) -> dict[str, tuple[str, dict, dict]]:
    """Stage name to (method, edges, settings as given), for the stages without a mistake in their method."""
    found: dict[str, tuple[str, dict, dict]] = {}
    if raw is None:
        return found
    if not isinstance(raw, Mapping):
        mistakes.append(f"{section}: must be a mapping from stage names to settings, not {_shown(raw)}")
        return found
    for name, given in raw.items():
        where = f"{section}.{name}"
        if not NAME.fullmatch(str(name)):
            mistakes.append(f"{where}: a stage's name is letters, digits, '.', '_' and '-'")
            continue
        if not isinstance(given, Mapping):
            mistakes.append(f"{where}: must be a mapping of settings, not {_shown(given)}")
            continue
        key = DISCRIMINATOR[section]
        method = _choice(given, key, where, METHODS[section], mistakes)
        if method is None:
            continue
        edges = METHODS[section][method].edges
        for edge in edges:
            if edge not in given:
                mistakes.append(f"{where}.{edge}: is missing; it names the stage of {edges[edge]} to start from")
        found[str(name)] = (
            method,
            {edge: given.get(edge) for edge in edges},
            {k: v for k, v in given.items() if k != key and k not in edges},
        )
    return found


def _check_edges(given: Mapping[str, Mapping], mistakes: list[str]) -> None:
    for section, stages in given.items():
        for name, (method, edges, _) in stages.items():
            for edge, target in edges.items():
                wanted_section, _, wanted = METHODS[section][method].edges[edge].partition("/")
                candidates = given[wanted_section].items()
                names = [name for name, (kind, _, _) in candidates if not wanted or kind in wanted.split("|")]
                base = str(target).split("@")[0]
                if target is not None and base not in names:
                    where = f"{section}.{name}.{edge}"
                    mistakes.append(f"{where}: there is no stage {target!r}{_meant(base, names)}")
    if mistakes:
        return
    edges_of = {n: [str(t).split("@")[0] for t in e.values()] for s in given.values() for n, (_, e, _) in s.items()}
    for name in edges_of:
        path, todo = set(), [*edges_of[name]]
        while todo:
            node = todo.pop()
            if node == name:
                mistakes.append(f"{name}: depends on itself")
                break
            if node not in path:
                path.add(node)
                todo += edges_of[node]


def _check_settings(given: Mapping[str, Mapping], mistakes: list[str]) -> None:
    """Mistakes in the settings of stages that cannot be expanded because the graph is wrong."""
    for section, stages in given.items():
        for name, (method, _, settings) in stages.items():
            definition = read_schema()["$defs"][f"{section}.{method}"]
            for key, values in _sweeps(settings, definition):
                settings = _replaced(settings, key.split("."), values[0])
            _filled(settings, definition, f"{section}.{name}", mistakes)


def _expanded(given: Mapping[str, Mapping], mistakes: list[str]) -> tuple[dict[str, Stage], dict[str, list[str]]]:
    """All stages with sweeps expanded, and base name to the names of its variants.

    Values that give two variants the same name, and edges that leave a stage without any variant, are mistakes.
    """
    sections = {name: section for section, stages in given.items() for name in stages}
    stages: dict[str, Stage] = {}
    tags_of: dict[str, dict[tuple[str, str], Any]] = {}
    variants: dict[str, list[str]] = {}

    def expand(name: str) -> None:
        if name in variants:
            return
        section = sections[name]
        method, edges, settings = given[section][name]
        for target in edges.values():
            expand(str(target).split("@")[0])
        variants[name] = []
        for edge, target in edges.items():
            base = str(target).split("@")[0]
            if variants[base] and not _variant_names(str(target), variants):
                mistakes.append(
                    f"{section}.{name}.{edge}: there is no stage {target!r}; variants of {base}: "
                    f"{', '.join(variants[base])}"
                )
                return
        definition = read_schema()["$defs"][f"{section}.{method}"]
        choices = [_variant_names(str(target), variants) for target in edges.values()]
        sweeps = list(_sweeps(settings, definition))
        for upstream in itertools.product(*choices):
            inherited: dict[tuple[str, str], Any] = {}
            if any(inherited.setdefault(k, v) != v for up in upstream for k, v in tags_of[up].items()):
                continue
            for values in itertools.product(*(options for _, options in sweeps)):
                tags = inherited | {(name, key): value for (key, _), value in zip(sweeps, values, strict=True)}
                chosen = settings
                for (key, _), value in zip(sweeps, values, strict=True):
                    chosen = _replaced(chosen, key.split("."), value)
                full = "".join([name, *(f"@{key}={_tag(value)}" for (_, key), value in tags.items())])
                if full in stages:
                    mistakes.append(f"{section}.{name}: two variants would have the name {full}; give each value once")
                    continue
                filled = _filled(chosen, definition, f"{section}.{full}", mistakes)
                stages[full] = Stage(
                    section,
                    full,
                    method,
                    dict(zip(edges, upstream, strict=True)),
                    _by_step(section, method, filled),
                    {f"{owner}.{key}": value for (owner, key), value in tags.items()},
                )
                tags_of[full] = tags
                variants[name].append(full)
        if not variants[name] and all(choices):
            sources = " and ".join(map(str, edges.values()))
            mistakes.append(f"{section}.{name}: {sources} have no variants with the same swept values")

    for name in sections:
        expand(name)
    order = [n for section in METHODS for n, s in stages.items() if s.section == section]
    return {name: stages[name] for name in order}, variants


def _variant_names(target: str, variants: Mapping[str, list[str]]) -> list[str]:
    base = target.split("@")[0]
    return variants[base] if target == base else [name for name in variants[base] if name == target]


def _by_step(section: str, method: str, settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    steps: dict[str, Step] = METHODS[section][method].steps
    nested = {step.key for step in steps.values() if step.key}
    own = {key: value for key, value in settings.items() if key not in nested}
    return {name: settings[step.key] if step.key else own for name, step in steps.items()}


def _targets(given: Any, variants: Mapping[str, list[str]], mistakes: list[str]) -> tuple[str, ...]:
    names = [name for names in variants.values() for name in names]
    chosen: list[str] = []
    for target in given if given is not None else names:
        if target in variants:
            chosen += variants[target]
        elif target in names:
            chosen.append(target)
        else:
            mistakes.append(f"targets: there is no stage {target!r}{_meant(str(target), list(variants))}")
    return tuple(dict.fromkeys(chosen))


def _check_shown(
    top: Mapping[str, Any],
    stages: Mapping[str, Stage],
    variants: Mapping[str, list[str]],
    targets: tuple[str, ...],
    mistakes: list[str],
) -> None:
    """Mistakes in the figures and the report, which name stages and swept keys."""
    from wsss_core.evaluate.figures import figure_mistakes
    from wsss_core.report.settings import report_mistakes

    if mistakes:
        return
    sections = {base: stages[names[0]].section for base, names in variants.items()}
    scored = {base: [stages[name].swept for name in names if name in targets] for base, names in variants.items()}
    mistakes += figure_mistakes(top["figures"], scored, sections)
    made, todo = set(), list(targets)
    while todo:
        name = todo.pop()
        if name not in made:
            made.add(name)
            todo += stages[name].upstream.values()
    mistakes += report_mistakes(top["report"], variants, sections, targets, made)


def _sweeps(settings: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list]]:
    """Dotted key and values of every setting that was given a list where its schema takes none."""
    for key, value in settings.items():
        known = schema.get("properties", {}).get(key)
        if known is None:
            continue
        if isinstance(value, Mapping):
            nested = next((s for s in known.get("anyOf", [known]) if s.get("type") == "object"), {})
            yield from _sweeps(value, nested, f"{prefix}{key}.")
        elif isinstance(value, list) and value:
            takes_list = _accepts_array(known)
            if not takes_list or all(isinstance(item, list) for item in value):
                yield f"{prefix}{key}", value


def _accepts_array(schema: Mapping[str, Any]) -> bool:
    types = schema.get("type", [])
    return "array" in ([types] if isinstance(types, str) else types) or any(
        _accepts_array(option) for option in schema.get("anyOf", [])
    )


def _replaced(settings: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**settings, head: _replaced(settings[head], rest, value) if rest else value}


def _tag(value: Any) -> str:
    text = "-".join(_tag(item) for item in value) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", text)


def _filled(
    given: Any, schema: Mapping[str, Any], where: str, mistakes: list[str], skip: set[str] | None = None
) -> dict[str, Any]:
    """The mapping with defaults filled and numbers coerced; mistakes are appended as readable lines."""
    if not isinstance(given, Mapping):
        mistakes.append(f"{where or 'configuration'}: must be a mapping, not {_shown(given)}")
        given = {}
    properties = schema["properties"]
    dot = f"{where}." if where else ""
    for key in given:
        if key not in properties and key not in (skip or ()):
            mistakes.append(f"{dot}{key}: unknown key{_meant(str(key), list(properties))}")
    filled = {}
    for key, known in properties.items():
        if skip and key in skip:
            continue
        if key in given:
            filled[key] = _value(given[key], known, f"{dot}{key}", mistakes)
        elif "default" in known:
            filled[key] = _value(known["default"], known, f"{dot}{key}", mistakes)
        else:
            mistakes.append(f"{dot}{key}: is missing ({known.get('description', 'required')})")
    return filled


def _value(value: Any, schema: Mapping[str, Any], where: str, mistakes: list[str]) -> Any:
    from jsonschema import Draft202012Validator

    nested = next((s for s in schema.get("anyOf", [schema]) if s.get("type") == "object" and "properties" in s), None)
    if nested is not None and isinstance(value, Mapping):
        return _filled(value, nested, where, mistakes)
    if isinstance(value, list) and "properties" in schema.get("items", {}):
        return [_filled(item, schema["items"], f"{where}[{k}]", mistakes) for k, item in enumerate(value)]
    value = _coerced(value, schema)
    errors = list(Draft202012Validator(schema).iter_errors(value))
    if errors:
        mistakes.append(f"{where}: {_shown(value)} is not allowed; {allowed_words(schema)}{_text_hint(value, schema)}")
    elif schema.get("ascending") and value is not None and value != sorted(value):
        mistakes.append(f"{where}: {_shown(value)} is not allowed; the first number must not exceed the second")
    return value


def _coerced(value: Any, schema: Mapping[str, Any]) -> Any:
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    for option in schema.get("anyOf", []):
        value = _coerced(value, option)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and "number" in types:
        return float(value)
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return int(value)
    if isinstance(value, list) and "items" in schema:
        return [_coerced(item, schema["items"]) for item in value]
    return value


def allowed_words(schema: Mapping[str, Any]) -> str:
    """What a schema allows, in words."""
    bounds = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<", "minItems": "items ≥"}
    if "anyOf" in schema:
        given = {key: schema[key] for key in bounds if key in schema}
        options = [
            option | given if option.get("type") in ("number", "integer") else option for option in schema["anyOf"]
        ]
        return " or ".join(map(allowed_words, options)).replace("or allowed: ", "or ")
    if "enum" in schema:
        return "allowed: " + ", ".join(str(option) for option in schema["enum"])
    types = schema.get("type", "anything")
    text = "allowed: " + " or ".join([types] if isinstance(types, str) else types)
    if "items" in schema:
        count = (
            f"{schema['minItems']} "
            if schema.get("minItems") and schema.get("minItems") == schema.get("maxItems")
            else ""
        )
        text = f"allowed: a list of {count}{schema['items'].get('type', 'values')}s"
    shown = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema and "maxItems" not in schema]
    return text + (f" {' and '.join(shown)}" if shown else "")


def _text_hint(value: Any, schema: Mapping[str, Any]) -> str:
    """Why a number came as text, if it did."""
    if not isinstance(value, str) or not any(kind in str(schema) for kind in ("'number'", "'integer'")):
        return ""
    if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        mantissa, exponent = re.split("[eE]", value)
        mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
        sign = "" if exponent[0] in "+-" else "+"
        return f" (YAML reads {value} as text: write {mantissa}e{sign}{exponent})"
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", value):
        why = "below the top level, --config makes text of numbers, --configfile does not"
        return f" (it is text: write it without quotes; {why})"
    return ""


def _choice(given: Mapping[str, Any], key: str, where: str, options: Mapping, mistakes: list[str]) -> str | None:
    value = given.get(key)
    if value is None:
        mistakes.append(f"{where}.{key}: is missing; allowed: {', '.join(options)}")
    elif value not in options:
        mistakes.append(f"{where}.{key}: {_shown(value)} is not allowed; allowed: {', '.join(options)}")
    else:
        return value
    return None


def _meant(word: str, options: list[str]) -> str:
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f"; allowed: {', '.join(map(str, options))}" if options else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
