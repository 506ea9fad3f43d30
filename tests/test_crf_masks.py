"""Dense CRF of a shard: alone, in several processes, and several images together as on a GPU."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.execution import Execution
from wsss_core.kernels import dense_crf
from wsss_core.refine.crf import CrfSettings, crf_mask, crf_masks
from wsss_core.stages import crf_masks as stage
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
def shard(tmp_path: Path) -> dict:
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
    content = {"stage": "refinements/x", "step": "masks", "method": "crf", "seed": 0, "settings": asdict(SETTINGS)}
    (tmp_path / "step.json").write_text(json.dumps(content))
    return {
        "config": tmp_path / "step.json",
        "manifest": tmp_path / "shard.json",
        "maps": tmp_path / "maps.h5",
        "threshold": None,
        "masks": tmp_path / "masks",
        "execution": Execution("cpu"),
    }


def test_processes_write_the_same_files(shard, tmp_path):
    stage.run(**shard)
    stage.run(**shard | {"masks": tmp_path / "again", "execution": Execution("cpu", threads=2)})
    names = sorted(path.name for path in shard["masks"].iterdir())
    assert len(names) == 5 and names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (shard["masks"] / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    for number in range(3):
        mask = read_mask(shard["masks"] / mask_name(f"a/{number}"), SIZES[number], 4)
        assert (mask[8:20, 6:20] == CLASSES[number][0] + 1).mean() > 0.95


def test_stage_refines_images_together(shard, tmp_path, monkeypatch):
    """What a GPU would do, on the CPU: in groups of at most three images of 1200 pixels."""
    stage.run(**shard)
    groups = []
    monkeypatch.setattr(stage, "pixels_together", lambda device: 3 * 1230)
    monkeypatch.setattr(
        stage, "crf_masks", lambda images, *rest: groups.append(len(images)) or crf_masks(images, *rest)
    )
    monkeypatch.setattr(dense_crf, "_has_pydensecrf", lambda: False)
    stage.run(**shard | {"masks": tmp_path / "together"})
    assert groups == [3, 1]
    for number, size in enumerate(SIZES):
        name = mask_name(f"a/{number}")
        assert (read_mask(shard["masks"] / name) == read_mask(tmp_path / "together" / name)).mean() >= 0.999, size


@pytest.mark.parametrize("unary", ["label", "soft"])
def test_masks_of_several_images_are_those_of_each(unary):
    images, maps = examples()
    settings = CrfSettings(unary=unary, bilateral=SETTINGS.bilateral)
    together = crf_masks(images, maps, CLASSES, 0.4, settings)
    for image, found, classes, mask in zip(images, maps, CLASSES, together, strict=True):
        assert mask.dtype == np.uint8 and np.array_equal(mask, crf_mask(image, found, classes, 0.4, settings))
    assert not together[3].any()
