"""From seed maps to label masks: one file a refinement, or a folder with a file a step where one learns from labels.

What a step asks of such a file is a protocol below: the masks of every refinement are made by a `MaskMethod`; one that
learns has a `LabelMaker`, the `wsss_core.training.Objective` of its network, and a `Walk`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from wsss_core.constants import IGNORE
from wsss_core.errors import UserError
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.store.cut import Cut

if TYPE_CHECKING:
    from wsss_core.data.table import ImageRecord
    from wsss_core.models.backbones import BackboneNetwork
    from wsss_core.store.instances import Instances
    from wsss_core.store.scores import ScoreMaps
    from wsss_core.store.seeds import SeedMaps
    from wsss_core.store.shards import RecordKind


Threshold = float | Literal["score", "oracle", "otsu", "none"]
"""A background threshold in the settings; `cut_at` says what the words mean."""


NO_BACKGROUND = -math.inf
"""The threshold of data without a background: every map exceeds it, so that every pixel has a class."""


class LabelMaker(Protocol):
    """A module that makes the labels which the network of a refinement learns."""

    KIND: RecordKind
    """What the labels of an image are stored as."""

    def labels(self, image: np.ndarray, maps: SeedMaps, settings: Any, /) -> Any:
        """From an image, uint8 [H, W, 3], and its seed maps to a record of `KIND`."""
        ...


class Walk(Protocol):
    """A module that walks seed maps by the predictions of a refinement's network."""

    @property
    def NETWORK(self) -> type[BackboneNetwork]:
        """The network, which is built on a backbone alone."""
        ...

    def walk(
        self, network: Any, images: Sequence[np.ndarray], maps: Sequence[SeedMaps], settings: Any, /
    ) -> list[ScoreMaps]:
        """From images of one size, uint8 [H, W, 3], which all have a class, and their seed maps to scores."""
        ...

    def nothing(self, size: tuple[int, int], /) -> ScoreMaps:
        """The scores of an image [H, W] without classes."""
        ...


@dataclass(frozen=True)
class MaskInputs:
    """What the masks of a shard are made from; what a refinement does not start from is absent.

    Attributes
    ----------
    class_names
        Names of the foreground classes; label c + 1 is class c.
    device
        Where tensors are worked on.
    maps
        Seed maps, or scores after a walk, by image id.
    chosen
        Content of the threshold file of their scores, see `cut_at`; None without one.
    masks
        From the record of an image to its mask to start from, uint8 [H, W].
    cut
        How these masks were cut.
    otherwise
        From the record of an image to its mask of a second source, likewise.
    model
        Checkpoint of a segmentation network trained on them. The refinement loads it: nothing else depends on networks.
    instances
        Masks of single objects, by image id.
    """

    class_names: tuple[str, ...]
    device: torch.device
    maps: Mapping[str, SeedMaps] | Mapping[str, ScoreMaps] = field(default_factory=dict)
    chosen: Mapping[str, Any] | None = None
    masks: Callable[[ImageRecord], np.ndarray] | None = None
    cut: Cut | None = None
    otherwise: Callable[[ImageRecord], np.ndarray] | None = None
    model: Path | None = None
    instances: Mapping[str, Instances] = field(default_factory=dict)


@dataclass(frozen=True)
class MaskMaker:
    """What makes masks.

    Attributes
    ----------
    cut
        How they are cut.
    make
        From records of images to the mask of each, uint8 [H, W]: 0 background, c + 1 class c, 255 undecided.
    pixels
        Most pixels of images that are worth making together; 0: one image at a time.
    """

    cut: Cut
    make: Callable[[Sequence[ImageRecord]], list[np.ndarray]]
    pixels: int = 0


class MaskMethod(Protocol):
    """A module that makes label masks."""

    def maker(self, settings: Any, inputs: MaskInputs, /) -> MaskMaker:
        """What makes the masks of a shard."""
        ...


