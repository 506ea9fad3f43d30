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

The margin of 600 is one number with two meanings. The published code compares it with the sum of all views' logits; the
paper's min(m, y) limits each logit, and single logits hardly reach 600 within K steps, so that `variant: paper` runs as
without a margin unless a smaller one is given. The statistic ``target`` of a seed shows the logits.

Two ablations of the paper are settings. `loss: bce` adapts with the binary cross-entropy of all classes, through an
activation a that saturates on both sides (Table 5a)::

    L = - sum_c t_c log a(y_c) + (1 - t_c) log(1 - a(y_c))
    a = sigmoid(y),  (tanh(y) + 1) / 2  or  (y / (1 + |y|) + 1) / 2

of every view and every other image, with everything else as it is: logits of classes that an image holds are pooled
by `pooling`, those of others as the published code pools them, over all cells (official), or by `pooling` too (paper);
the stops stay, and the margin limits no logit. `pooling: gap` is the other (Table 5c).

The engine computes the same numbers as the straightforward loop with less work: the stages that never change run
once a scale and, for auxiliary images, without gradients; only maps of classes that occur are computed; the
auxiliary pass and the gradient of the last step, or of a step that stops, are left out; auxiliary images without a
class are skipped where they add nothing to the loss; only changed weights are saved and restored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.constants import EPSILON
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models.cam import CamNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import flip_sum, view_pair
from wsss_core.seeds.demands import check_pointwise
from wsss_core.seeds.pool import AuxiliaryPool
from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps
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
    steps: int = setting(10, "fine-tuning steps K; official: 1 gives CAM, as the last update is not used", minimum=1)
    learning_rate: float = setting(8e-6, "of the adapted stages (lambda)", minimum=0)
    classifier_rate: float = setting(
        10.0, "rate of the classifier's weights, as a multiple (official)", exclusiveMinimum=0
    )
    weight_decay: float = setting(1e-4, "weight decay (official)", minimum=0)
    momentum: float = setting(
        1e-4, "momentum of SGD; 1e-4 in the published code, see the classifier's (official)", minimum=0
    )
    batch_size: int = setting(
        20, "auxiliary images a step; in the paper's variant the target is one of them (B)", minimum=0
    )
    pooling: Literal["gndrp", "gap"] = setting(
        "gndrp", "pooling of maps to logits: over the regions that are not discriminative, or over all cells"
    )
    loss: Literal["rib", "bce"] = setting(
        "rib", "what is minimised: minus the logits, or the cross-entropy of their `activation` (an ablation)"
    )
    activation: Literal["sigmoid", "tanh", "softsign"] = setting(
        "sigmoid", "between logits and cross-entropy, scaled to values between 0 and 1 (bce)"
    )
    threshold: float = setting(
        0.4, "GNDRP pools where the map, divided by its maximum, is below this (tau)", minimum=0, maximum=1
    )
    margin: float | None = setting(
        600.0,
        "margin m: stop when the target's summed logits exceed it (official), or limit of each logit (paper, "
        "where 600 hardly ever binds); null for none",
        exclusiveMinimum=0,
    )
    explosion: tuple[float, float] | None = setting(
        (0.3, 0.7),
        "stop when maps above the first number cover more than the second, as parts of their maximum and of the "
        "image (official); null for never",
        items={"minimum": 0, "maximum": 1},
    )
    scales: tuple[float, ...] = setting(
        (1.0, 0.5, 1.5, 2.0),
        "image scales whose maps are summed, each with its mirror image; those from 1 up are in the loss (official)",
        minItems=1,
        items={"exclusiveMinimum": 0},
    )
    pool_long: tuple[int, int] = setting(
        (320, 640),
        "range of the longer side that auxiliary images are resized to, in pixels",
        ascending=True,
        items={"minimum": 1},
    )
    pool_crop: int = setting(512, "side of the crops of auxiliary images in pixels", minimum=32)


def maker(settings: RibSettings, inputs: Inputs) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
    """The method as the step calls it, with the training images as auxiliary pool."""
    check_pointwise(inputs.network, "rib")
    pool = auxiliary_pool(settings, inputs)
    return lambda record, image: rib_seed(inputs.network, image, record.classes, settings, pool(record))


