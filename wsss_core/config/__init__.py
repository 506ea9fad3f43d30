"""A run's configuration: validated, defaults filled, sweeps expanded, one small JSON per step.

A configuration describes a graph of named stages (see `docs/configuration.md`). `load` turns the user's mapping
into a `Configuration` or raises one `UserError` that lists every mistake. `step_json` writes all that a step's rule
ever sees of it: the step's own settings and the digest of the library code it uses.

The rooms: `given` reads the stages as they were written, `sweeps` expands them, `graph` holds what comes out, `steps`
writes the JSON of each step, and `validate` judges values and words the mistakes.

No torch is imported here, so the workflow can parse in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_core.config.given import given_dataset, given_stages
from wsss_core.config.graph import NAME, Configuration, Stage
from wsss_core.config.steps import configured_stages, read_run, step_json
from wsss_core.config.sweeps import expanded, targeted, without_sweeps
from wsss_core.config.validate import SCHEMA, Mistakes, allowed_words, filled, read_schema
from wsss_core.errors import UserError
from wsss_core.registry import CHECKS, METHODS, imported

__all__ = [
    "NAME",
    "SCHEMA",
    "Configuration",
    "Stage",
    "allowed_words",
    "configured_stages",
    "load",
    "read_configuration",
    "read_given",
    "read_run",
    "read_schema",
    "step_json",
]


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
    mistakes = Mistakes()
    top = filled(raw, read_schema(), "", mistakes, skip={*METHODS, "dataset"})
    dataset = given_dataset(raw.get("dataset"), mistakes)
    given = given_stages(raw, mistakes)
    if mistakes:  # the graph may be broken, so nothing is expanded, but settings can be judged all the same
        for stage in given:
            filled(without_sweeps(stage), stage.schema, stage.where, mistakes)
    mistakes.stop()
    variants = expanded(given, mistakes)
    targets = targeted(top["targets"], variants, mistakes)
    mistakes.stop()
    in_order = sorted((s for found in variants.values() for s in found), key=lambda s: list(METHODS).index(s.section))
    stages = {stage.name: stage for stage in in_order}
    for section, check in CHECKS.items():
        mistakes.extend(imported(check)(top[section], stages, targets))
    mistakes.stop()
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


def read_configuration(path: Path | str) -> Configuration:
    """`load` a YAML file.

    Raises
    ------
    UserError
        If the file cannot be read, or with all mistakes of the configuration.

    Examples
    --------
    >>> text = '''
    ... run: mine
    ... dataset: {format: table, root: photos, labels: photos/labels.csv}
    ... classifiers: {bce: {objective: bce}}
    ... seeds: {rib: {method: rib, classifier: bce, steps: [2, 4]}}
    ... '''
    >>> _ = Path("mine.yaml").write_text(text)
    >>> configuration = read_configuration("mine.yaml")
    >>> list(configuration.stages)
    ['bce', 'rib@steps=2', 'rib@steps=4']
    >>> configuration.stages["rib@steps=4"].settings["maps"]["learning_rate"]
    8e-06
    """
    return load(read_given(path))


def read_given(path: Path | str) -> Mapping[str, Any]:
    """What a YAML file of a configuration says, before it is judged.

    Raises
    ------
    UserError
        If the file cannot be read, or is no mapping.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as handle:
            raw = yaml.safe_load(handle)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: configuration cannot be read ({error})") from error
    if not isinstance(raw, Mapping):
        raise UserError(f"{path}: a configuration is a mapping of keys, this is {type(raw).__name__}")
    return raw