def cut_at(threshold: Threshold, chosen: Mapping[str, Any] | None) -> Cut:
    """The threshold behind a setting, and who chose it.

    Parameters
    ----------
    threshold
        A number; "none": there is no background, every pixel has a class; "otsu": of each image's own maps; "score":
        what the score rule of the maps chose; "oracle": the best value in hindsight, which uses the masks.
    chosen
        Content of the threshold file, ``{"rule", "value", "oracle": {"value", "miou"}}``; None if there is none.

    Raises
    ------
    UserError
        If the setting asks for what was not computed.

    Examples
    --------
    >>> cut_at(0.3, None)
    Cut(rule='fixed', threshold=0.3, band=None, from_maps=False, crf='', notes=())
    >>> cut_at("score", {"rule": "heldout", "value": 0.25})
    Cut(rule='heldout', threshold=0.25, band=None, from_maps=True, crf='', notes=())
    >>> cut_at("none", None)
    Cut(rule='none', threshold=None, band=None, from_maps=False, crf='', notes=())
    """
    if not isinstance(threshold, str):
        return Cut("fixed", float(threshold))
    if threshold in ("otsu", "none"):
        return Cut(threshold)
    if chosen is None:
        raise UserError(f"threshold {threshold!r} needs the scores of the maps, and no threshold file was given")
    if threshold == "score":
        rule = chosen["rule"]
        if rule == "none":
            return Cut("none")
        return Cut(rule, None if rule == "otsu" else float(chosen["value"]), from_maps=True)
    if "oracle" not in chosen:
        raise UserError("threshold 'oracle' needs masks to choose it with, and the data set has none to score")
    return Cut("oracle", float(chosen["oracle"]["value"]))


def threshold_of(cut: Cut, maps: Tensor) -> float:
    """The threshold at which an image is cut: the one of all images, or under rule otsu its own; under rule none
    `NO_BACKGROUND`.

    Parameters
    ----------
    cut
        Of a rule that ends in thresholds, not in a band.
    maps
        The image's maps, [K, H, W].

    Examples
    --------
    >>> maps = torch.tensor([[[0.1, 0.2, 0.8, 0.9]]])
    >>> threshold_of(Cut("fixed", 0.3), maps)
    0.3
    >>> round(threshold_of(Cut("otsu"), maps), 3)
    0.5
    """
    if cut.rule == "otsu":
        return otsu_threshold(maps)
    if cut.rule == "none":
        return NO_BACKGROUND
    assert cut.threshold is not None  # there is no band
    return cut.threshold


def around_otsu(maps: Tensor, width: float) -> tuple[float, float]:
    """The thresholds of confident labels: an image's own by Otsu, less and plus a width.

    Parameters
    ----------
    maps
        The image's maps, [K, H, W].

    Returns
    -------
    Below the first, which is not negative, a pixel is surely background, above the second surely foreground. Where the
    first is 0, pixels of no map at all are background still.

    Examples
    --------
    >>> around_otsu(torch.full((1, 2, 2), 0.5), 0.125)
    (0.375, 0.625)
    >>> around_otsu(torch.zeros(1, 2, 2), 0.125)
    (0.0, 0.125)
    """
    middle = otsu_threshold(maps)
    return max(0.0, middle - width), middle + width


def highest_label(maps: Tensor, threshold: float) -> Tensor:
    """Index of the highest map counted from 1, or 0 where none exceeds the threshold.

    Parameters
    ----------
    maps
        [K, H, W].

    Returns
    -------
    int64 [H, W] in 0..K: the argmax with a plane of the constant threshold in front.
    """
    plane = torch.full((1, *maps.shape[1:]), threshold, dtype=maps.dtype, device=maps.device)
    return torch.cat([plane, maps]).argmax(0)


def without_classes(size: tuple[int, int], threshold: float) -> np.ndarray:
    """The mask of an image that has no class, uint8 [H, W]: background, or undecided where there is no background.

    Examples
    --------
    >>> without_classes((1, 2), 0.3).tolist(), without_classes((1, 2), NO_BACKGROUND).tolist()
    ([[0, 0]], [[255, 255]])
    """
    return np.full(size, IGNORE if threshold == NO_BACKGROUND else 0, dtype=np.uint8)


def mask_values(indices: Any, classes: Sequence[int]) -> np.ndarray:
    """Mask labels from indices among present classes: 0 stays background, k becomes ``classes[k - 1] + 1``.

    Examples
    --------
    >>> mask_values(np.array([[0, 1, 2]]), (4, 11)).tolist()
    [[0, 5, 12]]
    """
    return np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)[np.asarray(indices)]
