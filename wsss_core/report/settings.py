"""What the page of a run shows beside its scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from wsss_core.config.graph import reached
from wsss_core.evaluate.embedding import FeaturesSettings
from wsss_core.evaluate.sizes import SizeSettings
from wsss_core.registry import SCORED_SECTIONS
from wsss_core.settings import setting


@dataclass(frozen=True)
class ReportSettings:
    """The HTML page of a run; a stage that is swept stands for all its variants."""

    images: int = setting(9, "pictures shown: best, median and worst by the last stage's score", minimum=0)
    sheet: int = setting(
        2000, "photos on the contact sheet at most, chosen by a hash of their names; 0: no sheet is made", minimum=0
    )
    scores: tuple[str, ...] = setting((), "stages whose precision, recall and F1 are shown for every class")
    gains: tuple[tuple[str, str], ...] = setting(
        (), "pairs of stages, [from, to], whose IoU is compared class by class, greatest gain first"
    )
    sizes: SizeSettings | None = setting(
        None, "compares stages on small, medium and large objects; {} for the defaults"
    )
    features: FeaturesSettings | None = setting(None, "shows classifiers' features of the training images in the plane")
    adaptation: tuple[str, ...] = setting(
        (), "seeds that adapt to each image (RIB) whose course is shown: why images ended, and their logits"
    )


def report_mistakes(report: Mapping[str, Any], stages: Mapping[str, Any], targets: Collection[str]) -> list[str]:
    """Mistakes in the names of stages.

    Parameters
    ----------
    report
        Settings of `ReportSettings`, filled.
    stages
        Name to `Stage` of the run's configuration, variants of swept ones each.
    targets
        Names of those that are scored.

    Returns
    -------
    One line a mistake.
    """
    variants: dict[str, list[str]] = {}
    for stage in stages.values():
        variants.setdefault(stage.base, []).append(stage.name)
    sections = {stage.base: stage.section for stage in stages.values()}
    made = reached(targets, {name: stage.upstream.values() for name, stage in stages.items()})
    wanted: list[tuple[str, str, tuple[str, ...]]] = [("scores", name, ()) for name in report["scores"]]
    wanted += [("gains", name, ()) for pair in report["gains"] for name in pair]
    wanted += [("adaptation", name, ("seeds",)) for name in report["adaptation"]]
    wanted += [("sizes.stages", name, ()) for name in (report["sizes"] or {}).get("stages", ())]
    wanted += [("features.classifiers", n, ("classifiers",)) for n in (report["features"] or {}).get("classifiers", ())]
    mistakes = []
    for key, name, allowed in wanted:
        allowed = allowed or SCORED_SECTIONS
        options = [
            n for base, names in variants.items() if sections[base] in allowed for n in dict.fromkeys([base, *names])
        ]
        if name not in options:
            mistakes.append(
                f"report.{key}: there is no stage {name!r} in {', '.join(allowed)}; known: {', '.join(options)}"
            )
        elif key == "adaptation" and not set(variants.get(name, [name])) & set(made):
            mistakes.append(f"report.{key}: no target is built on {name!r}, so it is not made")
        elif allowed == SCORED_SECTIONS and not set(variants.get(name, [name])) & set(targets):
            mistakes.append(f"report.{key}: {name!r} is not a target, so it is not scored")
    return mistakes
