"""Masks straight from seed maps."""

import json

import pytest
import torch

from tests.scenes import make_masks
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.errors import UserError
from wsss_core.refine.seed_threshold import SeedThresholdSettings
from wsss_core.store import seeds, shards
from wsss_core.store.cut import Cut, read_about
from wsss_core.store.masks import mask_name, read_mask
from wsss_core.store.seeds import SeedMaps

CLASSES = ("round", "long")


@pytest.fixture
def folder(tmp_path):
    """An image of class 1, whose seed rises from left to right in steps of 0.1, and one without a class."""
    ramp = torch.linspace(0.1, 1.0, 10).repeat_interleave(16).expand(1, 16, 160)
    maps = {"a": SeedMaps((1,), {1.0: ramp}, (16, 160)), "b": SeedMaps((), {}, (16, 160))}
    records = [ImageRecord(name, f"{name}.png", 16, 160, ("train",), m.classes) for name, m in maps.items()]
    write_manifest(tmp_path / "shard.json", CLASSES, records)
    shards.build(
        tmp_path / "seeds.h5",
        seeds.SEEDS,
        dict.fromkeys(maps, "f"),
        maps.__getitem__,
        {"class_names": list(CLASSES)},
        cache=tmp_path / "cache.h5",
    )
    return tmp_path


def run(folder, settings, chosen=None):
    """Labels of the image with a class, one per step of its seed."""
    threshold = folder / "threshold.json"
    threshold.write_text(json.dumps(chosen))
    given = {"maps": folder / "seeds.h5"} | ({"threshold": threshold} if chosen else {})
    make_masks(folder, "seed_threshold", settings, **given)
    assert not read_mask(folder / "masks" / mask_name("b")).any()
    mask = read_mask(folder / "masks" / mask_name("a"), (16, 160), 3)
    assert (mask == mask[0]).all()
    return mask[0, 8::16].tolist()


def test_thresholds(folder):
    assert run(folder, SeedThresholdSettings(threshold=0.45)) == [0] * 4 + [2] * 6
    chosen = {"rule": "fixed", "value": 0.25, "oracle": {"value": 0.75, "miou": 0.5}}
    assert run(folder, SeedThresholdSettings(), chosen) == [0] * 2 + [2] * 8
    assert read_about(folder / "masks") == Cut("fixed", 0.25, from_maps=True)
    assert run(folder, SeedThresholdSettings(threshold="oracle"), chosen) == [0] * 7 + [2] * 3


def test_a_band_leaves_pixels_undecided(folder):
    assert run(folder, SeedThresholdSettings(band=(0.25, 0.65))) == [0] * 2 + [255] * 4 + [2] * 4
    assert read_about(folder / "masks") == Cut("band", band=(0.25, 0.65))


def test_mistakes(folder):
    with pytest.raises(UserError, match="no threshold file was given"):
        run(folder, SeedThresholdSettings())
