"""Writes what is made of the registry: `config/config.schema.json`, `docs/settings.md`, and the tables of methods and
steps in `docs/architecture.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from wsss_core.config import SCHEMA, allowed_words
from wsss_core.config.validate import accepts_array, object_schema
from wsss_core.constants import NAME
from wsss_core.errors import UserError
from wsss_core.evaluate.figures import FigureSettings
from wsss_core.registry import DATASETS, DISCRIMINATOR, METHODS, REPEAT, Method, all_steps, imported
from wsss_core.report.settings import ReportSettings
from wsss_core.settings import json_schema
from wsss_core.signature import read_signature

SETTINGS_PAGE = SCHEMA.parents[2] / "docs" / "settings.md"
ARCHITECTURE_PAGE = SETTINGS_PAGE.with_name("architecture.md")
WRITTEN = re.compile(r"(<!-- (methods|steps): written by `wsss schema` -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)
"""Where the tables stand in that page: the line before each, and which one it is."""

VARIANT = rf"^{NAME}(@[A-Za-z0-9_.]+=[A-Za-z0-9.+_-]*)*$"
"""Names of stages and of their variants, such as rib@steps=5."""


def build_schema() -> dict[str, Any]:
    """The JSON schema of a configuration, in words of draft 7 that later drafts and editors read alike.

    `$defs` holds the settings of every method, which is what `load` goes by. The sections refer to them and add what an
    editor must know too: the keys that choose a method or name other stages, and where a list is a sweep.
    """
    definitions = {f"dataset.{name}": json_schema(imported(path)) for name, path in DATASETS.items()}
    for section, methods in METHODS.items():
        for name, method in methods.items():
            definitions[f"{section}.{name}"] = _method_schema(method)

    def keys(name: str, setting: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        return _keys(definitions[name], f"#/$defs/{name}", setting)

    sections = {
        "classifiers": "Classifiers trained on tags, by name",
        "seeds": "Seed methods: from a classifier to class activation maps, by name",
        "refinements": "Refinements: from seeds to label masks, by name",
        "segmentations": "Segmentation networks trained on label masks, by name",
        "detectors": "Detectors trained on boxes, by name",
        "attributions": "What a detector needs to see of each object: from a detector to a map an object, by name",
        "instances": "Masks of single objects: from boxes, attributions, walks or the truth, by name",
        "instance_networks": "Instance networks trained on masks of single objects, by name",
    }
    properties: dict[str, Any] = {
        "run": {
            "type": "string",
            "pattern": f"^{NAME}$",
            "default": "run",
            "description": "name of the run; its files are in <results>/<run>",
        },
        "results": {"type": "string", "minLength": 1, "default": "results", "description": "folder of all runs"},
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "seed of every random draw"},
        "dataset": {"description": "Images, class tags and splits"}
        | _one_of("dataset", {name: keys(f"dataset.{name}", _single) for name in DATASETS}),
    }
    for section, description in sections.items():
        stages = {
            name: _with_edges(method.edges, keys(f"{section}.{name}", _sweepable))
            for name, method in METHODS[section].items()
        }
        properties[section] = {
            "type": ["object", "null"],
            "description": description,
            "propertyNames": {"pattern": f"^{NAME}$"},
            "additionalProperties": _one_of(section, stages),
        }
    properties["targets"] = {
        "type": ["array", "null"],
        "items": {"type": "string"},
        "default": None,
        "description": "stages to make, with all they need; null: every stage",
    }
    properties["execution"] = _execution_schema()
    properties["report"] = json_schema(ReportSettings) | {"default": {}, "description": "The HTML page of a run"}
    properties["toy"] = json_schema(imported("wsss_core.toy.experiment:ToySettings")) | {
        "default": {},
        "description": "The toy experiment of RIB",
    }
    properties["figures"] = {
        "type": "array",
        "items": json_schema(FigureSettings),
        "default": [],
        "description": "figures drawn from the table of results, figures/<name>.svg",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wsss configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["dataset"],
        "properties": properties,
        "$defs": definitions,
    }


def write() -> None:
    """Write the schema, the page of all settings and the tables of methods and of steps.

    Raises
    ------
    UserError
        If this package has no documents beside it, as where it is installed.
    """
    if not ARCHITECTURE_PAGE.is_file():
        raise UserError(f"{ARCHITECTURE_PAGE}: there is no such file; `wsss schema` is for work in a clone")
    schema = build_schema()
    SCHEMA.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    SETTINGS_PAGE.write_text(settings_page(schema), encoding="utf-8")
    ARCHITECTURE_PAGE.write_text(architecture_page(ARCHITECTURE_PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def architecture_page(page: str) -> str:
    """The page with its tables as they must be."""
    tables = {"methods": methods_table, "steps": steps_table}
    return WRITTEN.sub(lambda place: place[1] + tables[place[2]](), page)


def methods_table() -> str:
    """Markdown table of all methods; those that start from the same and have the same steps share a row."""
    lines = ["| section | methods | start from | their steps |", "|---|---|---|---|"]
    for section, methods in METHODS.items():
        alike: dict[tuple[str, str], list[str]] = {}
        for name, method in methods.items():
            upstream = _upstream(method.edges).replace("|", "\\|")
            alike.setdefault((upstream, ", ".join(f"`{step}`" for step in method.steps)), []).append(f"`{name}`")
        for (upstream, steps), names in alike.items():
            lines.append(f"| `{section}` | {', '.join(names)} | {upstream} | {steps} |")
    return "\n".join([*lines, ""])


def steps_table() -> str:
    """Markdown table of all steps, from the registry and the first line of each step's file."""
    lines = ["| step | does | rules | runs | GPU |", "|---|---|---|---|---|"]
    steps = list(all_steps())
    for name in dict.fromkeys(step.name for step in steps):
        same = [step for step in steps if step.name == name]
        rules = ", ".join(f"`{rule}`" for rule in dict.fromkeys(step.rule for step in same))
        splits = ", ".join(dict.fromkeys(step.split for step in same if step.split))
        runs = f"for each shard of {splits}" if same[0].each == "shard" else "once"
        gpu = "" if not any(step.device for step in same) else "yes" if all(step.device for step in same) else "some"
        lines.append(f"| `{name}` | {read_signature(name).summary} | {rules} | {runs} | {gpu} |")
    return "\n".join([*lines, ""])


