"""Refined class scores on a grid, the results of random walks, in HDF5 shards.

A group per image holds a float32 dataset ``scores`` [K, h, w], where the background walked too a dataset
``background`` [h, w], and the attributes ``id``, ``classes``, ``size``, ``stride`` and ``fingerprint``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_core.store.parts import read_array, read_classes, read_size, read_stride
from wsss_core.store.shards import RecordKind

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
        [K, (H-1)//stride+1, (W-1)//stride+1], float32, not normalised.
    size
        (H, W) of the image in pixels.
    stride
        Side of a cell in pixels.
    background
        Score of the background, [(H-1)//stride+1, (W-1)//stride+1], where the method gives it one.
    """

    classes: tuple[int, ...]
    scores: torch.Tensor
    size: tuple[int, int]
    stride: int = 4
    background: torch.Tensor | None = None

    def full(self) -> torch.Tensor:
        """[K, H, W] in [0, 1]: scores f, enlarged (bilinear), relative to their maximum or to the background.

        Without a background score, f is divided by the maximum over all classes and pixels. With one, b, the result
        is f / (f + b): above 0.5 where the class exceeds the background, so that the threshold 0.5 gives the argmax
        over background and classes, and any other threshold t weighs the background with t / (1 - t).
        """
        import torch

        if not self.classes:
            return torch.zeros(0, *self.size)
        full = self._enlarged(self.scores)
        tiny = torch.finfo(full.dtype).tiny
        if self.background is None:
            return full / full.max().clamp_min(tiny)
        return full / (full + self._enlarged(self.background[None])).clamp_min(tiny)

    def _enlarged(self, values: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        height, width = self.size
        full = F.interpolate(values[None], scale_factor=self.stride, mode="bilinear", align_corners=False)[0]
        return full[:, :height, :width]


def _write(group: Any, maps: ScoreMaps) -> None:
    """Write one image's scores into an HDF5 group."""
    group.attrs["classes"] = np.asarray(maps.classes, dtype=np.int64)
    group.attrs["size"] = np.asarray(maps.size, dtype=np.int64)
    group.attrs["stride"] = maps.stride
    for name in ("scores", "background"):
        if (values := getattr(maps, name)) is not None:
            group.create_dataset(name, data=values.detach().cpu().numpy().astype(np.float32))


def _read(group: Any) -> ScoreMaps:
    """Read one image's scores from an HDF5 group."""
    import torch

    classes, size, stride = read_classes(group), read_size(group), read_stride(group)
    grid = [(side - 1) // stride + 1 for side in size]
    scores = read_array(group, "scores", "f", (len(classes), *grid))
    background = read_array(group, "background", "f", (*grid,)) if "background" in group else None
    return ScoreMaps(
        classes=classes,
        scores=torch.from_numpy(scores),
        size=size,
        stride=stride,
        background=None if background is None else torch.from_numpy(background),
    )


SCORES = RecordKind("scores", _write, _read)
