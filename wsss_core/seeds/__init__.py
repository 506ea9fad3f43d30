"""Seed methods: one file each, from a trained classifier and an image to class maps.

A module of this package is a method if it has ``SETTINGS``, its settings class, and
``maker(settings, inputs) -> Callable[[ImageRecord, image], SeedMaps]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_core.data.table import ImageRecord
    from wsss_core.models.cam import CamNetwork


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
    """

    network: CamNetwork
    records: Sequence[ImageRecord]
    seed: int
    stage: str