def auxiliary_pool(settings: RibSettings, inputs: Inputs) -> Callable[[ImageRecord], Pool]:
    """From a target to its pool of other training images.

    Raises
    ------
    UserError
        If the batch has no place for the target (paper).
    """
    official = settings.variant == "official"
    count = settings.batch_size if official else settings.batch_size - 1
    if count < 0:
        raise UserError("batch_size: the target is one of the batch in RIB's variant paper, so it is at least 1")
    if count == 0:
        nothing = torch.zeros(0, 3, 1, 1), torch.zeros(0, inputs.network.n_classes)
        return lambda record: lambda step: nothing
    device = inputs.network.classifier.weight.device
    pool = AuxiliaryPool(
        inputs.records,
        inputs.network.n_classes,
        eligible="disjoint" if official else "any",
        batch_size=count,
        long_side=settings.pool_long,
        crop=settings.pool_crop,
        seed=inputs.seed,
        stage=inputs.stage,
        device=device if device.type == "cuda" else None,
        processes=inputs.processes,
        threads=inputs.threads,
    )
    return lambda record: pool.batches(record.id, record.classes)


def photo_pool(
    network: CamNetwork, tags: Mapping[str, Sequence[int]], settings: RibSettings, *, seed: int = 0
) -> Callable[[str], Pool]:
    """`auxiliary_pool` of photos that are in no run.

    Parameters
    ----------
    network
        Trained classifier, which says how many classes there are and where they are wanted.
    tags
        Path of each photo to its classes, 0-based; targets are among them.
    seed
        Key of the random draws.

    Returns
    -------
    From a target's path to its pool of the other photos.

    Raises
    ------
    UserError
        If the batch has no place for the target (paper); when it is called, if no other photo is eligible; when a batch
        is drawn, if a photo cannot be read.

    Examples
    --------
    >>> from PIL import Image
    >>> from wsss_core.data.decode import read_image
    >>> from wsss_core.models import cam_network
    >>> tags = {"cat.png": [0], "dog.png": [1], "bird.png": [2]}
    >>> for number, path in enumerate(tags):
    ...     Image.new("RGB", (48, 32), (90 * number, 120, 60)).save(path)
    >>> network = cam_network("small", 3).eval()
    >>> settings = RibSettings(steps=2, scales=(1.0,), batch_size=2, explosion=None, pool_long=(32, 48), pool_crop=32)
    >>> pool = photo_pool(network, tags, settings)
    >>> images, labels = pool("cat.png")(0)
    >>> images.shape, labels.sum(0).tolist()
    (torch.Size([2, 3, 32, 32]), [0.0, 1.0, 1.0])
    >>> rib_seed(network, read_image("cat.png"), tags["cat.png"], settings, pool("cat.png")).classes
    (0,)
    """
    records = {path: ImageRecord(path, path, 0, 0, ("train",), tuple(classes)) for path, classes in tags.items()}
    pool = auxiliary_pool(settings, Inputs(network, tuple(records.values()), seed, "photos"))
    return lambda path: pool(records[path])


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
    One map [K, h_s, w_s] a scale. Statistics: see `Trace.statistics`.

    Raises
    ------
    UserError
        If scale 1 is not among the scales.

    Examples
    --------
    The published settings are for a ResNet-50 on VOC; these fit in a moment.

    >>> from wsss_core.models import cam_network
    >>> network = cam_network("small", 3).eval()
    >>> image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    >>> others = torch.rand(2, 3, 32, 32), torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    >>> maps = rib_seed(network, image, [0], RibSettings(steps=3, scales=(1.0,), explosion=None), lambda step: others)
    >>> maps.full().shape, len(maps.statistics["target"])
    (torch.Size([1, 32, 48]), 3)

    See `photo_pool` for other images from files.
    """
    trace = adapt(network, image, classes, settings, pool, last_loss=last_loss)
    return SeedMaps(tuple(classes), trace.sums, image.shape[:2], trace.statistics(), network.stride)


def adapt(
    network: CamNetwork,
    image: np.ndarray,
    classes: Sequence[int],
    settings: RibSettings,
    pool: Pool,
    *,
    last_loss: bool = False,
    observe: Callable[[int], None] = lambda step: None,
) -> Trace:
    """Adapt the network to an image as RIB does, and put it back.

    Parameters
    ----------
    network, image, classes, settings, pool, last_loss
        As for `rib_seed`; errors too.
    observe
        Called with 0, 1, ... in every state of the network whose maps of all scales are in the sum.
    """
    if 1.0 not in settings.scales:
        raise UserError(f"scales: {list(settings.scales)} must hold 1, which RIB's loss and stopping test use")
    target = Target.of(network, image, classes, settings.scales)
    loop = {"official": _official, "paper": _paper}[settings.variant]
    with restored(network):
        return loop(network, target, settings, pool, last_loss, observe)


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

    def statistics(self) -> dict[str, Any]:
        """What is recorded of an image.

        ``stop``, why it ended: "steps", "margin" or "explosion"; ``maps``, how many states' maps were summed, but for
        an explosion, whose state is in the sum of scale 1 alone; ``target``, the target's summed logits in each of
        them; ``losses``, of every step whose loss was computed.
        """
        return {"stop": self.stop, "maps": len(self.target), "target": self.target, "losses": self.losses}


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


@dataclass(frozen=True)
class Objective:
    """What a view or an image adds to the loss.

    Attributes
    ----------
    pooling
        Maps [..., h, w] of classes that the image holds to their logits [...].
    reward
        Those logits to terms [...] that the loss falls by.
    absence
        Maps [..., h, w] of classes that the image does not hold to such terms; None if they take no part.
    """

    pooling: Callable[[Tensor], Tensor]
    reward: Callable[[Tensor], Tensor]
    absence: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, settings: RibSettings) -> Objective:
        """The objective that the settings describe."""
        official = settings.variant == "official"
        pool = (_OFFICIAL_POOLING if official else _PAPER_POOLING)[settings.pooling]
        pooling = partial(pool, threshold=settings.threshold)
        if settings.loss == "bce":
            log = _LOG_ACTIVATION[settings.activation]
            other = partial(gap, threshold=settings.threshold) if official else pooling
            return cls(pooling, log, lambda maps: log(-other(maps)))
        if official or settings.margin is None:
            return cls(pooling, lambda logits: logits)
        return cls(pooling, lambda logits: logits.clamp(max=settings.margin))

    def views(self, network: CamNetwork, target: Target, scale: float, views: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Logit maps [2, K, h, w] of a scale, and of the chosen views the summed logits and the loss."""
        features = network.trunk(target.features[scale])
        maps = network.classify(features, target.classes)
        logits = self.pooling(maps[views])
        loss = -self.reward(logits).sum()
        absent = [c for c in range(network.n_classes) if c not in target.classes]
        if self.absence is not None and absent:
            loss = loss - self.absence(network.classify(features[views], absent)).sum()
        return maps, logits.sum(), loss


