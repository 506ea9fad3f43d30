"""Class activation maps: against the published implementation, and as the step writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference_networks import reference_resnet50
from tests.scenes import write_classifier, write_step
from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs import together
from wsss_core.models import cam_network
from wsss_core.seeds import cam
from wsss_core.seeds.cam import CamSettings, cam_seed, cam_seeds, flip_sum
from wsss_core.steps import maps as maps_step
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


def pictures(count, height=40, width=52):
    return list(np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("pixels", [0, 2 * 2 * 40 * 52, 10**9])
def test_images_together_have_the_maps_of_each_alone(pixels):
    """Whether a forward pass holds one image, two at scale 1 and eight at scale 0.5, or all."""
    torch.manual_seed(0)
    network = cam_network("small", 4).eval()
    images, classes = pictures(5), [(3, 1), (0,), (2,), (0, 1, 2), (3,)]
    settings = CamSettings(scales=(1.0, 0.5))
    together = cam_seeds(network, images, classes, settings, pixels)
    for image, present, maps in zip(images, classes, together, strict=True):
        alone = cam_seed(network, image, present, settings)
        assert maps.classes == present and maps.size == (40, 52) and list(maps.maps) == [1.0, 0.5]
        for scale, expected in alone.maps.items():
            assert (maps.maps[scale] - expected).abs().max() <= 1e-5
    first = cam_seeds(network, images[:1], classes[:1], settings, pixels)[0]
    for scale, expected in cam_seed(network, images[0], classes[0], settings).maps.items():
        assert torch.equal(first.maps[scale], expected)


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
    return {
        "config": write_step(tmp_path / "step.json", "seeds/cam", "cam", "maps", {"scales": [1.0, 0.5]}, seed=3),
        "classifier": write_classifier(tmp_path / "model.pt", cam_network("small", 2), table.class_names),
        "health": None,
        "manifest": tmp_path / "shard.json",
        "table": tmp_path / "images.csv",
        "maps": tmp_path / "maps.h5",
        "cache": tmp_path / "cache.h5",
        "execution": Execution("cpu"),
    }


def test_step_writes_every_image_with_what_made_it(shard):
    maps_step.run(**shard)
    store = SeedStore(shard["maps"])
    assert list(store) == ["a/0", "a/1", "a/2"]
    assert [store[i].classes for i in store] == [(0,), (), (0, 1)]
    assert store["a/1"].full().shape == (0, 40, 48)
    assert {s: tuple(m.shape) for s, m in store["a/2"].maps.items()} == {1.0: (2, 3, 3), 0.5: (2, 2, 2)}
    assert store.attrs["method"] == "cam" and store.attrs["seed"] == 3
    assert store.attrs["class_names"] == ["red", "blue"] and store.attrs["versions"]["torch"] == torch.__version__


def test_step_keeps_what_did_not_change(shard, monkeypatch):
    maps_step.run(**shard)
    first = {i: record.maps for i, record in SeedStore(shard["maps"]).items()}
    monkeypatch.setattr(maps_step, "read_record", lambda record: pytest.fail(f"read {record.id} again"))
    maps_step.run(**shard)
    for image_id, record in SeedStore(shard["maps"]).items():
        assert all(torch.equal(record.maps[scale], maps) for scale, maps in first[image_id].items())


def test_step_names_the_image_it_cannot_read(shard, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="image 'a/2': .*2.png"):
        maps_step.run(**shard)
    assert not shard["maps"].exists()


def test_step_refuses_a_classifier_for_other_classes(shard):
    write_classifier(shard["classifier"], cam_network("small", 2), ["blue", "red"])
    with pytest.raises(UserError, match="model.pt: its class list differs"):
        maps_step.run(**shard)


@pytest.fixture
def crowd(shard, tmp_path: Path) -> dict:
    """Seven tagged images of two sizes and an untagged one, in place of the three of `shard`."""
    records = []
    for number in range(8):
        size = (32, 40) if number in (2, 5) else (40, 48)
        path = tmp_path / f"crowd{number}.png"
        Image.fromarray(pictures(8, *size)[number]).save(path)
        classes = () if number == 3 else ((0,), (1,), (0, 1))[number % 3]
        records.append(ImageRecord(f"b/{number}", str(path), *size, ("train",), classes, digest=str(number)))
    write_manifest(shard["manifest"], ("red", "blue"), records)
    return shard


def as_on_a_gpu(monkeypatch) -> list[list[str]]:
    """Let the step batch as on a GPU, three images of 40x48 at most; what the method is then called with."""
    called, make = [], cam.batch_maker

    def watched(settings, inputs):
        assert inputs.pixels == 3 * 40 * 48
        together = make(settings, inputs)
        return lambda records, images: called.append([r.id for r in records]) or together(records, images)

    monkeypatch.setattr(maps_step, "view_pixels", lambda device: 3 * 40 * 48)
    monkeypatch.setattr(cam, "batch_maker", watched)
    return called


def test_step_on_a_cpu_takes_one_image_at_a_time(crowd, monkeypatch):
    monkeypatch.setattr(cam, "batch_maker", lambda *_: pytest.fail("batched on a CPU"))
    maps_step.run(**crowd)
    assert together.view_pixels(torch.device("cpu")) == 0
    assert list(SeedStore(crowd["maps"])) == [f"b/{number}" for number in range(8)]


def test_step_in_batches_writes_the_same_maps_in_the_same_order(crowd, tmp_path, monkeypatch):
    maps_step.run(**crowd)
    called = as_on_a_gpu(monkeypatch)
    maps_step.run(**crowd | {"maps": tmp_path / "batched.h5", "cache": tmp_path / "batched.cache"})
    assert called == [["b/0", "b/1", "b/4"], ["b/6", "b/7"], ["b/2", "b/5"]]
    alone, batched = SeedStore(crowd["maps"]), SeedStore(tmp_path / "batched.h5")
    assert list(batched) == list(alone) and batched.attrs == alone.attrs
    for image_id, record in alone.items():
        assert record.classes == batched[image_id].classes and record.size == batched[image_id].size
        for scale, maps in record.maps.items():
            assert (maps - batched[image_id].maps[scale]).abs().max() <= 1e-5


def test_step_in_batches_computes_only_what_changed(crowd, monkeypatch):
    called = as_on_a_gpu(monkeypatch)
    maps_step.run(**crowd)
    called.clear()
    content = json.loads(crowd["manifest"].read_text())
    for number in (1, 5, 7):
        content["images"][number]["digest"] = "changed"
    crowd["manifest"].write_text(json.dumps(content))
    maps_step.run(**crowd)
    assert called == [["b/1", "b/7"], ["b/5"]]


def test_images_are_decoded_ahead_and_no_further():
    records = [ImageRecord(str(i), f"{i}.png", 4, 4, ("train",), (0,)) for i in range(20)]
    started = []

    def read(record):
        started.append(record.id)
        if record.id == "17":
            raise UserError("17.png: broken")
        return np.full((4, 4, 3), int(record.id), np.uint8)

    groups = together.read_ahead([[record] for record in records], read, threads=2)
    for number in range(17):
        (record,), (image,) = next(groups)
        assert record.id == str(number) and (image == number).all()
        assert len(started) <= number + 1 + together.AHEAD
    with pytest.raises(UserError, match="17.png"):
        next(groups)
    groups = [records[:9], records[9:10], records[10:16]]
    sizes = [len(group) for group, _ in together.read_ahead(groups, read)]
    assert sizes == [9, 1, 6]
    assert list(together.read_ahead([], read)) == []
