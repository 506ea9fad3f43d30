"""What the trainings of networks that judge regions share: settings, batches, initial weights, optimiser and rate.

The recipe of maskrcnn-benchmark, which the published code of BBAM is built on: SGD with a short warm-up, biases at
twice the rate and without decay, the rate divided by ten towards the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wsss_core import keyed
from wsss_core.data.augment import normalise, resize, resize_labels
from wsss_core.models import PyramidBackboneName
from wsss_core.models.backbones import Backbone, FixedBatchNorm, backbone
from wsss_core.models.detector import Detector, Target, fitted_size
from wsss_core.settings import setting
from wsss_core.training import Inputs, fitting_batch

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=Detector)

LEAST_STEPS = 600
"""Steps that a training takes at least where its settings leave their number open: pyramid and heads start from
nothing, whatever the number of photos.
"""


FEW = 1000
"""With fewer images a backbone with initial weights keeps them all, where the settings leave it open, as classifiers do
it (`wsss_core.classify.bce`).
"""


class Scale(NamedTuple):
    """What the settings leave open, by the backbone; fields as in `RegionNetworkSettings`."""

    channels: int
    regions: int
    drawn_regions: int
    short_sides: tuple[int, ...]
    long_side: int
    batch_size: int
    learning_rate: float


SMALL_SCALES = {
    "mobilenet_v2": Scale(128, 128, 16, (192, 224, 256), 427, 4, 0.01),
    "small": Scale(64, 64, 16, (96, 128), 213, 4, 0.02),
}
"""For machines without a GPU, and few photos."""


def scales(published: Scale) -> dict[str, Scale]:
    """What is left open for every backbone: for ResNet as published."""
    return {"resnet50": published, "resnet101": published, **SMALL_SCALES}


@dataclass(frozen=True)
class RegionNetworkSettings:
    """Network and schedule. What is null follows from the backbone, or from the number of images."""

    usual: ClassVar[Mapping[str, Scale]] = scales(Scale(256, 512, 0, tuple(range(480, 801, 32)), 1333, 16, 0.01))
    usual_epochs: ClassVar[int] = 27

    backbone: PyramidBackboneName = setting("resnet101", "backbone network")
    weights: str | None = setting(
        None,
        "file of ImageNet weights with torchvision's parameter names; imagenet: those that torchvision publishes, "
        "fetched once; null: random ones",
    )
    frozen_stages: int | None = setting(
        None,
        "leading stages of the backbone that keep their initial weights, of 5; null: 0 without a weight file, with "
        "one 2, or all 5 with fewer than 1000 images",
        minimum=0,
        maximum=5,
    )
    channels: int | None = setting(
        None, "channels of the pyramid; null: 256 for ResNet, 128 for MobileNetV2, 64 for small", minimum=1
    )
    short_sides: tuple[int, ...] | None = setting(
        None,
        "lengths in pixels of the shorter side, of which an image in training gets one at random; null: 480, 512, … "
        "800 for ResNet, 192, 224 and 256 for MobileNetV2, 96 and 128 for small",
        minItems=1,
        items={"minimum": 32},
    )
    short_side: int | None = setting(
        None, "length in pixels of the shorter side after training; null: the greatest of short_sides", minimum=32
    )
    long_side: int | None = setting(
        None,
        "limit of the longer side in pixels, in training and after it; null: 1333 if `short_side` is 800, and in "
        "proportion",
        minimum=32,
    )
    anchors: tuple[int, int, int, int, int] | None = setting(
        None,
        "sides of the anchors in pixels of the input, one for each level of the pyramid; null: 32, 64, 128, 256 and "
        "512 if `short_side` is 800, and in proportion",
        items={"minimum": 1},
    )
    regions: int | None = setting(
        None,
        "regions of an image that the heads learn from at a step; null: 512 for ResNet, 128 for MobileNetV2, 64 "
        "for small",
        minimum=4,
    )
    drawn_regions: int | None = setting(
        None,
        "regions drawn around every box, beside the proposals, so that the heads learn before these are good; null: 0 "
        "for ResNet, as published, 16 for the others",
        minimum=0,
    )
    iterations: int | None = setting(
        None, "training steps; null: as many as show every image 27 times, but at least 600", minimum=1
    )
    batch_size: int | None = setting(None, "images a step; null: 16 for ResNet, 4 for the others", minimum=1)
    learning_rate: float | None = setting(
        None, "of SGD; null: 0.01 for ResNet and MobileNetV2, 0.02 for small", exclusiveMinimum=0
    )
    warm_up: int = setting(500, "steps in which the rate rises from a third, at most a tenth of all", minimum=0)
    decay_at: tuple[float, ...] = setting(
        (0.667, 0.889),
        "parts of the training after which the rate is divided by ten, each time",
        items={"minimum": 0, "maximum": 1},
    )
    momentum: float = setting(0.9, "momentum of SGD", minimum=0, exclusiveMaximum=1)
    weight_decay: float = setting(1e-4, "weight decay; none for biases", minimum=0)
    largest_gradient: float = setting(
        10.0,
        "a gradient whose norm over all weights is larger is made so short; the published code has no such limit, nor "
        "needs one at its size",
        exclusiveMinimum=0,
    )

    @property
    def scale(self) -> Scale:
        """What is used where a setting is null."""
        return self.usual[self.backbone]

    @property
    def sides(self) -> tuple[int, int]:
        """Length of the shorter side and limit of the longer one, in pixels."""
        short_side = self.short_side or max(self.short_sides or self.scale.short_sides)
        return short_side, self.long_side or round(short_side * self.scale.long_side / max(self.scale.short_sides))


class Example(NamedTuple):
    """One image to learn from.

    Attributes
    ----------
    image
        uint8 [H, W, 3].
    boxes
        float32 [n, 4], in pixels of the image.
    labels
        int64 [n], class c as c + 1.
    planes
        Mask of each object, uint8 [n, H, W]: 1 the object, 0 not, 255 unknown; [0, 0, 0] where only boxes are known.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    planes: np.ndarray = np.zeros((0, 0, 0), np.uint8)


