"""A run's configuration: validated, defaults filled, sweeps expanded, one small JSON per step.

A configuration describes a graph of named stages (see `docs/configuration.md`). `load` turns the user's mapping
into a `Configuration` or raises one `UserError` that lists every mistake. `step_json` writes all that a step's rule
ever sees of it: the step's own settings and the digest of the library code it uses.

The rooms: `reading` takes the file, `given` reads the stages as they were written, `background` knows data that has
none, `sweeps` expands them, `graph` holds what comes out, `steps` writes the JSON of each step, and `validate` judges
values and words the mistakes.

No torch is imported here, so the workflow can parse in a fraction of a second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_core.config.background import without_background
from wsss_core.config.given import given_dataset, given_stages
from wsss_core.config.graph import Configuration, Stage
from wsss_core.config.reading import merged, read_file
from wsss_core.config.steps import configured_stages, read_run, step_json
from wsss_core.config.sweeps import expanded, targeted, without_sweeps
from wsss_core.config.validate import SCHEMA, Mistakes, allowed_words, filled, read_schema
from wsss_core.registry import CHECKS, METHODS, imported

__all__ = [
    "SCHEMA",
    "Configuration",
    "Stage",
    "allowed_words",
    "configured_stages",
    "load",
    "read_configuration",
    "read_file",
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
    _check_folder(str(top["results"]), mistakes)
    dataset = given_dataset(raw.get("dataset"), mistakes)
    given = without_background(dataset, given_stages(raw, mistakes), mistakes)
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
    configuration = Configuration(
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
    _check_classifiers(configuration, mistakes)
    mistakes.stop()
    return configuration


def _check_classifiers(configuration: Configuration, mistakes: Mistakes) -> None:
    """Note networks that are to take backbone or weights of a classifier where there is none above them."""
    for stage in configuration.stages.values():
        train = stage.settings.get("train", {})
        asked = train.get("weights") == "classifier" or train.get("backbone", "") is None
        if asked and configuration.ancestor(stage.name, "classifiers") is None:
            key = f"{stage.section}.{stage.base}{'.network' * (stage.section == 'refinements')}"
            text = "takes the classifier's backbone and weights, and is built on none: name a backbone, and weights"
            mistakes.add(key, f"{text} (a file, imagenet, or null for random ones)")


def _check_folder(results: str, mistakes: Mistakes) -> None:
    """Note a folder of all runs that no file system takes."""
    longest = max((os.fsencode(part) for part in Path(results).parts), key=len, default=b"")
    if len(longest) > 255:
        mistakes.add("results", f"a folder's name has {len(longest)} bytes, file systems take 255")


def read_configuration(path: Path | str, *more: Path | str) -> Configuration:
    """`load` a YAML file, to which others add, as Snakemake's ``--configfile`` does: what they give stands.

    Raises
    ------
    UserError
        If the file cannot be read or gives a key twice, or with all mistakes of the configuration.

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
    whole = read_file(path)
    for other in more:
        whole = merged(whole, read_file(other))
    return load(whole)
