"""From boxes to masks: detectors, the attribution of their detections to pixels, and masks of the objects in boxes.

What these ask of one another is written here: an attribution works on a `Detector` and a `Scene`, and makes the
`Attributions` of an image; an `ObjectMethod` makes the masks of its objects from those, or from the boxes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.boxes import Box
from wsss_core.store.attributions import Attributions
from wsss_core.store.instances import Instances

CHUNK_PIXELS = {"cpu": 2**17, "cuda": 2**23}
"""Pixels of the views that pass through a detector together, unless one has more. A CPU gains nothing by more; for a
GPU it bounds memory."""


class Detector(Protocol):
    """The second stage of a two-stage detector, with all that lies below it."""

    def __call__(self, images: Tensor, proposals: Sequence[Tensor], /) -> tuple[Tensor, Tensor]:
        """What the detector says of proposals; differentiable with respect to the images.

        Parameters
        ----------
        images
            Normalised, float [B, 3, H, W]; 0 is the mean of the training data.
        proposals
            (x0, y0, x1, y1) in pixels of `images`, [n_i, 4] for each of the B images.

        Returns
        -------
        Of all N proposals in order: class probabilities [N, C + 1] that sum to one, 0 being the background, and for
        each class the offsets [N, C + 1, 4] of the box from the proposal, as `geometry.decoded` reads them.
        """
        ...


class PyramidDetector(Detector, Protocol):
    """A detector whose features can be looked at: calling it is `pyramid`, and then `judged`."""

    def pyramid(self, images: Tensor, /) -> Mapping[str, Tensor]:
        """Features of the images, [B, D, h_l, w_l] for each level."""
        ...

    def judged(self, features: Mapping[str, Tensor], proposals: Sequence[Tensor], /) -> tuple[Tensor, Tensor]:
        """What the detector says of proposals in images with these features."""
        ...


@dataclass(frozen=True)
class Scene:
    """One image with its objects, as a detector sees it.

    Attributes
    ----------
    image_id
        Name of the image.
    view
        The image as the detector takes it: normalised, scaled and not padded, float [3, h, w].
    size
        (H, W) of the photo in pixels.
    classes
        Class of each object, 0-based, int64 [n].
    boxes
        (x0, y0, x1, y1) in pixels of the photo, [n, 4], of the kind and on the device of `view`.
    """

    image_id: str
    view: Tensor
    size: tuple[int, int]
    classes: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, image_id: str, view: Tensor, size: tuple[int, int], boxes: Sequence[Box]) -> Scene:
        """The scene of an image's boxes; those of crowds are left out."""
        objects = told_apart(boxes)
        corners = [box.corners for box in objects]
        return cls(
            image_id,
            view,
            size,
            torch.tensor([box.label for box in objects], dtype=torch.int64, device=view.device),
            torch.tensor(corners, dtype=view.dtype, device=view.device).reshape(len(objects), 4),
        )

    @property
    def seen_boxes(self) -> Tensor:
        """The boxes in pixels of the view, [n, 4]."""
        height, width = self.view.shape[1:]
        across, down = width / self.size[1], height / self.size[0]
        return self.boxes * self.boxes.new_tensor([across, down, across, down])

    def attributed(self, maps: Sequence[Tensor], found: Sequence[bool], statistics: dict[str, Any]) -> Attributions:
        """The record of this image: a map [gh, gw] for each object."""
        return Attributions(
            size=self.size,
            classes=self.classes.cpu().numpy(),
            boxes=self.boxes.cpu().numpy().astype(np.float32),
            maps=tuple(one.detach().cpu().numpy().astype(np.float32) for one in maps),
            found=np.array(found, dtype=bool),
            statistics=statistics,
        )


@dataclass(frozen=True)
class StatisticsSettings:
    """What an attribution recorded, summed up; there are no settings."""


class AttributionMethod(Protocol):
    """A module that attributes objects to pixels."""

    def attributions(
        self, detector: Any, scenes: Sequence[Scene], settings: Any, /, *key: int | str
    ) -> list[Attributions]:
        """Attribution of every object of some images; `key` is what draws are keyed by: run seed and stage."""
        ...


ObjectMaker = Callable[[np.ndarray, Sequence[Box], Attributions | None], Instances]
"""From an image, uint8 [H, W, 3], its boxes and what the objects in them were attributed to, to masks of the objects.

Boxes of crowds are left out; the attributions, where they are given, are of the other boxes, in their order.
"""


class ObjectMethod(Protocol):
    """A module that makes the masks of objects in boxes."""

    def maker(self, settings: Any, device: torch.device, /) -> ObjectMaker:
        """What makes the masks of an image; the device is for methods with a network."""
        ...


def told_apart(boxes: Sequence[Box]) -> list[Box]:
    """The boxes of single objects, without those of crowds."""
    return [box for box in boxes if not box.crowd]


def at_once(view: Tensor) -> int:
    """How many views like this one, [3, h, w], pass through a detector together."""
    return max(1, CHUNK_PIXELS.get(view.device.type, CHUNK_PIXELS["cpu"]) // view[0].numel())
