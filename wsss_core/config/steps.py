"""The settings file of a step: one small canonical JSON, an input file of the step's rule and all that it sees of the
configuration: its own settings and the digest of the library code it uses.

Every file has the same keys: ``stage`` ("section/name"; or "dataset", "features", "figures/name", "toy", "run" for a
step of the run itself), ``key`` (the same without swept values, of random draws), ``step``, ``method``, ``seed``,
``settings`` and ``code``; an evaluation also ``held_out``, and that of a refinement ``labelled``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from wsss_core.code_digest import code_digest
from wsss_core.config.graph import Configuration, Stage
from wsss_core.registry import METHODS, find_step


def step_json(configuration: Configuration, stage: str, step: str) -> str:
    """Text of the settings file of a step.

    Parameters
    ----------
    stage
        As in the file.
    step
        Name of the step.

    Raises
    ------
    KeyError
        If the configuration has no such stage, or the stage no such step.
    """
    section, _, name = stage.partition("/")
    if section in METHODS:
        one = configuration.stages[name]
        content = _content(configuration, stage, one.method, step, one.settings[step])
        content["key"] = one.key
        if step == "evaluation":  # masks for training may be cut at a threshold that images for evaluation chose
            content["held_out"] = configuration.held_out_of(name)
        if section == "refinements" and step == "evaluation":
            content["labelled"] = [list(share) for share in configuration.truths_of(name).values()]
    else:
        method, settings = _of_the_run(configuration, stage, step)
        content = _content(configuration, stage, method, step, settings)
        if step == "index":
            content["seed"] = 0  # the images are the same for every seed
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def configured_stages(configuration: Configuration) -> list[str]:
    """Every stage that has settings files, as they name it, but for the run itself."""
    stages = [f"{stage.section}/{stage.name}" for stage in configuration.stages.values()]
    return [*stages, "dataset", "features", "toy", *(f"figures/{figure['name']}" for figure in configuration.figures)]


def _content(
    configuration: Configuration, stage: str, method: str, step: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    code = code_digest(find_step(stage, method, step).code)
    return {
        "stage": stage,
        "key": stage,
        "step": step,
        "method": method,
        "seed": configuration.seed,
        "settings": dict(settings),
        "code": code,
    }


def _of_the_run(configuration: Configuration, stage: str, step: str) -> tuple[str, Mapping[str, Any]]:
    """Method and settings of a step of the run itself."""
    if step == "index":
        settings = dict(configuration.dataset)
        return settings.pop("format"), settings
    if step == "features":
        return step, {**configuration.report["features"], "classifiers": configuration.feature_classifiers}
    if step == "figure":
        name = stage.removeprefix("figures/")
        return step, next(figure for figure in configuration.figures if figure["name"] == name)
    if step == "toy":
        return step, configuration.toy
    if step in ("results", "health"):
        return step, run_mapping(configuration.of_targets())
    if step == "sheet":
        shown = {"sheet": configuration.report["sheet"]}
        return step, run_mapping(replace(configuration.of_targets(), report=shown))
    return step, run_mapping(configuration)


def run_mapping(configuration: Configuration) -> dict[str, Any]:
    """All of a configuration but how it is executed, as plain values whose order JSON keeps."""
    content = asdict(configuration)
    del content["execution"]
    for stage in content["stages"].values():
        stage |= {name: list(stage[name].items()) for name in ("upstream", "swept")}
    return content | {"stages": list(content["stages"].values())}


def read_run(mapping: Mapping[str, Any]) -> Configuration:
    """The configuration that `run_mapping` wrote.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the mapping is none.
    """
    stages = [
        Stage(**stage | {name: dict(map(tuple, stage[name])) for name in ("upstream", "swept")})
        for stage in mapping["stages"]
    ]
    content: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in mapping.items()
    }
    return Configuration(**content | {"stages": {stage.name: stage for stage in stages}, "execution": {}})
