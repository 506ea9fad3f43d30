"""Where a run comes from: its stages, their settings and costs, the machine, and what was wrong with the data."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss_core import __version__
from wsss_core.config import read_schema
from wsss_core.jobs.costs import step_costs
from wsss_core.jobs.run_files import KINDS, RunFiles, read_rows
from wsss_core.registry import METHODS, RUN_STEPS, Step
from wsss_core.report.graph import Node, graph_svg
from wsss_core.report.page import (
    Result,
    StageSettings,
    percent,
    slug,
)
from wsss_core.report.provenance import Cost, duration, settings_lines
from wsss_core.store.cells import name_of

PROBLEMS = 200
"""At most so many problems of the data are listed."""

LIBRARIES = ("torch", "torchvision", "numpy", "h5py", "opencv-python-headless", "pydensecrf2", "snakemake")


def facts(files: RunFiles, spent: Sequence[Cost]) -> list[tuple[str, str]]:
    """What the page says first: data, number of images, seed, time."""
    words = {"train": "train", "score": "scored", "val": "val", "ood": "out of distribution"}
    counts = {words[s]: len(files.table.split(s)) for s in words}
    found = [
        ("Data", f"{files.configuration.dataset['format']}, {len(files.table.class_names)} classes"),
        ("Images", ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"),
        ("Seed of the run", str(files.configuration.seed)),
    ]
    if spent:
        found.append(("Time of all jobs", duration(sum(cost.seconds for cost in spent))))
    return found


def graph(files: RunFiles, results: Mapping[str, Result]) -> str:
    """The picture of all stages, an SVG."""
    nodes = {"": Node("images", files.configuration.dataset["format"], kind="dataset", link="#stage-dataset")}
    edges: dict[str, list[str]] = {"": []}
    for name, stage in files.stages.items():
        scores = results[name].scores if name in results else {}
        kind = stage.section + ("" if name in files.configuration.current else " aside")
        nodes[name] = Node(name, stage.method, percent(scores["miou"]) if scores else "", kind, f"#stage-{slug(name)}")
        edges[name] = list(stage.upstream.values()) or [""]
    described = "; ".join(f"{name} from {', '.join(e or 'images' for e in edges[name])}" for name in files.stages)
    return graph_svg(nodes, edges, f"Stages: {described}")


def settings_pages(files: RunFiles) -> list[StageSettings]:
    """Settings of the data set and of every current stage against their defaults."""
    definitions = read_schema()["$defs"]
    dataset = dict(files.configuration.dataset)
    form = dataset.pop("format", "")
    pages = [StageSettings("dataset", form, settings_lines(dataset, definitions.get(f"dataset.{form}", {})))]
    for name, stage in files.stages.items():
        if name not in files.configuration.current:
            continue
        schema = definitions.get(f"{stage.section}.{stage.method}", {})
        steps = METHODS[stage.section][stage.method].steps
        given: dict[str, Any] = {}
        for step, settings in stage.settings.items():
            key = steps[step].key if step in steps else step
            given |= {key: settings} if key else settings
        about = f"{KINDS[stage.section]}, {stage.method}"
        sources = ", ".join(stage.upstream.values())
        about += f" from {sources}" if sources else ""
        pages.append(StageSettings(name, about, settings_lines(given, schema)))
    return pages


def all_costs(files: RunFiles) -> list[Cost]:
    """What the jobs of every step took."""
    steps: dict[str, list[Step]] = {"dataset": [RUN_STEPS["index"]]}
    for name, stage in files.stages.items():
        if name in files.configuration.current:
            steps[f"{stage.section}/{name}"] = stage.steps
    return [cost for folder, names in steps.items() for cost in step_costs(files.run, folder, names)[0]]


def versions() -> list[tuple[str, str]]:
    """Versions of what the run was made with, and the machine that writes the page."""
    found = [("wsss", __version__), ("Python", platform.python_version())]
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append((library, importlib.metadata.version(library)))
    return [*found, ("system", platform.platform(terse=True)), ("CPU cores", str(os.cpu_count()))]


def problems(path: Path) -> list[dict[str, str]]:
    """The first problems of the data, as the index lists them."""
    rows = read_rows(path, ())[:PROBLEMS] if path.exists() else []
    return [{column: name_of(text) for column, text in row.items()} for row in rows]