def _official(
    network: CamNetwork,
    target: Target,
    settings: RibSettings,
    pool: Pool,
    last_loss: bool,
    observe: Callable[[int], None],
) -> Trace:
    """The published code's loop (see the module's table)."""
    trace = Trace()
    groups = [
        {"params": list(network.trunk_parameters()), "lr": settings.learning_rate},
        {"params": [network.classifier.weight], "lr": settings.classifier_rate * settings.learning_rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)
    rate = polynomial(settings.steps, 0.9)
    objective = Objective.of(settings)
    for step in range(settings.steps):
        last = step == settings.steps - 1
        logits, losses = [], []
        for scale in sorted(settings.scales, key=lambda s: s != 1):
            in_loss = scale >= 1
            with torch.set_grad_enabled(in_loss and not last):
                if in_loss:
                    maps, logit, loss = objective.views(network, target, scale, slice(None))
                    logits.append(logit.detach())
                    losses.append(loss)
                else:
                    maps = target.maps(network, scale)
            present = flip_sum(maps.detach())
            trace.add(scale, present)
            if scale == 1 and step > 0 and explodes(present, settings.explosion):
                trace.stop = "explosion"
                return trace
        trace.target.append(torch.stack(logits).sum().item())
        observe(step)
        if settings.margin is not None and abs(trace.target[-1]) > settings.margin:
            trace.stop = "margin"
            return trace
        if last and not last_loss:
            return trace
        optimizer.zero_grad(set_to_none=True)
        total = torch.stack(losses).sum()
        if not last:
            total.backward()
        with torch.set_grad_enabled(not last):
            other = auxiliary(network, pool(step), objective)
        trace.losses.append(total.item() + other)
        for group, base in zip(optimizer.param_groups, (1.0, settings.classifier_rate), strict=True):
            group["lr"] = base * settings.learning_rate * rate(step)
        if not last:
            optimizer.step()
    return trace


def _paper(
    network: CamNetwork,
    target: Target,
    settings: RibSettings,
    pool: Pool,
    last_loss: bool,
    observe: Callable[[int], None],
) -> Trace:
    """The paper's equations (see the module's table)."""
    trace = Trace()
    parameters = [*network.trunk_parameters(), network.classifier.weight]
    objective = Objective.of(settings)
    for step in range(settings.steps + 1):
        last = step == settings.steps
        present = {}
        for scale in settings.scales:
            with torch.set_grad_enabled(scale == 1 and not last):
                if scale == 1:
                    maps, logits, loss = objective.views(network, target, scale, slice(1))
                else:
                    maps = target.maps(network, scale)
            present[scale] = flip_sum(maps.detach())
        peak = _peak(present)
        for scale, maps in present.items():
            trace.add(scale, maps / peak)
        trace.target.append(logits.item())
        observe(step)
        if last:
            return trace
        loss.backward()
        other = auxiliary(network, pool(step), objective)
        trace.losses.append(loss.item() + other)
        with torch.no_grad():
            for parameter in parameters:
                assert parameter.grad is not None  # all of them take part in the loss
                parameter -= settings.learning_rate * parameter.grad
                parameter.grad = None
    return trace


def auxiliary(network: CamNetwork, batch: tuple[Tensor, Tensor], objective: Objective) -> float:
    """Loss of the auxiliary images; its gradients are added to the parameters'.

    Parameters
    ----------
    batch
        Images [B, 3, S, S] and labels [B, C], as `tags_of` gives them.
    """
    device = network.classifier.weight.device
    images, labels = batch
    if objective.absence is None:
        held = (labels > 0).any(1)
        images, labels = images[held], labels[held]
    if not len(images):
        return 0.0
    chunk = max(1, CHUNK_PIXELS // images[0, 0].numel()) if device.type == "cpu" else len(images)
    total = 0.0
    for part, tags in zip(images.split(chunk), labels.to(device).split(chunk), strict=True):
        with torch.no_grad():
            features = network.prefix(part.to(device))
        maps = network.classify(network.trunk(features))
        loss = -objective.reward(objective.pooling(maps[tags > 0])).sum()
        if objective.absence is not None:
            loss = loss - objective.absence(maps[tags == 0]).sum()
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


def log_sigmoid(logits: Tensor) -> Tensor:
    """log a(y) of a = 1 / (1 + exp(-y)); as for the others, 1 - a(y) = a(-y)."""
    return F.logsigmoid(logits)


def log_tanh(logits: Tensor) -> Tensor:
    """log a(y) of a = (tanh(y) + 1) / 2, which is the sigmoid of 2 y."""
    return F.logsigmoid(2 * logits)


def log_softsign(logits: Tensor) -> Tensor:
    """log a(y) of a = (y / (1 + |y|) + 1) / 2, without cancellation where y is far below 0."""
    return torch.log1p(2 * logits.relu()) - torch.log1p(logits.abs()) - math.log(2)


_OFFICIAL_POOLING = {"gndrp": gndrp_official, "gap": gap}
_PAPER_POOLING = {"gndrp": gndrp_paper, "gap": gap}
_LOG_ACTIVATION = {"sigmoid": log_sigmoid, "tanh": log_tanh, "softsign": log_softsign}


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
    enlarged = (F.interpolate(m[None], size, mode="bilinear", align_corners=False)[0] for m in present.values())
    return sum(enlarged, torch.zeros(())).amax((1, 2), keepdim=True) + EPSILON
