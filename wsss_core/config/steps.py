"""Canonical JSON texts of a run's steps: each is an input file of its step's rule, and all that the step sees of the
configuration: its own settings and the digest of the library code it uses.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from wsss_core.code_digest import code_digest
from wsss_core.registry import DATASETS, METHODS

if TYPE_CHECKING:
    from wsss_core.config.graph import Configuration


def step_json(configuration: Configuration, section: str, name: str, step: str) -> str:
    """Text of one step of a stage."""
    stage = configuration.stages[name]
    content = {
        "stage": f"{section}/{name}",
        "key": f"{section}/{stage.base}",
        "step": step,
        "method": stage.method,
        "seed": configuration.seed,
        "settings": stage.settings[step],
        "code": code_digest(METHODS[section][stage.method].steps[step].code),
    }
    if section == "refinements" and step == "evaluation":
        content["held_out"] = configuration.held_out_of(name)
    return _canonical(content)


def dataset_json(configuration: Configuration) -> str:
    """Text of the data set's settings."""
    settings = {key: value for key, value in configuration.dataset.items() if key != "format"}
    module = DATASETS[configuration.dataset["format"]].split(":")[0]
    content = {
        "stage": "dataset",
        "step": "index",
        "method": configuration.dataset["format"],
        "seed": 0,
        "settings": settings,
        "code": code_digest(("wsss_core.stages.index", module)),
    }
    return _canonical(content)


def report_json(configuration: Configuration) -> str:
    """Text of all that the report prints about the configuration."""
    content = {
        "run": configuration.run,
        "seed": configuration.seed,
        "dataset": dict(configuration.dataset),
        "stages": {
            name: {
                "section": s.section,
                "method": s.method,
                "upstream": dict(s.upstream),
                "settings": dict(s.settings),
                "oracle": configuration.oracle_of(name),
            }
            for name, s in configuration.stages.items()
        },
        "targets": list(configuration.targets),
        "report": dict(configuration.report),
        "figures": [dict(figure) for figure in configuration.figures],
        "code": code_digest(("wsss_core.stages.report",)),
    }
    return _canonical(content)


def results_json(configuration: Configuration) -> str:
    """Text of all that the table of results says about the scored targets."""
    targets = [configuration.stages[name] for name in configuration.targets]
    scored = [stage for stage in targets if stage.section != "classifiers"]
    content = {
        "run": configuration.run,
        "seed": configuration.seed,
        "stages": [
            {
                "section": s.section,
                "stage": s.name,
                "base": s.base,
                "method": s.method,
                "swept": list(s.swept.items()),
                "upstream": list(s.upstream.values()),
                "oracle": configuration.oracle_of(s.name),
                "settings": _lineage(configuration, s.name),
            }
            for s in sorted(scored, key=lambda s: list(METHODS).index(s.section))
        ],
        "code": code_digest(("wsss_core.stages.results",)),
    }
    return _canonical(content)


def figure_json(configuration: Configuration, name: str) -> str:
    """Text of one figure's settings."""
    settings = next(figure for figure in configuration.figures if figure["name"] == name)
    return _canonical({"settings": dict(settings), "code": code_digest(("wsss_core.stages.figures",))})


def toy_json(configuration: Configuration) -> str:
    """Text of the toy experiment's settings."""
    content = {
        "stage": "toy",
        "step": "toy",
        "method": "toy",
        "seed": configuration.seed,
        "settings": dict(configuration.toy),
        "code": code_digest(("wsss_core.stages.toy",)),
    }
    return _canonical(content)


def features_json(configuration: Configuration) -> str:
    """Text of the settings of the report's picture of features."""
    content = {
        "stage": "features",
        "step": "features",
        "method": "t-SNE",
        "seed": configuration.seed,
        "settings": {**configuration.report["features"], "classifiers": configuration.feature_classifiers},
        "code": code_digest(("wsss_core.stages.features",)),
    }
    return _canonical(content)


def _lineage(configuration: Configuration, name: str) -> str:
    """Digest of a stage's settings and of those it is built on; the run's seed and the data set are not in it."""
    stage = configuration.stages[name]
    settings = {step: dict(settings) for step, settings in stage.settings.items()}
    above = [_lineage(configuration, up) for up in stage.upstream.values()]
    content = [stage.section, stage.method, settings, above]
    return hashlib.sha256(_canonical(content).encode()).hexdigest()[:12]


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
