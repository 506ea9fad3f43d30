"""RIB: adapt the classifier to one image without the final saturation, and sum the maps on the way.

Lee, Choi, Mok & Yoon, "Reducing Information Bottleneck for Weakly Supervised Semantic Segmentation", NeurIPS 2021.
The classifier is fine-tuned for K steps on the image to raise the logits of its classes, pooled over the regions
that are not discriminative yet (GNDRP); class activation maps of all states are summed.

The published code and the paper differ, and both are here (`RibSettings.variant`):

========================  ====================================  ==========================================
\\                         official                              paper
========================  ====================================  ==========================================
maps in the sum           K, of the states before each step     K + 1, the last state among them
each map                  as it is: later, larger maps weigh    divided by its maximum (Eq. 2)
                          more
loss                      - sum of logits; the image stops      - sum of min(m, logit)
                          when their sum exceeds the margin m
explosion                 stops when a map covers the image     no such test
GNDRP                     sum over cells with A / max A < tau   mean over cells with CAM <= tau
                          over the number of all cells
views in the loss         every scale from 1 up, with flips     the image itself
auxiliary images          B that share no class with the        B - 1 others
                          image
rate                      falls as (1 - k / K) ** 0.9; times    constant, for all weights
                          10 for the classifier; weight decay
========================  ====================================  ==========================================

The engine computes the same numbers as the straightforward loop with less work: the stages that never change run
once a scale and, for auxiliary images, without gradients; only maps of classes that occur are computed; the
auxiliary pass and the gradient of the last step, or of a step that stops, are left out; auxiliary images without a
class are skipped; only changed weights are saved and restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import flip_sum, view_pair
from wsss_core.seeds.pool import AuxiliaryPool
from wsss_core.settings import setting
from wsss_core.store.seeds import EPSILON, SeedMaps
from wsss_core.training import polynomial

Pool = Callable[[int], tuple[Tensor, Tensor]]
"""Step to auxiliary images [B, 3, S, S], normalised, and their labels [B, C]."""

CHUNK_PIXELS = 2**20
"""Auxiliary pixels that pass through the network together on a CPU; bounds memory."""


@dataclass(frozen=True)
class RibSettings:
    """RIB; defaults as published for VOC with ResNet-50."""

    variant: Literal["official", "paper"] = setting(
        "official", "where the paper and its published code differ, which to follow (see the module's documentation)"
    )
    steps: int = setting(10, "fine-tuning steps K", minimum=1)
    learning_rate: float = setting(8e-6, "of the adapted stages (lambda)", minimum=0)
    classifier_rate: float = setting(
        10.0, "rate of the classifier's weights, as a multiple (official)", exclusiveMinimum=0
    )
    weight_decay: float = setting(1e-4, "weight decay (official)", minimum=0)
    momentum: float = setting(
        1e-4, "momentum of SGD; 1e-4 in the published code, see the classifier's (official)", minimum=0
    )
    batch_size: int = setting(
        20, "auxiliary images a step; in the paper's variant the target is one of them", minimum=1
    )
    pooling: Literal["gndrp", "gap"] = setting(
        "gndrp", "pooling of maps to logits: over the regions that are not discriminative, or over all cells"
    )
    threshold: float = setting(0.4, "GNDRP pools where the map, divided by its maximum, is below this (tau)")
    margin: float | None = setting(
        600.0,
        "margin m: stop when the target's summed logits exceed it (official), or limit of each logit (paper); "
        "null for none",
    )
    explosion: tuple[float, float] | None = setting(
        (0.3, 0.7),
        "stop when maps above the first number cover more than the second, as parts of their maximum and of the "
        "image (official); null for never",
    )
    scales: tuple[float, ...] = setting(
        (1.0, 0.5, 1.5, 2.0),
        "image scales whose maps are summed, each with its mirror image; those from 1 up are in the loss (official)",
        minItems=1,
    )
    pool_long: tuple[int, int] = setting(
        (320, 640), "range of the longer side that auxiliary images are resized to, in pixels"
    )
    pool_crop: int = setting(512, "side of the crops of auxiliary images in pixels", minimum=32)


SETTINGS = RibSettings


def maker(settings: RibSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the stage calls it, with the training images as auxiliary pool."""
    official = settings.variant == "official"
    if not official and settings.batch_size < 2:
        raise UserError(f"batch_size: {settings.batch_size} leaves no auxiliary image in RIB's variant paper")
    pool = AuxiliaryPool(
        inputs.records,
        inputs.network.n_classes,
        eligible="disjoint" if official else "any",
        batch_size=settings.batch_size if official else settings.batch_size - 1,
        long_side=settings.pool_long,
        crop=settings.pool_crop,
        seed=inputs.seed,
        stage=inputs.stage,
    )

    def make(record: ImageRecord, image: np.ndarray) -> SeedMaps:
        return rib_seed(inputs.network, image, record.classes, settings, pool.batches(record.id, record.classes))

    return make


