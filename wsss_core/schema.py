"""Writes `config/config.schema.json` and `docs/settings.md` from the settings classes of every registered method."""

from __future__ import annotations

import json
from typing import Any

from wsss_core.config import NAME, SCHEMA, allowed_words
from wsss_core.evaluate.figures import FigureSettings
from wsss_core.registry import DATASETS, DISCRIMINATOR, METHODS, Method, imported
from wsss_core.report.settings import ReportSettings
from wsss_core.settings import json_schema

SETTINGS_PAGE = SCHEMA.parents[2] / "docs" / "settings.md"


def build_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a configuration."""
    definitions = {f"dataset.{name}": json_schema(imported(path)) for name, path in DATASETS.items()}
    for section, methods in METHODS.items():
        for name, method in methods.items():
            definitions[f"{section}.{name}"] = _method_schema(method)
    sections = {
        "classifiers": "Classifiers trained on tags, by name",
        "seeds": "Seed methods: from a classifier to class activation maps, by name",
        "refinements": "Refinements: from seeds to label masks, by name",
        "segmentations": "Segmentation networks trained on label masks, by name",
    }
    properties: dict[str, Any] = {
        "run": {
            "type": "string",
            "pattern": f"^{NAME.pattern}$",
            "default": "run",
            "description": "name of the run; its files are in <results>/<run>",
        },
        "results": {"type": "string", "default": "results", "description": "folder of all runs"},
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "seed of every random draw"},
        "dataset": {
            "description": "Images, class tags and splits",
            "oneOf": [_tagged("dataset", name, {}) for name in DATASETS],
        },
    }
    for section, description in sections.items():
        properties[section] = {
            "type": "object",
            "description": description,
            "propertyNames": {"pattern": f"^{NAME.pattern}$"},
            "additionalProperties": {
                "oneOf": [_tagged(section, name, m.edges) for name, m in METHODS[section].items()]
            },
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
    """Write the schema and the page of all settings."""
    schema = build_schema()
    SCHEMA.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    SETTINGS_PAGE.write_text(settings_page(schema), encoding="utf-8")


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
            named = ", ".join(f"`{edge}` (of `{target}`)" for edge, target in edges.items())
            lines += [f"Upstream: {named}.", ""]
        lines += _table(definition["properties"])
    return "\n".join(lines)


def _method_schema(method: Method) -> dict[str, Any]:
    merged: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}, "required": []}
    for step in method.steps.values():
        schema = json_schema(imported(step.settings))
        if step.key:
            merged["properties"][step.key] = schema | {"default": {}}
        else:
            merged["properties"] |= schema["properties"]
            merged["required"] += schema["required"]
    return merged


def _tagged(section: str, name: str, edges: dict[str, str]) -> dict[str, Any]:
    """Reference to a method's definition plus the keys that are not settings."""
    keys = {DISCRIMINATOR[section]: {"const": name}} | {edge: {"type": "string"} for edge in edges}
    return {"properties": keys, "required": list(keys), "$comment": f"settings: #/$defs/{section}.{name}"}


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
                "description": "mixed: trainings and seed methods compute in bfloat16, with float32 weights, "
                "maps and losses; faster on GPUs, and on CPUs that multiply bfloat16 themselves (AVX512-BF16, AMX)",
            },
            "images_at_once": {
                "type": "integer",
                "minimum": 1,
                "default": 1,
                "description": "images that RIB and other seed methods which take them one by one work on at a time "
                "on a GPU, each in a process of its own with its own copy of the network",
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
