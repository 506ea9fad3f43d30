"""Refined class scores at stride 4, such as the result of the IRN random walk, in HDF5 shards.

A group per image holds one float32 dataset ``scores`` [K, h4, w4] and the attributes ``id``, ``classes``,
``size`` and ``fingerprint``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_core.store.shards import ShardFile

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ScoreMaps:
    """Scores of one image's present classes.

    Attributes
    ----------
    classes
        The K present classes, 0-based.
    scores
        [K, (H-1)//4+1, (W-1)//4+1], float32, not normalised.
    size
        (H, W) of the image in pixels.
    """

    classes: tuple[int, ...]
    scores: torch.Tensor
    size: tuple[int, int]

    def full(self) -> torch.Tensor:
        """[K, H, W]: enlarged four times (bilinear), cropped, divided by the maximum over all classes and pixels."""
        import torch
        import torch.nn.functional as F

        height, width = self.size
        if not self.classes:
            return torch.zeros(0, height, width)
        full = F.interpolate(self.scores[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
        full = full[:, :height, :width]
        return full / full.max().clamp_min(torch.finfo(full.dtype).tiny)


def write_record(group: Any, maps: ScoreMaps) -> None:
    """Write one image's scores into an HDF5 group."""
    group.attrs["classes"] = np.asarray(maps.classes, dtype=np.int64)
    group.attrs["size"] = np.asarray(maps.size, dtype=np.int64)
    group.create_dataset("scores", data=maps.scores.detach().cpu().numpy().astype(np.float32))


def read_record(group: Any) -> ScoreMaps:
    """Read one image's scores from an HDF5 group."""
    import torch

    return ScoreMaps(
        classes=tuple(int(c) for c in group.attrs["classes"]),
        scores=torch.from_numpy(group["scores"][()]),
        size=tuple(int(n) for n in group.attrs["size"]),
    )


class ScoreStore(Mapping[str, ScoreMaps]):
    """Read-only mapping from image id to `ScoreMaps`; parameters and errors as for `SeedStore`."""

    def __init__(self, path: Any) -> None:
        self._file = ShardFile(path, kind="scores")

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Method, settings, versions and class names of this file."""
        return self._file.attrs

    def __getitem__(self, image_id: str) -> ScoreMaps:
        return read_record(self._file.group(image_id))

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.ids)

    def __len__(self) -> int:
        return len(self._file.ids)