def settings_page(schema: dict[str, Any]) -> str:
    """Markdown tables of every setting with its default."""
    lines = [
        "# All settings",
        "",
        "Made by `wsss schema` from the settings classes; do not edit. A list where a single value is expected is a",
        "sweep: the stage, and all that is built on it, is expanded into one variant for each value.",
        "",
        "## Top level",
        "",
        *_table({k: v for k, v in schema["properties"].items() if v.get("default", {}) != {}}),
    ]
    for key in ("execution", "report", "toy"):
        lines += [f"## {key}", "", *_table(schema["properties"][key]["properties"])]
    lines += ["## figures (a list)", "", *_table(schema["properties"]["figures"]["items"]["properties"])]
    for name, definition in schema["$defs"].items():
        section, method = name.split(".", 1)
        edges = METHODS[section][method].edges if section in METHODS else {}
        lines += [f"## {section}: `{DISCRIMINATOR[section]}: {method}`", ""]
        if edges:
            lines += [f"Upstream: {_upstream(edges)}.", ""]
        lines += _table(definition["properties"])
    return "\n".join(lines)


def _upstream(edges: Mapping[str, str]) -> str:
    """The keys that name upstream stages, and where these are found."""
    return ", ".join(f"`{edge}` (of `{target}`)" for edge, target in edges.items())


def _method_schema(method: Method) -> dict[str, Any]:
    merged: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}, "required": []}
    for step in method.steps.values():
        schema = json_schema(imported(step.settings))
        if step.key:
            merged["properties"][step.key] = schema | {"default": {}}
        else:
            merged["properties"] |= schema["properties"]
            merged["required"] += schema["required"]
    merged["properties"][REPEAT] = {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "another number, other random draws in this stage alone; a list such as [0, 1, 2] repeats it, "
        "and `wsss table` shows mean and standard deviation",
    }
    return merged


