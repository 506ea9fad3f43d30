"""Pixel-adaptive refinement against a plain loop over pixels, and through the step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.scenes import make_masks
from tests.test_crf_masks import shard as shard  # a fixture
from wsss_core.execution import Execution
from wsss_core.kernels.pixel_adaptive import AROUND, affinities, neighbours, refine
from wsss_core.refine.par import ParSettings, par_mask
from wsss_core.store.cut import read_about

DILATIONS = (1, 3)


def by_hand(image: np.ndarray, planes: np.ndarray, iterations: int) -> np.ndarray:
    """The formula, pixel by pixel; neighbours beyond the border are those of the edge."""
    _, height, width = image.shape
    steps = [(d * dy, d * dx) for d in DILATIONS for dy, dx in AROUND]
    distances = np.array([math.hypot(*step) for step in steps])
    near = np.exp(-((distances / (distances.std(ddof=1) + 1e-8) / 0.3) ** 2))
    near /= near.sum()
    for _ in range(iterations):
        made = np.zeros_like(planes)
        for y in range(height):
            for x in range(width):
                around = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in steps]
                colours = np.array([image[:, a, b] for a, b in around])
                spread = colours.std(0, ddof=1) + 1e-8
                alike = -(((colours - image[:, y, x]) / spread / 0.3) ** 2).mean(1)
                weights = np.exp(alike - alike.max())
                weights = weights / weights.sum() + 0.01 * near
                made[:, y, x] = sum(w * planes[:, a, b] for w, (a, b) in zip(weights, around, strict=True))
        planes = made
    return planes


def test_it_is_the_plain_loop():
    draw = np.random.default_rng(0)
    image, planes = draw.integers(0, 256, (3, 7, 9)).astype(float), draw.random((2, 7, 9))
    weights = affinities(torch.from_numpy(image), DILATIONS)
    assert weights.shape == (16, 7, 9)
    torch.testing.assert_close(weights.sum(0), torch.full((7, 9), 1.01, dtype=torch.float64))
    found = refine(torch.from_numpy(planes), weights, DILATIONS, 3)
    np.testing.assert_allclose(found.numpy(), by_hand(image, planes, 3), rtol=1e-9)


def test_neighbours_are_those_around_a_pixel():
    planes = torch.arange(30.0).reshape(1, 5, 6)
    found = [int(near[0, 2, 3]) for near in neighbours(planes, (1, 2))]
    assert found == [8, 9, 10, 14, 16, 20, 21, 22, 1, 3, 5, 13, 17, 25, 27, 29]
    assert [int(near[0, 0, 0]) for near in neighbours(planes, (2,))] == [0, 0, 2, 0, 2, 12, 12, 14]


@pytest.mark.parametrize("shrink", [1, 2, 3])
def test_labels_end_where_colours_do(shrink):
    image = np.full((45, 60, 3), 40, np.uint8)
    image[12:33, 15:42] = (200, 60, 60)
    maps = torch.zeros(2, 45, 60)
    maps[0, 17:36, 20:45] = 0.9
    maps[1, :3, :3] = 0.4
    mask = par_mask(image, maps, [4, 7], 0.3, ParSettings(shrink=shrink, iterations=20))
    inside = np.zeros((45, 60), bool)
    inside[12:33, 15:42] = True
    started = maps[0].numpy() > 0.3
    agree = [np.logical_and(a, inside).sum() / np.logical_or(a, inside).sum() for a in (started, mask == 5)]
    assert agree[1] > agree[0] + 0.1


def test_without_classes_or_without_iterations():
    image = np.zeros((9, 8, 3), np.uint8)
    assert not par_mask(image, torch.zeros(0, 9, 8), [], 0.3, ParSettings()).any()
    maps = torch.rand(1, 9, 8, generator=torch.Generator().manual_seed(0))
    mask = par_mask(image, maps, [2], 0.5, ParSettings(iterations=0, shrink=1))
    assert np.array_equal(mask == 3, maps[0].numpy() > 0.5)


def test_the_step_writes_the_same_masks_by_one_process_and_by_two(shard):
    written = [
        make_masks(shard, "par", ParSettings(threshold="otsu"), name=name, maps=shard / "maps.h5", execution=execution)
        for name, execution in (("alone", Execution("cpu")), ("together", Execution("cpu", threads=2)))
    ]
    names = sorted(path.name for path in written[0].iterdir())
    assert len(names) == 5
    assert all((written[0] / name).read_bytes() == (written[1] / name).read_bytes() for name in names)
    assert read_about(written[0]).notes == ("pixel-adaptive refinement (10 iterations)",)
