"""Dense CRF of a shard: alone, in several processes, and several images together as on a GPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import make_masks
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.execution import Execution
from wsss_core.kernels import dense_crf
from wsss_core.refine import crf
from wsss_core.refine.crf import CrfSettings, crf_mask, crf_masks
from wsss_core.store import seeds, shards
from wsss_core.store.masks import mask_name, read_mask
from wsss_core.store.seeds import SeedMaps

SETTINGS = CrfSettings(threshold=0.4, bilateral=(30.0, 20.0, 10.0))
SIZES = [(30, 41), (36, 33), (30, 41), (24, 24)]
CLASSES = [(0,), (1, 2), (2,), ()]


def examples():
    """Images with a bright square each, and maps that find part of it."""
    rng = np.random.default_rng(0)
    images, maps = [], []
    for (height, width), classes in zip(SIZES, CLASSES, strict=True):
        image = rng.integers(0, 30, (height, width, 3), dtype=np.uint8)
        image[8:20, 6:20] += 190
        found = torch.from_numpy(rng.random((len(classes), height, width), dtype=np.float32)) * 0.3
        found[:1, 8:19, 7:19] = 1.0
        found[1:, 0, 0] = 1.0
        images.append(image)
        maps.append(found)
    return images, maps


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    records, stored = [], {}
    for number, (image, maps) in enumerate(zip(*examples(), strict=True)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        records.append(ImageRecord(f"a/{number}", str(path), *SIZES[number], ("train",), CLASSES[number]))
        stored[f"a/{number}"] = SeedMaps(CLASSES[number], {1.0: maps} if CLASSES[number] else {}, SIZES[number])
    write_manifest(tmp_path / "shard.json", ("red", "green", "blue"), records)
    attrs = {"class_names": ["red", "green", "blue"]}
    arguments = (dict.fromkeys(stored, "f"), stored.__getitem__, attrs)
    shards.build(tmp_path / "maps.h5", seeds.SEEDS, *arguments, cache=tmp_path / "cache.h5")
    return tmp_path


def make(folder: Path, name: str, **options) -> Path:
    return make_masks(folder, "crf", SETTINGS, name=name, maps=folder / "maps.h5", **options)


def test_processes_write_the_same_files(shard):
    alone, again = make(shard, "alone"), make(shard, "again", execution=Execution("cpu", threads=2))
    names = sorted(path.name for path in alone.iterdir())
    assert len(names) == 5 and names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (alone / name).read_bytes() == (again / name).read_bytes()
    for number in range(3):
        mask = read_mask(alone / mask_name(f"a/{number}"), SIZES[number], 4)
        assert (mask[8:20, 6:20] == CLASSES[number][0] + 1).mean() > 0.95


def test_the_step_refines_images_together(shard, monkeypatch):
    """What a GPU would do, on the CPU: in groups of at most three images of 1200 pixels."""
    alone, maker, groups = make(shard, "alone"), crf.maker, []
    monkeypatch.setattr(crf, "maker", lambda *given: replace(maker(*given), pixels=3 * 1230))
    monkeypatch.setattr(crf, "crf_masks", lambda images, *rest: groups.append(len(images)) or crf_masks(images, *rest))
    monkeypatch.setattr(dense_crf, "_has_pydensecrf", lambda: False)
    together = make(shard, "together")
    assert groups == [3, 1]
    for number, size in enumerate(SIZES):
        name = mask_name(f"a/{number}")
        assert (read_mask(alone / name) == read_mask(together / name)).mean() >= 0.999, size


@pytest.mark.parametrize("unary", ["label", "soft"])
def test_masks_of_several_images_are_those_of_each(unary):
    images, maps = examples()
    settings = CrfSettings(unary=unary, bilateral=SETTINGS.bilateral)
    thresholds = [0.4, 0.2, 0.3, 0.0]
    together = crf_masks(images, maps, CLASSES, thresholds, settings)
    for image, found, classes, threshold, mask in zip(images, maps, CLASSES, thresholds, together, strict=True):
        assert mask.dtype == np.uint8 and np.array_equal(mask, crf_mask(image, found, classes, threshold, settings))
    assert not together[3].any()
