"""What is computed of images on a GPU is what Pillow and numpy make of them, to the byte."""

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.data.augment import normalise, resize, scaled_pair
from wsss_core.data.resampling import normalised, pairs, resized, sent, views

CPU = torch.device("cpu")


def picture(kind: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "black and white":  # where the filter overshoots both ends of the range
        return (255 * rng.integers(0, 2, (height, width, 3))).astype(np.uint8)
    ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return ramp.astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "black and white", "ramp"])
def test_every_size_is_pillows(kind):
    rng = np.random.default_rng(1)
    sizes = [tuple(map(int, rng.integers(1, 120, 4))) for _ in range(60)] + [(1, 1, 7, 5), (30, 40, 1, 1), (9, 8, 9, 8)]
    for number, (height, width, *wanted) in enumerate(sizes):
        image = picture(kind, height, width, number)
        found = resized(torch.from_numpy(image).permute(2, 0, 1), tuple(wanted)).permute(1, 2, 0)
        np.testing.assert_array_equal(found.numpy(), resize(image, tuple(wanted)))


@pytest.mark.parametrize(("height", "width"), [(300, 60), (60, 300), (128, 128)])
def test_the_width_is_resized_first_whatever_the_version_of_pillow(height, width):
    image = picture("black and white", height, width)
    size = height // 3, width // 2
    wide = Image.fromarray(image).resize((size[1], height), Image.Resampling.BICUBIC)
    expected = np.array(wide.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize(image, size), expected)


def test_levels_are_normalised_to_the_same_bits():
    images = np.stack([picture("noise", 20, 30, seed) for seed in range(2)])
    expected = np.stack([normalise(image) for image in images])
    assert torch.equal(normalised(sent(list(images), CPU)), torch.from_numpy(expected))


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.5])
def test_views_are_the_same_made_here_and_there(scale):
    images = [picture("noise", 41, 54, seed) for seed in range(3)]
    expected = torch.from_numpy(np.concatenate([scaled_pair(image, scale) for image in images]))
    assert torch.equal(views(images, scale, CPU), expected)
    assert torch.equal(pairs(sent(images, CPU), scale), expected)