def rib_seed(
    network: CamNetwork,
    image: np.ndarray,
    classes: Sequence[int],
    settings: RibSettings,
    pool: Pool,
    *,
    last_loss: bool = False,
) -> SeedMaps:
    """RIB of one image. The network is left exactly as it was.

    Parameters
    ----------
    network
        Trained classifier.
    image
        uint8 [H, W, 3], RGB.
    classes
        The K present classes, 0-based.
    pool
        See `Pool`; called for the steps 0, 1, ... that use it.
    last_loss
        Also compute the loss of a last step whose update nothing uses (the published code does).

    Returns
    -------
    One map [K, h_s, w_s] a scale. Statistics: ``stop``, why it ended; ``maps``, how many were summed; ``target``,
    the target's summed logits of every state; ``losses``, of every step whose loss was computed.

    Raises
    ------
    UserError
        If scale 1 is not among the scales.
    """
    if 1.0 not in settings.scales:
        raise UserError(f"scales: {list(settings.scales)} must hold 1, which RIB's loss and stopping test use")
    target = Target.of(network, image, classes, settings.scales)
    adapt = {"official": _official, "paper": _paper}[settings.variant]
    with restored(network):
        trace = adapt(network, target, settings, pool, last_loss)
    statistics = {"stop": trace.stop, "maps": len(trace.target), "target": trace.target, "losses": trace.losses}
    return SeedMaps(tuple(classes), trace.sums, image.shape[:2], statistics)


@dataclass(frozen=True)
class Target:
    """The image that the classifier is adapted to.

    Attributes
    ----------
    features
        Scale to the output of the unchanging stages for the view pair, [2, D', h, w].
    """

    classes: tuple[int, ...]
    features: Mapping[float, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, network: CamNetwork, image: np.ndarray, classes: Sequence[int], scales: Sequence[float]) -> Target:
        """Run the unchanging stages once a scale."""
        return cls(tuple(classes), {s: network.prefix(view_pair(network, image, s)) for s in scales})

    def maps(self, network: CamNetwork, scale: float) -> Tensor:
        """Logit maps [2, K, h, w] under the network's present weights."""
        return network.classify(network.trunk(self.features[scale]), self.classes)


@dataclass
class Trace:
    """What adapting to one image gives, filled as it goes."""

    sums: dict[float, Tensor] = field(default_factory=dict)
    target: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    stop: str = "steps"

    def add(self, scale: float, maps: Tensor) -> None:
        """Add maps [K, h, w] to the sum of a scale."""
        self.sums[scale] = self.sums[scale] + maps if scale in self.sums else maps


