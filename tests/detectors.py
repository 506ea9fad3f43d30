"""Detectors for tests: one whose right masks are known, and one with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align


class NodeDetector:
    """Reads single pixels, as much of each as `weights` [h, w] says, and nothing else.

    The box's offsets are 0 where all are seen and fall by what is hidden, the same for every proposal; of the two
    classes the first is as likely as what is seen.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, images: Tensor, proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        seen = (images.mean(1) * self.weights).sum((1, 2)) / self.weights.sum()
        each = torch.cat([one.expand(len(some)) for one, some in zip(seen, proposals, strict=True)])
        likely = torch.stack([(1 - each) / 2, each, (1 - each) / 2], 1)
        return likely, (each - 1)[:, None, None].expand(-1, 3, 4)


class RandomDetector(nn.Module):
    """A small two-stage detector of two levels with random weights, float64; boxes wider than 24 are pooled from the
    coarse one."""

    def __init__(self, n_classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh())
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.Tanh())
        self.hidden = nn.Linear(6 * 9, 16)
        self.classes = nn.Linear(16, n_classes + 1)
        self.boxes = nn.Linear(16, 4 * (n_classes + 1))
        self.double()

    def forward(self, images: Tensor, proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.judged(self.pyramid(images), proposals)

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.stem(images)
        return {"fine": fine, "coarse": self.deep(fine)}

    def judged(self, features: Mapping[str, Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        boxes = list(proposals)
        fine, coarse = (
            roi_align(features["fine"], boxes, 3, 1 / 2, 2),
            roi_align(features["coarse"], boxes, 3, 1 / 4, 2),
        )
        wide = torch.cat([box[:, 2] - box[:, 0] > 24 for box in boxes])
        hidden = self.hidden(torch.where(wide[:, None, None, None], coarse, fine).flatten(1)).tanh()
        return (3 * self.classes(hidden)).softmax(1), self.boxes(hidden).unflatten(1, (-1, 4))
