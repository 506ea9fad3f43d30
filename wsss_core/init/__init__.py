"""A first configuration for a folder of photos (``wsss init``).

`look` at the folder, `choose` settings for what was found, and fill them into the page ``mine.yaml`` beside this file,
with the reasons beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import yaml

from wsss_core.constants import IMAGENET
from wsss_core.errors import UserError
from wsss_core.init.boxes import Boxed, look_for_boxes, told_of_boxes
from wsss_core.init.choose import Choice, Machine, Weights, choose, find_weights, this_machine
from wsss_core.init.look import Found, look, trouble
from wsss_core.models import PyramidBackboneName
from wsss_core.report.template import environment

__all__ = [
    "Boxed",
    "Choice",
    "Found",
    "Machine",
    "Weights",
    "choose",
    "configuration",
    "configuration_of_boxes",
    "find_weights",
    "look",
    "look_for_boxes",
    "this_machine",
    "told",
    "told_of_boxes",
]

LISTED = 12
"""Classes that the first line of the file names."""


def configuration(found: Found, weights: Weights, choice: Choice, machine: Machine, run: str) -> str:
    """Text of the configuration of a run."""
    templates = environment(Path(__file__).parent, escaped=False)
    templates.filters["text"] = _text
    counts = [f"{name} {count}" for name, (count, _) in found.classes.items()]
    return templates.get_template("mine.yaml").render(
        found=found,
        weights=weights,
        choice=choice,
        machine=machine,
        run=run,
        counts=", ".join(counts) if len(counts) <= LISTED else "",
        scales=list(choice.scales),
        trouble=trouble(found),
    )


def configuration_of_boxes(found: Boxed, weights: Weights, machine: Machine, run: str) -> str:
    """Text of the configuration of a run with boxes.

    Raises
    ------
    UserError
        If the weights are for a backbone that detectors are not built on.
    """
    if weights.backbone not in get_args(PyramidBackboneName):
        names = ", ".join(get_args(PyramidBackboneName))
        raise UserError(f"{weights.file}: fits the backbone {weights.backbone}; a detector needs one of {names}")
    templates = environment(Path(__file__).parent, escaped=False)
    templates.filters["text"] = _text
    counts = [f"{name} {count}" for name, count in found.classes.items()]
    return templates.get_template("boxes.yaml").render(
        found=found,
        weights=weights,
        machine=machine,
        run=run,
        counts=", ".join(counts) if len(counts) <= LISTED else "",
        hours=max(1, round(found.hours(machine))),
        shard_size=min(128, max(8, -(-found.photos // (2 * machine.cores)))),
    )


def told(found: Found, weights: Weights) -> Iterator[str]:
    """What was found, for the terminal: a line a class, with the number of its photos and one of them."""
    yield f"{found.photos} photos in {found.root}, of about {found.longest} pixels"
    yield f"tags: {found.labels} ({found.file.shape})"
    width = max(map(len, [*found.classes, "(no class)"]))
    for name, (count, example) in found.classes.items():
        yield f"  {name:<{width}} {count:>6}  such as {example}"
    if found.untagged:
        yield f"  {'(no class)':<{width}} {found.untagged:>6}"
    if found.others:
        yield f"{found.others} photos have no tags and are not used"
    yield f"true masks: {found.masks}, for scores alone" if found.masks else "no true masks, so nothing will be scored"
    if weights.file == IMAGENET:
        yield f"weights: torchvision's of {weights.backbone}, fetched when the run starts (--weights FILE for others)"
    elif weights.file:
        yield f"weights: {weights.file} fits the backbone {weights.backbone}"
    else:
        yield "random weights: the network learns from nothing, so that the masks will be poor"
    yield from (f"ATTENTION: {line}" for line in trouble(found))


def _text(value: str) -> str:
    """A text as YAML holds it."""
    return yaml.safe_dump(value, allow_unicode=True, width=10_000).removesuffix("\n").removesuffix("\n...")
