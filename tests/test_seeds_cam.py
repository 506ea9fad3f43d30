"""Class activation maps: against the published implementation, and as the stage writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference_networks import reference_resnet50

from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.seeds.cam import CamSettings, cam_seed, flip_sum
from wsss_core.stages import seed
from wsss_core.store.checkpoints import save_network
from wsss_core.store.seeds import SeedStore

REFERENCE_SCALES = (1.0, 0.5, 1.5, 2.0)


def test_maps_equal_the_published_ones(shared):
    vectors = np.load(shared / "reference" / "cam.npz")
    network = reference_resnet50(shared, int(vectors["weight_seed"]))
    maps = cam_seed(network, vectors["image"], vectors["classes"].tolist(), CamSettings())
    for scale in REFERENCE_SCALES:
        np.testing.assert_allclose(maps.maps[scale], vectors[f"scale_{scale}"], atol=5e-6)
    np.testing.assert_allclose(maps.strided(), vectors["cam"], atol=5e-6)
    np.testing.assert_allclose(maps.full(), vectors["high_res"], atol=5e-6)


def test_a_map_is_the_sum_of_both_views():
    torch.manual_seed(0)
    network = cam_network("small", 4).eval()
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    maps = cam_seed(network, image, [3, 1], CamSettings(scales=(1.0, 0.5)))
    with torch.no_grad():
        views = network.maps(torch.from_numpy(scaled_pair(image, 0.5))).relu()
    torch.testing.assert_close(maps.maps[0.5], (views[0] + views[1].flip(-1))[[3, 1]])
    assert maps.classes == (3, 1) and maps.size == (50, 70)
    mirrored = cam_seed(network, image[:, ::-1].copy(), [3, 1], CamSettings(scales=(1.0,)))
    torch.testing.assert_close(mirrored.maps[1.0], maps.maps[1.0].flip(-1), atol=1e-5, rtol=1e-4)


def test_flip_sum_drops_negative_logits_before_adding():
    maps = torch.tensor([[[[1.0, -2.0]]], [[[3.0, -5.0]]]])
    assert flip_sum(maps).tolist() == [[[1.0, 3.0]]]


@pytest.fixture
def shard(tmp_path: Path) -> dict:
    """Two tagged images and an untagged one, and a classifier."""
    rng, records = np.random.default_rng(0), []
    for number, classes in enumerate([(0,), (), (0, 1)]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
        records.append(ImageRecord(f"a/{number}", str(path), 40, 48, ("train",), classes, digest=str(number)))
    table = ImageTable(("red", "blue"), tuple(records))
    write_table(tmp_path / "images.csv", table)
    write_manifest(tmp_path / "shard.json", table.class_names, table.records)
    torch.manual_seed(0)
    meta = {"backbone": "small", "class_names": ["red", "blue"], "architecture": "cam", "architecture_settings": {}}
    save_network(tmp_path / "model.pt", "classifier", cam_network("small", 2).state_dict(), meta)
    content = {"stage": "seeds/cam", "method": "cam", "seed": 3, "settings": {"scales": [1.0, 0.5]}}
    (tmp_path / "step.json").write_text(json.dumps(content))
    return {
        "config": tmp_path / "step.json",
        "classifier": tmp_path / "model.pt",
        "manifest": tmp_path / "shard.json",
        "table": tmp_path / "images.csv",
        "maps": tmp_path / "maps.h5",
        "cache": tmp_path / "cache.h5",
        "execution": Execution("cpu"),
    }


def test_stage_writes_every_image_with_what_made_it(shard):
    seed.run(**shard)
    store = SeedStore(shard["maps"])
    assert list(store) == ["a/0", "a/1", "a/2"]
    assert [store[i].classes for i in store] == [(0,), (), (0, 1)]
    assert store["a/1"].full().shape == (0, 40, 48)
    assert {s: tuple(m.shape) for s, m in store["a/2"].maps.items()} == {1.0: (2, 3, 3), 0.5: (2, 2, 2)}
    assert store.attrs["method"] == "cam" and store.attrs["seed"] == 3
    assert store.attrs["class_names"] == ["red", "blue"] and store.attrs["versions"]["torch"] == torch.__version__


def test_stage_keeps_what_did_not_change(shard, monkeypatch):
    seed.run(**shard)
    first = {i: record.maps for i, record in SeedStore(shard["maps"]).items()}
    monkeypatch.setattr("wsss_core.stages.seed.read_record", lambda record: pytest.fail(f"read {record.id} again"))
    seed.run(**shard)
    for image_id, record in SeedStore(shard["maps"]).items():
        assert all(torch.equal(record.maps[scale], maps) for scale, maps in first[image_id].items())


def test_stage_names_the_image_it_cannot_read(shard, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="image 'a/2': .*2.png"):
        seed.run(**shard)
    assert not shard["maps"].exists()


def test_stage_refuses_a_classifier_for_other_classes(shard):
    meta = {"backbone": "small", "class_names": ["blue", "red"], "architecture": "cam", "architecture_settings": {}}
    save_network(shard["classifier"], "classifier", cam_network("small", 2).state_dict(), meta)
    with pytest.raises(UserError, match="model.pt: its class list differs"):
        seed.run(**shard)
