"""The graph of a run: its stages, all settings filled and all sweeps expanded, and what one asks of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from wsss_core.registry import METHODS, REPEAT, Step

MASK_EDGES = ("masks", "otherwise", "segmentation", "truth")
"""Keys of a stage that name masks to start from, or a network that was trained on such."""


@dataclass(frozen=True)
class Stage:
    """One named stage of the graph, all settings filled.

    Attributes
    ----------
    section
        A section of `wsss_core.registry.METHODS`.
    upstream
        Edge key ("classifier", "seed", "masks", "segmentation", …) to the name of the upstream stage.
    settings
        Step name to that step's settings.
    swept
        Swept key ("rib.steps": stage and setting), of this stage or of one it is built on, to this variant's value.
    repeat
        Which of its repetitions it is: they differ in their random draws alone.
    """

    section: str
    name: str
    method: str
    upstream: Mapping[str, str]
    settings: Mapping[str, Mapping[str, Any]]
    swept: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 0

    @property
    def key(self) -> str:
        """The key of its random draws, the same for all variants of a sweep but for repetitions."""
        return f"{self.section}/{self.base}" + (f"@{REPEAT}={self.repeat}" if self.repeat else "")

    @property
    def base(self) -> str:
        """Name without swept values."""
        return base_name(self.name)

    @property
    def is_truth(self) -> bool:
        """Whether its masks are the photos' own, which are given and not made."""
        return self.section == "refinements" and self.method == "truth"

    @property
    def true_share(self) -> tuple[float, int] | None:
        """Part of the training images whose true masks it gives, and the number of the draw, as
        `wsss_core.evaluate.labelled.is_labelled` takes them; None of a stage that gives none. The true masks of single
        objects are those of all images.
        """
        if self.is_truth:
            return self.settings["masks"]["images"], self.settings["masks"]["draw"]
        return (1.0, 0) if (self.section, self.method) == ("instances", "truth") else None

    @property
    def steps(self) -> list[Step]:
        """The steps that it takes: those of its method but for what its settings do not ask for."""
        known = METHODS[self.section][self.method].steps.values()
        return [step for step in known if step.asked(self.settings.get(step.name, {}))]


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

    def section(self, section: str) -> list[str]:
        """Names of a section's stages."""
        return [stage.name for stage in self.stages.values() if stage.section == section]

    def ancestor(self, name: str, section: str) -> Stage | None:
        """The stage of `section` that a stage is built upon, following its first edges; None if these end before, in
        true masks.
        """
        stage = self.stages[name]
        while stage.section != section:
            if not stage.upstream:
                return None
            stage = self.stages[next(iter(stage.upstream.values()))]
        return stage

    def backbone_of(self, name: str) -> str:
        """The backbone of a stage's network: its own, or that of the first stage above it that has one."""
        stage = self.stages[name]
        own = next(filter(None, (settings.get("backbone") for settings in stage.settings.values())), None)
        return own or self.backbone_of(next(iter(stage.upstream.values())))

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

    def truths_of(self, name: str) -> dict[str, tuple[float, int]]:
        """The stages of true masks that a stage is built on, or is, each with its `Stage.true_share`."""
        above = {stage.name: stage.upstream.values() for stage in self.stages.values()}
        names = reached([name], above)
        shares = {stage.name: self._true_share(stage) for stage in self.stages.values() if stage.name in names}
        return {name: share for name, share in shares.items() if share}

    def _true_share(self, stage: Stage) -> tuple[float, int] | None:
        """As `Stage.true_share`; masks corrected by hand are true masks if the data set takes the same for true."""
        for data in [self.dataset, *self.dataset.get("parts", ())]:
            if stage.method == "corrected" and (true := data.get("masks")):
                root = data.get("root", "")
                corrected = os.path.realpath(stage.settings["masks"]["folder"])
                if corrected in (os.path.realpath(true), os.path.realpath(os.path.join(root, true))):
                    return 1.0, 0
        return stage.true_share

    def learned_truths(self, name: str) -> list[str]:
        """Says that a stage is built on true masks, a line for each source of these."""
        return [
            f"built on {truth}: true masks of {100 * share:.10g} % of the images"
            for truth, (share, _) in self.truths_of(name).items()
        ]

    @cached_property
    def fully_supervised(self) -> frozenset[str]:
        """Names of the networks that are trained on the true masks of all images, which leaves none to pseudo-masks."""
        return frozenset(name for name in self.section("segmentations") if self._is_fully_supervised(name))

    def _is_fully_supervised(self, name: str) -> bool:
        upstream = self.stages[name].upstream
        masks = self.stages[upstream.get("truth", upstream["masks"])]
        return masks.is_truth and (masks.settings["masks"]["images"], masks.settings["masks"]["missing"]) == (1, "stop")

    def _threshold_rule(self, name: str) -> Mapping[str, Any]:
        """How the threshold of a stage's own masks is chosen: as for the scores that they take it from, if they do."""
        stage = self.stages[name]
        masks = stage.settings.get("masks", {})
        asked = masks.get("threshold") if masks.get("band") is None else None
        if asked == "score":
            scored = stage if "scores" in stage.settings else self.stages[next(iter(stage.upstream.values()))]
            return scored.settings["scores"]
        return {"rule": asked if isinstance(asked, str) else "fixed"}

    def _masks_under(self, name: str) -> list[str]:
        """The stages whose masks, or a network trained on them, a stage starts from."""
        return [up for edge, up in self.stages[name].upstream.items() if edge in MASK_EDGES]

    @cached_property
    def current(self) -> frozenset[str]:
        """Names of the targets and of what they are built upon: the stages whose files are kept up to date."""
        above = {name: stage.upstream.values() for name, stage in self.stages.items()}
        return frozenset(reached(self.targets, above))

    def of_targets(self) -> Configuration:
        """The same run without what its results do not depend on: other stages, the report, the figures, the toy."""
        stages = {name: stage for name, stage in self.stages.items() if name in self.current}
        return replace(self, stages=stages, dataset={}, report={}, figures=(), toy={})

    def lineage(self, name: str) -> str:
        """Digest of a stage's settings and of those it is built on; the run's seed and the data set are not in it."""
        stage = self.stages[name]
        settings = {step: dict(settings) for step, settings in stage.settings.items()}
        content = [stage.section, stage.method, settings, [self.lineage(up) for up in stage.upstream.values()]]
        text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def feature_classifiers(self) -> list[str]:
        """Classifiers whose features the report shows, variants of swept ones each."""
        wanted = (self.report["features"] or {}).get("classifiers", ())
        return [s.name for base in wanted for s in self.stages.values() if base in (s.name, s.base)]


def base_name(name: str) -> str:
    """A stage's name without swept values: "rib" of "rib@steps=5"."""
    return name.partition("@")[0]


def reached(names: Iterable[str], above: Mapping[str, Iterable[str]]) -> set[str]:
    """These stages, those that they start from, and so on.

    Parameters
    ----------
    above
        Name of every stage to those that it starts from.

    Examples
    --------
    >>> sorted(reached(["masks"], {"bce": [], "cam": ["bce"], "rib": ["bce"], "masks": ["cam"]}))
    ['bce', 'cam', 'masks']
    """
    found: set[str] = set()
    todo = [*names]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += above[name]
    return found
