"""Seed methods: one file each, from a trained classifier and an image to class maps.

A module of this package is a method (`SeedMethod`): it has ``maker(settings, inputs)``. The registry names its settings
class.

A method whose network does the same to every image may also have ``batch_maker(settings, inputs)``
(`BatchedSeedMethod`), whose result takes images of one size. The step calls it on a GPU only. A convolution may add in
another order in a batch of another length, and which images of a shard are still to be done depends on what was cached:
on a CPU, where the same bytes are promised alone, in another order and after a restart, every image therefore goes
through ``maker``. On a GPU the two agree to rounding.

A module that starts from the maps of another seed, without its classifier, has ``refined(image, maps, settings)``
instead (`MapRefinement`); one that takes its maps from files has ``files`` and ``maps`` (`MapSource`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from wsss_core.data.table import ImageRecord
    from wsss_core.models.cam import CamNetwork
    from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class Inputs:
    """What a method works on.

    Attributes
    ----------
    network
        Trained classifier, in evaluation mode on its device.
    records
        The images of the role "train".
    seed, stage
        Key of the random draws.
    pixels
        Most pixels of views in one forward pass of a batch; 0 where images are not batched.
    processes
        Processes that share the device for this work.
    threads
        CPU threads of each.
    """

    network: CamNetwork
    records: Sequence[ImageRecord]
    seed: int
    stage: str
    pixels: int = 0
    processes: int = 1
    threads: int = 1


class SeedMethod(Protocol):
    """A module that makes maps of images one by one."""

    def maker(self, settings: Any, inputs: Inputs, /) -> Callable[[ImageRecord, np.ndarray], SeedMaps]:
        """From an image, its record and uint8 [H, W, 3], to the maps of its classes."""
        ...


class MapSource(Protocol):
    """A module that takes maps from files."""

    def files(self, settings: Any, record: ImageRecord, class_names: Sequence[str], /) -> list[Path]:
        """The files that the maps of an image are read from."""
        ...

    def maps(self, settings: Any, record: ImageRecord, class_names: Sequence[str], /) -> SeedMaps:
        """The maps of the classes of an image."""
        ...


class MapRefinement(Protocol):
    """A module that makes maps of the maps of another seed, image by image."""

    def refined(self, image: np.ndarray, maps: SeedMaps, settings: Any, /) -> SeedMaps:
        """From an image, uint8 [H, W, 3], and its maps, of at least one class, to better ones of the same classes."""
        ...


@runtime_checkable
class BatchedSeedMethod(SeedMethod, Protocol):
    """A module that can also make maps of several images of one size together."""

    def batch_maker(
        self, settings: Any, inputs: Inputs, /
    ) -> Callable[[Sequence[ImageRecord], Sequence[np.ndarray]], list[SeedMaps]]:
        """From images of one size to the maps of each."""
        ...