@contextmanager
def restored(network: CamNetwork) -> Iterator[None]:
    """Let the adapted stages and the classifier change in the block, and put them back exactly after it."""
    parameters = [*network.trunk_parameters(), network.classifier.weight]
    required = [p.requires_grad for p in network.parameters()]
    saved = [p.detach().clone() for p in parameters]
    network.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, saved)
        for parameter, flag in zip(network.parameters(), required, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None


def _official(network: CamNetwork, target: Target, settings: RibSettings, pool: Pool, last_loss: bool) -> Trace:
    """The published code's loop (see the module's table)."""
    trace = Trace()
    groups = [
        {"params": list(network.trunk_parameters()), "lr": settings.learning_rate},
        {"params": [network.classifier.weight], "lr": settings.classifier_rate * settings.learning_rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)
    rate = polynomial(settings.steps, 0.9)
    pooling = _OFFICIAL_POOLING[settings.pooling]
    in_loss = [scale for scale in settings.scales if scale >= 1]
    for step in range(settings.steps):
        last = step == settings.steps - 1
        logits = []
        for scale in sorted(settings.scales, key=lambda s: s != 1):
            with torch.set_grad_enabled(scale in in_loss and not last):
                maps = target.maps(network, scale)
            present = flip_sum(maps.detach())
            trace.add(scale, present)
            if scale == 1 and step > 0 and explodes(present, settings.explosion):
                trace.stop = "explosion"
                return trace
            if scale in in_loss:
                logits.append(pooling(maps, settings.threshold).sum())
        total = torch.stack(logits).sum()
        trace.target.append(total.item())
        if settings.margin is not None and abs(trace.target[-1]) > settings.margin:
            trace.stop = "margin"
            return trace
        if last and not last_loss:
            return trace
        optimizer.zero_grad(set_to_none=True)
        if not last:
            (-total).backward()
        with torch.set_grad_enabled(not last):
            other = auxiliary(network, pool(step), lambda maps: pooling(maps[:, None], settings.threshold)[:, 0])
        trace.losses.append(-trace.target[-1] + other)
        for group, base in zip(optimizer.param_groups, (1.0, settings.classifier_rate), strict=True):
            group["lr"] = base * settings.learning_rate * rate(step)
        if not last:
            optimizer.step()
    return trace


def _paper(network: CamNetwork, target: Target, settings: RibSettings, pool: Pool, last_loss: bool) -> Trace:
    """The paper's equations (see the module's table)."""
    trace = Trace()
    parameters = [*network.trunk_parameters(), network.classifier.weight]
    limit = float("inf") if settings.margin is None else settings.margin
    for step in range(settings.steps + 1):
        last = step == settings.steps
        present = {}
        for scale in settings.scales:
            with torch.set_grad_enabled(scale == 1 and not last):
                maps = target.maps(network, scale)
            present[scale] = flip_sum(maps.detach())
            if scale == 1:
                logits = _PAPER_POOLING[settings.pooling](maps[0], settings.threshold)
        peak = _peak(present)
        for scale, maps in present.items():
            trace.add(scale, maps / peak)
        trace.target.append(logits.sum().item())
        if last:
            return trace
        loss = -logits.clamp(max=limit).sum()
        loss.backward()
        other = auxiliary(
            network,
            pool(step),
            lambda maps: _PAPER_POOLING[settings.pooling](maps, settings.threshold).clamp(max=limit),
        )
        trace.losses.append(loss.item() + other)
        with torch.no_grad():
            for parameter in parameters:
                parameter -= settings.learning_rate * parameter.grad
                parameter.grad = None
    return trace


def auxiliary(network: CamNetwork, batch: tuple[Tensor, Tensor], pooling: Callable[[Tensor], Tensor]) -> float:
    """Minus the sum of the auxiliary images' pooled logits; its gradients are added to the parameters'.

    Parameters
    ----------
    batch
        Images [B, 3, S, S] and labels [B, C].
    pooling
        Maps [N, h, w] of N pairs of an image and a class it holds, to N logits.
    """
    device = network.classifier.weight.device
    images, labels = batch
    held = labels.any(1)
    if not held.any():
        return 0.0
    images, labels = images[held], labels[held]
    chunk = max(1, CHUNK_PIXELS // images[0, 0].numel()) if device.type == "cpu" else len(images)
    total = 0.0
    for part, tags in zip(images.split(chunk), labels.to(device).split(chunk), strict=True):
        with torch.no_grad():
            features = network.prefix(part.to(device))
        rows, columns = tags.nonzero(as_tuple=True)
        maps = network.classify(network.trunk(features))[rows, columns]
        loss = -(pooling(maps) * tags[rows, columns]).sum()
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    return total


def gndrp_official(maps: Tensor, threshold: float) -> Tensor:
    """Sum of a map's cells below `threshold` of its maximum, over the number of all its cells.

    The comparison is strict and of the raw map; where the maximum is negative nothing is pooled.

    Parameters
    ----------
    maps
        Logit maps [..., h, w].

    Returns
    -------
    Logits [...].
    """
    low = maps.detach() / maps.detach().amax((-2, -1), keepdim=True) < threshold
    return (maps * low).mean((-2, -1))


def gndrp_paper(maps: Tensor, threshold: float) -> Tensor:
    """Mean of a map's cells whose class activation, ReLU(A) / max, is at most `threshold`: [..., h, w] to [...]."""
    activation = maps.detach().relu()
    low = activation <= threshold * activation.amax((-2, -1), keepdim=True)
    return (maps * low).sum((-2, -1)) / low.sum((-2, -1)).clamp_min(1)


def gap(maps: Tensor, threshold: float) -> Tensor:
    """Mean of all cells: [..., h, w] to [...]."""
    return maps.mean((-2, -1))


_OFFICIAL_POOLING = {"gndrp": gndrp_official, "gap": gap}
_PAPER_POOLING = {"gndrp": gndrp_paper, "gap": gap}


def explodes(maps: Tensor, explosion: tuple[float, float] | None) -> bool:
    """Whether the maps [K, h, w], each divided by its maximum, are above the first number in more than the second."""
    if explosion is None:
        return False
    level, extent = explosion
    normalised = maps / (maps.amax((1, 2), keepdim=True) + EPSILON)
    return bool((normalised > level).any(0).float().mean() > extent)


def _peak(present: Mapping[float, Tensor]) -> Tensor:
    """Maximum of each class's map summed over scales, [K, 1, 1], on the grid of the largest scale."""
    size = max((maps.shape[1:] for maps in present.values()), key=lambda shape: shape.numel())
    total = sum(F.interpolate(m[None], size, mode="bilinear", align_corners=False)[0] for m in present.values())
    return total.amax((1, 2), keepdim=True) + EPSILON
