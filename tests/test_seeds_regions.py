"""Regions: maps averaged within segments of the photo, against plain loops, and the step on files."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.segmentation import felzenszwalb

from tests.scenes import write_scene, write_step
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.seeds.regions import STEPS, RegionsSettings, refined, segmentations, within_regions
from wsss_core.steps import maps_from_maps
from wsss_core.store.seeds import SeedMaps, SeedStore

CPU = Execution(device="cpu")


def photo(height=40, width=56, seed=0):
    """Noise with a bright rectangle."""
    pixels = np.random.default_rng(seed).integers(0, 4, (height, width, 3), dtype=np.uint8)
    pixels[8:30, 10:40] += 200
    return pixels


def test_a_map_is_averaged_as_in_a_loop():
    rng = np.random.default_rng(1)
    maps = torch.from_numpy(rng.random((2, 9, 11), dtype=np.float32))
    numbers = [rng.integers(0, 4, (9, 11)), rng.integers(0, 2, (9, 11))]
    found = within_regions(maps, numbers)
    for one, result in zip(maps.double().numpy(), found.numpy(), strict=True):
        planes = [one]
        for regions in numbers:
            plane = np.zeros_like(one)
            for number in np.unique(regions):
                plane[regions == number] = one[regions == number].mean()
            planes.append(plane)
        total = sum(planes)
        np.testing.assert_allclose(result, total / (total.max() + 1e-5), rtol=1e-5)
    assert found.dtype == torch.float32


def test_an_object_that_a_map_touches_is_filled_and_not_left():
    image = photo()
    seed = torch.zeros(1, 40, 56)
    seed[:, 15:20, 15:25] = 1.0
    found = refined(image, SeedMaps((3,), {1.0: seed}, (40, 56)), RegionsSettings()).full()[0]
    inside, outside = found[10:28, 12:38], torch.cat([found[:6].flatten(), found[33:].flatten()])
    assert inside.min() > 0.05 and outside.max() < 0.02
    assert found.shape == (40, 56) and 0.99 < found.max() <= 1


def test_reading_the_maps_changes_nothing():
    """They are stored at the size that `full` resizes to."""
    maps = SeedMaps((0, 2), {1.0: torch.rand(2, 5, 7), 0.5: torch.rand(2, 3, 4)}, (37, 51))
    image = photo(37, 51)
    found = refined(image, maps, RegionsSettings())
    assert found.classes == (0, 2) and found.maps[1.0].shape == (2, 48, 64)
    expected = within_regions(maps.full(), segmentations(image, RegionsSettings()))
    torch.testing.assert_close(found.full(), expected, atol=0.6 / STEPS, rtol=0)


def test_scales_are_multiples_of_the_longer_side():
    found = segmentations(photo(40, 56), RegionsSettings(scales=(0.5, 2.0), smallest=0.01))
    for numbers, scale in zip(found, (28, 112), strict=True):
        expected = felzenszwalb(photo(40, 56), scale=scale, sigma=0.8, min_size=22, channel_axis=-1)
        assert np.array_equal(numbers, expected)
    turned = segmentations(photo(56, 40), RegionsSettings(scales=(0.5,)))[0]
    assert turned.shape == (56, 40)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_even_maps_stay_even(value):
    maps = SeedMaps((1,), {1.0: torch.full((1, 3, 4), value)}, (40, 56))
    found = refined(photo(), maps, RegionsSettings()).full()
    assert torch.isfinite(found).all() and float(found.max() - found.min()) < 1e-6


@pytest.fixture
def scene(tmp_path):
    """Three images, the last without a class, and maps of them."""
    records, maps = [], {}
    for k, classes in enumerate([(0,), (0, 1), ()]):
        path = tmp_path / f"{k}.png"
        Image.fromarray(photo(seed=k)).save(path)
        records.append(ImageRecord(f"a/{k}", str(path), 40, 56, ("train",), classes, digest=str(k)))
        maps[f"a/{k}"] = SeedMaps(classes, {1.0: torch.rand(len(classes), 3, 4)} if classes else {}, (40, 56))
    write_scene(tmp_path, ("round", "long"), records, maps)
    return tmp_path, maps


def run(folder, settings=None, **changes):
    arguments = {
        "config": write_step(
            folder / "step.json", "seeds/x", "regions", "maps_from_maps", settings or RegionsSettings()
        ),
        "manifest": folder / "shard.json",
        "start": folder / "seeds.h5",
        "maps": folder / "regions.h5",
        "cache": folder / "regions.cache.h5",
        "execution": CPU,
    }
    maps_from_maps.run(**arguments | changes)
    return SeedStore(folder / "regions.h5")


def test_the_step_refines_every_image(scene):
    folder, maps = scene
    store = run(folder)
    assert list(store) == list(maps) and store.attrs["class_names"] == ["round", "long"]
    for name, before in maps.items():
        assert store[name].classes == before.classes and store[name].size == before.size
    expected = refined(photo(seed=1), maps["a/1"], RegionsSettings())
    assert torch.equal(store["a/1"].maps[1.0], expected.maps[1.0])


def test_the_step_reuses_what_did_not_change(scene, caplog):
    folder, _ = scene
    run(folder)
    with caplog.at_level("INFO"):
        run(folder)
    assert "3 records, 3 reused" in caplog.text
    with caplog.at_level("INFO"):
        run(folder, RegionsSettings(sigma=0.5))
    assert "3 records, 0 reused" in caplog.text


def test_a_photo_that_changed_its_size_is_named(scene):
    folder, _ = scene
    Image.fromarray(photo(40, 60)).save(folder / "0.png")
    with pytest.raises(UserError, match=r"image 'a/0' is \(40, 60\), its maps are for \(40, 56\)"):
        run(folder)
