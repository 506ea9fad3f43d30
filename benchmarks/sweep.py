"""Scores at every background threshold: the maps made and read again for each, against one pass."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from benchmarks import Work, largest_difference
from benchmarks.baselines.sweep_naive import sweep as sweep_naive
from wsss_core.evaluate.sweep import sweep
from wsss_core.store.seeds import SeedMaps

CASES = {"tiny": (2, (40, 52)), "quick": (4, (188, 250)), "full": (10, (375, 500))}
"""Number of images and their size."""

THRESHOLDS = tuple(np.arange(20, 50) / 100)
"""As RIB sweeps: 0.20 to 0.49."""

CLASSES, LABELS = (3, 14), 21


def works(size: str, device: str) -> list[Work]:
    """Maps of two classes at four scales; runs on the CPU whatever the device, so it has no row for a GPU."""
    if device == "cuda":
        return []
    images, (height, width) = CASES[size]
    pixels = images * height * width
    return [
        Work(
            f"threshold sweep, {images} images of {height}×{width}, 2 classes, {len(THRESHOLDS)} thresholds",
            prepare=partial(_inputs, images, height, width),
            baseline=lambda pairs: sweep_naive(pairs, THRESHOLDS, LABELS),
            ours=lambda pairs: sweep(pairs, THRESHOLDS, LABELS),
            limit=0,
            difference=largest_difference,
            floor=lambda: (0.0, pixels * (2 * 4 * len(CLASSES) + 1)),
        )
    ]


def _inputs(images: int, height: int, width: int, device: torch.device) -> list[tuple[SeedMaps, np.ndarray]]:
    draw = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(images):
        maps = {
            scale: torch.rand(2, -(-int(height * scale) // 16), -(-int(width * scale) // 16), generator=draw)
            for scale in (1.0, 0.5, 1.5, 2.0)
        }
        target = torch.tensor([0, 4, 15, 255], dtype=torch.uint8)[torch.randint(0, 4, (height, width), generator=draw)]
        pairs.append((SeedMaps(CLASSES, maps, (height, width)), target.numpy()))
    return pairs
