"""The graph of a run: its stages, all settings filled and all sweeps expanded, and what one asks of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss_core.config import steps

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of runs and of stages, which are names of folders too."""


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
        return base_name(self.name)


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

    # What the rules write into the settings files of steps.
    step_json = steps.step_json
    dataset_json = steps.dataset_json
    report_json = steps.report_json
    results_json = steps.results_json
    figure_json = steps.figure_json
    toy_json = steps.toy_json
    features_json = steps.features_json

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

    @property
    def feature_classifiers(self) -> list[str]:
        """Classifiers whose features the report shows, variants of swept ones each."""
        wanted = (self.report["features"] or {}).get("classifiers", ())
        return [s.name for base in wanted for s in self.stages.values() if base in (s.name, s.base)]


def base_name(name: str) -> str:
    """A stage's name without swept values: "rib" of "rib@steps=5"."""
    return name.partition("@")[0]
