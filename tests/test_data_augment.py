"""Resizing, colours, normalising, flipping and cropping."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import augment
from wsss_core.keyed import generator

IMAGE = generator(0, "augment").integers(0, 256, (37, 53, 3), dtype=np.uint8)
LABELS = generator(1, "augment").integers(0, 21, (37, 53), dtype=np.uint8)


def test_resize_is_pillows_bicubic():
    expected = np.asarray(Image.fromarray(IMAGE).resize((80, 50), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(augment.resize(IMAGE, (50, 80)), expected)


def test_resize_to_the_same_size_is_untouched():
    assert augment.resize(IMAGE, (37, 53)) is IMAGE
    assert augment.resize_labels(LABELS, (37, 53)) is LABELS


def test_labels_are_never_mixed():
    assert set(np.unique(augment.resize_labels(LABELS, (90, 31)))) <= set(np.unique(LABELS))


def test_nearest_takes_the_third_of_four_pixels():
    rows = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 16, axis=1)
    np.testing.assert_array_equal(augment.resize_labels(rows, (4, 4))[:, 0], [2, 6, 10, 14])


@pytest.mark.parametrize(("size", "scale", "expected"), [((375, 500), 0.5, (188, 250)), ((5, 7), 0.5, (2, 4))])
def test_sizes_round_half_to_even(size, scale, expected):
    assert augment.scaled_size(size, scale) == expected


def test_resize_long_reaches_both_ends():
    sides = {max(augment.random_resize_long(IMAGE, 20, 22, generator(0, i)).shape) for i in range(60)}
    assert sides == {20, 21, 22}


def test_resize_long_keeps_the_shape():
    result = augment.random_resize_long(IMAGE, 106, 106, generator(0))
    assert result.shape == (74, 106, 3)


def test_rescale_keeps_image_and_labels_together():
    image, labels = augment.random_rescale(IMAGE, LABELS, 0.5, 1.5, generator(3))
    assert image.shape[:2] == labels.shape
    assert augment.random_rescale(IMAGE, None, 0.5, 1.5, generator(3))[1] is None


def grey(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])


BLENDS = [
    lambda image, factor: image * factor,
    lambda image, factor: grey(image).mean() + factor * (image - grey(image).mean()),
    lambda image, factor: grey(image)[..., None] + factor * (image - grey(image)[..., None]),
]


@pytest.mark.parametrize("kind", range(3))
def test_colour_jitter_blends(kind):
    """One kind of change at a time; its amount is the draw of its place."""
    ranges = [0.0, 0.0, 0.0, 0.0]
    ranges[kind] = 0.9
    factors = []
    for i in range(20):
        factor = 1 + 0.9 * (2 * generator(0, "jitter", i).random(4)[kind] - 1)
        changed = augment.random_colour_jitter(IMAGE, ranges, generator(0, "jitter", i))
        assert changed.dtype == np.uint8
        expected = np.clip(BLENDS[kind](IMAGE.astype(float), factor), 0, 255)
        assert np.abs(changed - expected).max() < 3
        factors.append(factor)
    assert min(factors) < 0.4 and max(factors) > 1.6


def test_colour_jitter_turns_the_hue():
    for i in range(20):
        shift = 0.5 * (2 * generator(0, "hue", i).random(4)[3] - 1)
        changed = augment.random_colour_jitter(IMAGE, (0.0, 0.0, 0.0, 0.5), generator(0, "hue", i))
        for before, after in zip(IMAGE[0] / 255, changed[0], strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*before)
            expected = np.multiply(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value), 255)
            assert np.abs(after - expected).max() < 16  # hue and saturation have eight bits


def test_colour_jitter_depends_on_its_key_alone():
    ranges = (0.3, 0.3, 0.3, 0.1)
    before = IMAGE.copy()
    one, two = (augment.random_colour_jitter(IMAGE, ranges, generator(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(IMAGE, before)
    assert not np.array_equal(one, augment.random_colour_jitter(IMAGE, ranges, generator(8)))
    np.testing.assert_array_equal(augment.random_colour_jitter(IMAGE, (0.0,) * 4, generator(7)), IMAGE)
    after = set()
    for image, spread in ((IMAGE, ranges), (IMAGE[:5, :9], (0.0,) * 4)):
        rng = generator(9)
        augment.random_colour_jitter(image, spread, rng)
        after.add(float(rng.random()))
    assert len(after) == 1


def test_normalise_is_float64_arithmetic_stored_as_float32():
    expected = ((IMAGE / 255.0 - augment.MEAN) / augment.STD).astype(np.float32).transpose(2, 0, 1)
    result = augment.normalise(IMAGE)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected)


def test_flip_mirrors_both_half_of_the_time():
    flipped = 0
    for i in range(200):
        image, labels = augment.random_flip(augment.normalise(IMAGE), LABELS, generator(0, "flip", i))
        if not np.array_equal(labels, LABELS):
            flipped += 1
            np.testing.assert_array_equal(labels, LABELS[:, ::-1])
            np.testing.assert_array_equal(image, augment.normalise(IMAGE[:, ::-1]))
    assert 75 < flipped < 125


def test_crop_of_a_larger_image_is_a_window_of_it():
    image = np.arange(3 * 40 * 50, dtype=np.float32).reshape(3, 40, 50)
    labels = (np.arange(40 * 50) % 251).reshape(40, 50).astype(np.uint8)
    crop, cropped = augment.random_crop(image, labels, 16, generator(0))
    y, x = divmod(int(crop[0, 0, 0]), 50)
    np.testing.assert_array_equal(crop, image[:, y : y + 16, x : x + 16])
    np.testing.assert_array_equal(cropped, labels[y : y + 16, x : x + 16])


def test_crop_of_a_smaller_image_places_it_at_random():
    image, labels = np.ones((3, 5, 40), dtype=np.float32), np.full((5, 40), 7, dtype=np.uint8)
    offsets = set()
    for i in range(80):
        crop, cropped = augment.random_crop(image, labels, 8, generator(0, "crop", i))
        assert crop.shape == (3, 8, 8) and cropped.shape == (8, 8)
        rows = np.flatnonzero(crop[0, :, 0])
        assert len(rows) == 5
        np.testing.assert_array_equal(np.unique(np.delete(cropped, rows, axis=0)), [255])
        assert not np.delete(crop, rows, axis=1).any()
        offsets.add(int(rows[0]))
    assert offsets == {0, 1, 2, 3}


def test_top_left_crop():
    image = augment.normalise(IMAGE)
    crop, labels = augment.top_left_crop(image, LABELS, 45)
    np.testing.assert_array_equal(crop[:, :37], image[:, :, :45])
    assert not crop[:, 37:].any() and (labels[37:] == 255).all()


def test_scaled_pair():
    pair = augment.scaled_pair(IMAGE, 0.5)
    assert pair.shape == (2, 3, 18, 26) and pair.dtype == np.float32
    np.testing.assert_array_equal(pair[1], pair[0][..., ::-1])
    np.testing.assert_array_equal(augment.scaled_pair(IMAGE, 1.0)[0], augment.normalise(IMAGE))