class RegionBatches:
    """``batches[k]`` depends on (seed, stage, k) alone; epochs see the images in an order of their own.

    A batch is a dict: "images", normalised float32 [B, 3, H, W], padded with 0 at the right and below; "sizes", (H, W)
    of each without the padding; "targets", for each a `Target`, which also has "masks" uint8 [n, H, W] if the examples
    have planes.

    Parameters
    ----------
    names
        Ids of the images.
    load
        From the place of an image among the names to it.
    short_sides, long_side
        Of which the images get one at random; see `fitted_size`. Half of them are mirrored.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[int], Example],
        *,
        iterations: int,
        batch_size: int,
        short_sides: Sequence[int],
        long_side: int,
        seed: int,
        stage: str,
    ) -> None:
        self.names, self.load, self.iterations = list(names), load, iterations
        self.batch_size = fitting_batch(batch_size, len(self.names))
        self.short_sides, self.long_side = tuple(short_sides), long_side
        self.seed, self.stage = seed, stage

    def __len__(self) -> int:
        return self.iterations

    def __getitem__(self, step: int) -> dict[str, Any]:
        if not 0 <= step < self.iterations:
            raise IndexError(step)
        rng = keyed.generator(self.seed, self.stage, "batch", step)
        shown = [self._shown(self.load(index), rng) for index in self.indices(step)]
        images, targets = zip(*shown, strict=True)
        return {
            "images": padded(images),
            "sizes": [tuple(image.shape[1:]) for image in images],
            "targets": list(targets),
        }

    def batch_names(self, step: int) -> list[str]:
        """The images of a step."""
        return [self.names[index] for index in self.indices(step)]

    def indices(self, step: int) -> list[int]:
        """Which images make the batch of a step."""
        first, count = step * self.batch_size, len(self.names)
        places = [divmod(first + k, count) for k in range(self.batch_size)]
        return [int(keyed.epoch_order(self.seed, self.stage, epoch, count)[place]) for epoch, place in places]

    def _shown(self, example: Example, rng: np.random.Generator) -> tuple[Tensor, Target]:
        short_side = self.short_sides[int(rng.integers(len(self.short_sides)))]
        return resized(example, fitted_size(example.image.shape[:2], short_side, self.long_side), rng.random() < 0.5)


def resized(example: Example, size: tuple[int, int], mirrored: bool) -> tuple[Tensor, Target]:
    """An example at (H, W) `size`: the normalised image float32 [3, H, W], and what is known of it."""
    (height, width), (old_height, old_width) = size, example.image.shape[:2]
    image = normalise(resize(example.image, size))
    boxes = example.boxes * np.array([width / old_width, height / old_height] * 2, np.float32)
    planes = [resize_labels(plane, size) for plane in example.planes]
    if mirrored:
        image = image[..., ::-1].copy()
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        planes = [plane[:, ::-1] for plane in planes]
    target = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(example.labels)}
    if planes:
        target["masks"] = torch.from_numpy(np.stack(planes))
    return torch.from_numpy(image), target


def padded(images: Sequence[Tensor]) -> Tensor:
    """Images [3, H_i, W_i] in one tensor [B, 3, H, W], as large as the largest sides, filled with 0."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    filled = images[0].new_zeros(len(images), 3, height, width)
    for place, image in zip(filled, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return filled


def build(architecture: Callable[..., Network], settings: RegionNetworkSettings, inputs: Inputs) -> Network:
    """The network to train, with its initial weights; what of the backbone is frozen takes no gradient.

    Parameters
    ----------
    architecture
        `Detector`, or a network that adds to it.

    Raises
    ------
    UserError
        If the weights do not fit the backbone.
    """
    scale, (short_side, long_side) = settings.scale, settings.sides
    network = architecture(
        backbone(settings.backbone, 32),
        len(inputs.class_names),
        channels=settings.channels or scale.channels,
        anchors=settings.anchors or [max(1, round(short_side / 25 * 2**level)) for level in range(5)],
        short_side=short_side,
        long_side=long_side,
        regions=settings.regions or scale.regions,
        drawn=scale.drawn_regions if settings.drawn_regions is None else settings.drawn_regions,
    )
    start(network.backbone, settings, inputs)
    return network


def start(network: Backbone, settings: RegionNetworkSettings, inputs: Inputs) -> None:
    """Load initial weights into a backbone, if there are any; freeze its leading stages and all batch normalisation."""
    frozen = settings.frozen_stages
    if inputs.weights is not None:
        network.load(inputs.weights)
        if frozen is None:
            frozen = 5 if len(inputs.records) < FEW else 2
    elif settings.backbone != "small":
        log.warning("%s starts from random weights: set `weights` to a file of ImageNet weights", settings.backbone)
    network.stages[: frozen or 0].requires_grad_(False)
    for module in network.modules():
        if isinstance(module, FixedBatchNorm):
            module.requires_grad_(False)


def batches(
    settings: RegionNetworkSettings, inputs: Inputs, names: Sequence[str], load: Callable[[int], Example]
) -> RegionBatches:
    """Batches of the images of these names, as the settings say."""
    scale = settings.scale
    batch_size = settings.batch_size or scale.batch_size
    return RegionBatches(
        names,
        load,
        iterations=settings.iterations or enough_steps(settings.usual_epochs, len(names), batch_size),
        batch_size=batch_size,
        short_sides=settings.short_sides or scale.short_sides,
        long_side=settings.sides[1],
        seed=inputs.seed,
        stage=inputs.stage,
    )


def enough_steps(epochs: int, images: int, batch_size: int) -> int:
    """Steps of so many passes over the images, but at least `LEAST_STEPS`.

    Examples
    --------
    >>> enough_steps(27, 10_582, 16), enough_steps(27, 60, 4)
    (17858, 600)
    """
    return max(LEAST_STEPS, -(-epochs * images // batch_size))


def optimizer(network: nn.Module, settings: RegionNetworkSettings) -> torch.optim.SGD:
    """SGD; biases learn at twice the rate, without decay. Gradients are no longer than the settings allow."""
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    biases = [value for name, value in trained.items() if name.endswith("bias")]
    weights = [value for name, value in trained.items() if not name.endswith("bias")]
    rate = settings.learning_rate or settings.scale.learning_rate
    groups = [
        {"params": weights, "lr": rate, "weight_decay": settings.weight_decay},
        {"params": biases, "lr": 2 * rate, "weight_decay": 0.0},
    ]
    made = torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)

    def shorten(*_: Any) -> None:
        nn.utils.clip_grad_norm_([*weights, *biases], settings.largest_gradient)

    made.register_step_pre_hook(shorten)
    return made


def stepwise(steps: int, warm_up: int, decay_at: Sequence[float]) -> Callable[[int], float]:
    """Learning-rate factor that rises from a third to 1, and is divided by ten after parts of the training.

    Examples
    --------
    >>> rate = stepwise(1000, 500, (0.667, 0.889))
    >>> [round(rate(step), 3) for step in (0, 50, 100, 666, 667, 889)]
    [0.333, 0.667, 1.0, 1.0, 0.1, 0.01]
    """
    rising = min(warm_up, steps // 10)

    def rate(step: int) -> float:
        risen = (1 + 2 * step / rising) / 3 if step < rising else 1.0
        return risen * 0.1 ** sum(step >= part * steps for part in decay_at)

    return rate