def _one_of(section: str, methods: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """An object whose discriminator says which method's keys it has, and no others.

    `if` and `then` in place of `oneOf`, whose only message is that none of the methods fits.
    """
    key = DISCRIMINATOR[section]
    return {
        "type": "object",
        "required": [key],
        "properties": {key: {"enum": [*methods]}},
        "allOf": [
            {
                "if": {"type": "object", "required": [key], "properties": {key: {"const": name}}},
                "then": keys | {"properties": {key: {"const": name}} | keys["properties"]},
            }
            for name, keys in methods.items()
        ],
    }


def _keys(definition: Mapping[str, Any], pointer: str, setting: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The keys of a definition in `$defs`, and no others; `setting` says what each holds, by its schema and pointer."""
    held = {key: setting(known, f"{pointer}/properties/{key}") for key, known in definition["properties"].items()}
    return {"additionalProperties": False, "required": definition["required"], "properties": held}


def _single(setting: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """What a setting holds that cannot be swept."""
    return {"$ref": pointer}


def _sweepable(setting: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """What a setting holds that can be swept: one value, or a list of them. Settings within it are swept alike."""
    one = {"$ref": pointer}
    value = {"allOf": [{"type": "array"}, one]} if accepts_array(setting) else one
    many = {"type": "array", "minItems": 1, "items": value}
    nested = object_schema(setting)
    if nested is None:
        told = {key: setting[key] for key in ("description", "default") if key in setting}
        return told | {"anyOf": [one, many]}
    options = setting.get("anyOf", [setting])
    within = f"{pointer}/anyOf/{options.index(nested)}" if "anyOf" in setting else pointer
    return {
        **({"description": setting["description"]} if "description" in setting else {}),
        "type": [*(option["type"] for option in options), "array"],
        "if": {"type": "array"},
        "then": many,
        "else": _keys(nested, within, _sweepable),
    }


def _with_edges(edges: Mapping[str, str], keys: dict[str, Any]) -> dict[str, Any]:
    """A method's keys and those that name the stages it starts from."""
    names = {
        edge: {"type": "string", "pattern": VARIANT, "description": f"stage of {target} to start from"}
        for edge, target in edges.items()
    }
    return keys | {"required": [*edges, *keys["required"]], "properties": names | keys["properties"]}


def _execution_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "default": {},
        "description": "How stages run; never a reason to run one again",
        "properties": {
            "device": {
                "enum": ["auto", "cpu", "cuda"],
                "default": "auto",
                "description": "auto: a GPU where there is one",
            },
            "workers": {
                "type": "integer",
                "minimum": 0,
                "default": 0,
                "description": "loader processes of a training job; 0 loads in the main process",
            },
            "precision": {
                "enum": ["float32", "mixed"],
                "default": "float32",
                "description": "mixed: trainings, seed methods, walks and predictions compute in bfloat16, with "
                "float32 weights, maps and losses; faster on GPUs, and on CPUs that multiply bfloat16 themselves "
                "(AVX512-BF16, AMX)",
            },
            "images_at_once": {
                "type": "integer",
                "minimum": 1,
                "default": 1,
                "description": "images that RIB and other seed methods which take them one by one work on at a time "
                "on a GPU, each in a process of its own with its own copy of the network",
            },
            "tensorboard": {
                "type": "boolean",
                "default": False,
                "description": "trainings write event files for TensorBoard into the folder events of their stage; "
                "needs the extra wsss[tensorboard]",
            },
            "train_threads": {
                "type": "integer",
                "minimum": 1,
                "default": 2,
                "description": "CPU threads of a training job; per-image jobs always take one",
            },
        },
    }


def _table(properties: dict[str, Any], prefix: str = "") -> list[str]:
    lines = [] if prefix else ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key, known in properties.items():
        if known.get("type") == "object" and "properties" in known:
            lines += _table(known["properties"], f"{prefix}{key}.")
            continue
        nested = [option for option in known.get("anyOf", []) if "properties" in option]
        default = json.dumps(known["default"]) if "default" in known else "required"
        allowed = _words(known).replace("|", "\\|")
        meaning = known.get("description", "").replace("|", "\\|")
        lines.append(f"| `{prefix}{key}` | `{default}` | {allowed} | {meaning} |")
        for option in nested:
            lines += _table(option["properties"], f"{prefix}{key}.")
    return lines if prefix else [*lines, ""]


def _words(schema: dict[str, Any]) -> str:
    return allowed_words(schema).replace("allowed: ", "")
