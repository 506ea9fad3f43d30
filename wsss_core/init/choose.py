"""What suits the photos that were found, the weights at hand and the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from wsss_core.constants import IMAGENET
from wsss_core.errors import UserError
from wsss_core.init.look import Found
from wsss_core.models import BackboneName

SIDE_CPU, SIDE_GPU, SIDE_SMALL = 320, 512, 160
"""Longer side at which classifiers are trained and maps are made, where photos are larger; the last: backbone small.
"""

STEPS = 450
"""Steps that a network takes whose weights start at random."""

RIB_SECONDS, IRN_SECONDS, NETWORK_SECONDS = 60.0, 6.0, 3000.0
"""What the second block takes one core, for photos of 320 pixels with MobileNetV2: RIB a photo, IRN a photo (with its
training), and the network's 1000 steps. Guesses from runs on busy cores, not measurements: they tell an hour from a
day, and no more.
"""


@dataclass(frozen=True)
class Weights:
    """What a classifier starts from: a backbone and its weight file, "imagenet" to fetch it, or None for random."""

    backbone: str
    file: str | None


def find_weights(given: str | None, machine: Machine) -> Weights:
    """The backbone that a weight file is for, by the names of its parameters.

    Parameters
    ----------
    given
        The file, or "none" for random weights; None: one in the folder ``weights`` that fits a backbone, else those
        that torchvision publishes, of a small backbone where there is no GPU.

    Raises
    ------
    UserError
        If the given file fits no backbone.
    """
    if given == "none":
        return Weights("small", None)
    here = sorted(path for path in Path("weights").glob("*") if path.suffix in (".pth", ".pt"))
    for path in [Path(given)] if given else here:
        try:
            name = _backbone_of(path)
        except UserError:  # a file that lies there is no matter, if it is not the one that was asked for
            if given:
                raise
            continue
        if name is not None:
            return Weights(name, str(path))
    if given:
        names = ", ".join(get_args(BackboneName))
        raise UserError(f"{given}: fits no backbone; there are {names}, with the names of torchvision's weight files")
    return Weights("resnet50" if machine.gpu else "mobilenet_v2", IMAGENET)


def _backbone_of(path: Path) -> str | None:
    """Name of the backbone that a weight file fits, or None."""
    from wsss_core.models.backbones import backbone, load_weights

    state = load_weights(path)
    for name in get_args(BackboneName):
        try:
            backbone(name).load(state)
        except UserError:
            continue
        return name
    return None


@dataclass(frozen=True)
class Machine:
    """What a run has to work with."""

    cores: int
    gpu: bool


def this_machine() -> Machine:
    """The cores that this process may use, and whether torch sees a GPU."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores, torch.cuda.is_available())


@dataclass(frozen=True)
class Choice:
    """Settings for what was found.

    Attributes
    ----------
    long_side, crop
        Of training, in pixels.
    scales
        Of maps, as parts of the photos' size.
    shard_size
        Photos a job.
    epochs
        None leaves them to the program.
    hours
        Rough hours of RIB, IRN and a network on the CPU.
    """

    long_side: tuple[int, int]
    crop: int
    scales: tuple[float, ...]
    shard_size: int
    epochs: int | None
    hours: int


def choose(found: Found, weights: Weights, machine: Machine) -> Choice:
    """Settings that suit the photos, the weights and the machine.

    Examples
    --------
    >>> from wsss_core.data.label_files import LabelFile
    >>> file = LabelFile((), (), "an image and its labels a row")
    >>> found = Found("photos", "labels.csv", file, " ", 60, 0, {"cow": (30, "a.jpg")}, 30, 4000, None)
    >>> large = choose(found, Weights("mobilenet_v2", "w.pth"), Machine(cores=2, gpu=False))
    >>> large.long_side, large.crop, large.scales, large.shard_size
    ((224, 352), 256, (0.08, 0.04, 0.12, 0.16), 15)
    """
    side = min(found.longest, SIDE_GPU if machine.gpu else SIDE_CPU)
    if weights.backbone == "small":
        side = min(side, SIDE_SMALL)
    size = side / found.longest
    area = (found.longest / SIDE_CPU) ** 2
    seconds = found.photos * (RIB_SECONDS * (side / SIDE_CPU) ** 2 + IRN_SECONDS * area) / machine.cores
    return Choice(
        long_side=(_even(0.7 * side), _even(1.1 * side)),
        crop=_even(0.8 * side),
        scales=tuple(round(size * scale, 3) for scale in (1.0, 0.5, 1.5, 2.0)),
        shard_size=min(128, max(8, -(-found.photos // (2 * machine.cores)))),
        epochs=None if weights.file else max(30, -(-STEPS * 16 // found.photos)),
        hours=max(1, round((seconds + NETWORK_SECONDS) / 3600)),
    )


def _even(side: float) -> int:
    """A side in pixels, a multiple of 32."""
    return max(32, 32 * round(side / 32))
