"""File formats: whole or absent, checked on reading, resumable."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.describe import describe
from wsss_core.errors import UserError
from wsss_core.models import cam_network
from wsss_core.store import sealed, shards
from wsss_core.store.atomic import atomic_folder, atomic_path
from wsss_core.store.labels import LABELS, LabelMap
from wsss_core.store.masks import mask_name, read_mask, voc_palette, write_mask
from wsss_core.store.seeds import SEEDS, SeedMaps, SeedStore
from wsss_core.store.shards import RecordKind, RecordStore


def seed_maps(value: float = 1.0) -> SeedMaps:
    maps = {1.0: torch.full((2, 2, 3), value), 0.5: torch.arange(4.0).reshape(2, 1, 2)}
    return SeedMaps(classes=(3, 7), maps=maps, size=(20, 40), statistics={"stop": "steps", "logit": [1.0, 2.5]})


def write(path: Path, fingerprints: dict[str, str], compute, cache: Path) -> int:
    return shards.build(path, SEEDS, fingerprints, compute, {"method": "cam"}, cache=cache)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_folder_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert [p.name for p in folder.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [folder]


def test_seed_store_round_trip(tmp_path):
    ids = ["2007_000032", "a/b c.jpg", "ü"]
    write(tmp_path / "s.h5", dict.fromkeys(ids, "f"), lambda _: seed_maps(), tmp_path / "cache.h5")
    store = SeedStore(tmp_path / "s.h5")
    assert list(store) == ids and store.attrs == {"method": "cam"}
    loaded = store["a/b c.jpg"]
    assert loaded.classes == (3, 7) and loaded.size == (20, 40)
    assert loaded.statistics == {"stop": "steps", "logit": [1.0, 2.5]}
    for scale, maps in seed_maps().maps.items():
        assert torch.equal(loaded.maps[scale], maps)
    with pytest.raises(KeyError):
        store["other"]


def test_label_maps_round_trip(tmp_path):
    maps = {"a": np.array([[0, 1, 255], [20, 2, 0]], np.uint8), "b/c": np.zeros((1, 4), np.uint8)}
    digests, records = {"a": "1", "b/c": "2"}, {image_id: LabelMap(values) for image_id, values in maps.items()}
    shards.build(tmp_path / "l.h5", LABELS, digests, records.get, {"class_names": ["x"]}, cache=tmp_path / "cache.h5")
    store = RecordStore(tmp_path / "l.h5", LABELS)
    for image_id, values in maps.items():
        assert np.array_equal(store[image_id].values, values) and store[image_id].values.dtype == np.uint8
        assert store[image_id].size == values.shape and store.fingerprint(image_id) == digests[image_id]
    assert "a: 3x2, labels [0, 1, 2, 20, 255]" in describe(tmp_path / "l.h5").splitlines()
    whole = (tmp_path / "l.h5").read_bytes()
    shards.build(tmp_path / "l.h5", LABELS, digests, {}.get, {"class_names": ["x"]}, cache=tmp_path / "cache.h5")
    assert (tmp_path / "l.h5").read_bytes() == whole


def test_label_maps_of_another_type_are_refused(tmp_path):
    """HDF5 would keep them as they are, and 300 is no label."""
    wide = LabelMap(np.full((2, 2), 300))
    with pytest.raises(ValueError, match="labels must be uint8, got int64"):
        shards.build(tmp_path / "l.h5", LABELS, {"a": "1"}, lambda _: wide, {}, cache=tmp_path / "cache.h5")


def test_seed_maps_sizes_and_normalisation():
    maps = seed_maps()
    assert maps.strided().shape == (2, 5, 10)
    assert maps.full().shape == (2, 20, 40)
    constant = SeedMaps(classes=(0,), maps={1.0: torch.full((1, 2, 3), 4.0)}, size=(17, 33))
    expected = torch.full((1, 17, 33), 4.0 / (4.0 + 1e-5))
    assert torch.allclose(constant.full(), expected)


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("size", [(375, 500), (121, 90), (64, 128)])
def test_maps_lie_where_their_cells_are(stride, size):
    """A ramp along each axis, averaged over cells, comes back as that ramp, at full resolution and at stride 4."""
    covered = [-(-side // stride) * stride for side in size]
    for axis in (0, 1):
        ramp = torch.arange(covered[axis], dtype=torch.float32)
        shape = (1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1)
        cells = torch.nn.functional.avg_pool2d(ramp.reshape(shape).expand(1, 1, *covered), stride)[0]
        maps = SeedMaps((0,), {1.0: cells}, size, stride=stride)
        full = maps.full()[0].select(1 - axis, 0) * cells.max()
        inner = slice(stride, size[axis] - stride)
        expected = ramp[: size[axis]] * float((full[inner] / ramp[: size[axis]][inner]).mean())
        torch.testing.assert_close(full[inner], expected[inner], rtol=0, atol=0.02 * stride)
        if stride != 16:  # there the published code's size is kept, which is a little off
            strided = maps.strided()[0].select(1 - axis, 0)
            steps = strided[stride // 2 : -stride // 2].diff()
            torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=0.01, atol=1e-6)


def test_the_stride_of_maps_is_stored(tmp_path):
    maps = {"a": SeedMaps((0,), {1.0: torch.ones(1, 3, 4)}, (20, 30), stride=8)}
    shards.build(tmp_path / "s.h5", SEEDS, {"a": "1"}, maps.get, {}, cache=tmp_path / "cache.h5")
    assert SeedStore(tmp_path / "s.h5")["a"].stride == 8


@pytest.mark.parametrize(("name", "stride"), [("resnet38d", 8), ("small", 16)])
def test_seeds_know_the_stride_of_their_classifier(name, stride):
    assert cam_network(name, 1).stride == stride


def test_image_without_classes():
    empty = SeedMaps(classes=(), maps={1.0: torch.zeros(0, 2, 3)}, size=(17, 33))
    assert empty.full().shape == (0, 17, 33)
    assert empty.strided().shape == (0, 5, 9)


def test_only_changed_records_are_computed(tmp_path):
    computed = []

    def compute(image_id):
        computed.append(image_id)
        return seed_maps()

    cache = tmp_path / "cache.h5"
    write(tmp_path / "s.h5", {"a": "1", "b": "1"}, compute, cache)
    (tmp_path / "s.h5").unlink()
    assert write(tmp_path / "s.h5", {"a": "1", "b": "2", "c": "1"}, compute, cache) == 1
    assert computed == ["a", "b", "b", "c"]
    assert list(SeedStore(tmp_path / "s.h5")) == ["a", "b", "c"]


def test_killed_shard_continues(tmp_path):
    cache = tmp_path / "cache.h5"
    computed = []

    def compute(image_id):
        computed.append(image_id)
        if image_id == "c" and computed.count("c") == 1:
            raise KeyboardInterrupt
        return seed_maps()

    arguments = (tmp_path / "s.h5", SEEDS, dict.fromkeys("abc", "1"), compute, {})
    with pytest.raises(KeyboardInterrupt):
        shards.build(*arguments, cache=cache, save_seconds=0)
    assert not (tmp_path / "s.h5").exists()
    shards.build(*arguments, cache=cache)
    assert computed == ["a", "b", "c", "c"]


def test_same_bytes_whatever_was_cached(tmp_path):
    write(tmp_path / "one.h5", {"a": "1", "b": "1"}, lambda _: seed_maps(), tmp_path / "one.cache")
    write(tmp_path / "two.h5", {"b": "1"}, lambda _: seed_maps(), tmp_path / "two.cache")
    write(tmp_path / "two.h5", {"a": "1", "b": "1"}, lambda _: seed_maps(), tmp_path / "two.cache")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_records_computed_together_make_the_same_file(tmp_path):
    """In any order; after a kill, what was yielded before is reused."""
    fingerprints = dict.fromkeys("abcd", "1")
    write(tmp_path / "one.h5", fingerprints, lambda _: seed_maps(), tmp_path / "one.cache")
    asked = []

    def together(ids):
        asked.append(list(ids))
        for image_id in reversed(ids):
            if image_id == "b" and len(asked) == 1:
                raise KeyboardInterrupt
            yield image_id, seed_maps()

    arguments = (tmp_path / "two.h5", SEEDS, fingerprints, together, {"method": "cam"})
    with pytest.raises(KeyboardInterrupt):
        shards.build_batched(*arguments, cache=tmp_path / "two.cache", save_seconds=0)
    assert shards.build_batched(*arguments, cache=tmp_path / "two.cache") == 2
    assert asked == [["a", "b", "c", "d"], ["a", "b"]]
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_a_record_left_out_is_an_error(tmp_path):
    arguments = (tmp_path / "s.h5", SEEDS, {"a": "1", "b": "1"}, lambda ids: [("a", seed_maps())])
    with pytest.raises(ValueError, match=r"no record was computed for \['b'\]"):
        shards.build_batched(*arguments, {}, cache=tmp_path / "cache.h5")
    assert not (tmp_path / "s.h5").exists()


def test_unfinished_or_foreign_file(tmp_path):
    (tmp_path / "s.h5").write_bytes(b"half")
    with pytest.raises(UserError, match=r"s\.h5: is damaged, or not a file of this program"):
        SeedStore(tmp_path / "s.h5")
    shards.build(tmp_path / "o.h5", LABELS, {}, lambda _: None, {}, cache=tmp_path / "c.h5")
    with pytest.raises(UserError, match="holds labels records, not seeds"):
        SeedStore(tmp_path / "o.h5")
    assert RecordStore(tmp_path / "o.h5", SEEDS, LABELS).kind is LABELS


def test_a_file_system_without_hard_links_is_good_enough(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("not supported")

    monkeypatch.setattr(shards.os, "link", no_links)
    write(tmp_path / "s.h5", {"a": "1"}, lambda _: seed_maps(), tmp_path / "cache.h5")
    assert (tmp_path / "cache.h5").read_bytes() == (tmp_path / "s.h5").read_bytes()
    assert write(tmp_path / "s.h5", {"a": "1"}, lambda _: pytest.fail("is in the cache"), tmp_path / "cache.h5") == 1


def test_inspect_says_what_a_file_is_not(tmp_path):
    write(tmp_path / "s.h5", dict.fromkeys("abcdefg", "1"), lambda _: seed_maps(), tmp_path / "cache.h5")
    assert describe(tmp_path / "s.h5").splitlines()[-1].startswith("e: 40x20, classes [3, 7], maps {")
    others = RecordKind("others", lambda *_: None, lambda _: None)
    shards.build(tmp_path / "o.h5", others, {}, lambda _: None, {}, cache=tmp_path / "c.h5")
    torch.save({"step": 3}, tmp_path / "state.pt")
    (tmp_path / "x.txt").touch()
    for name, message in {
        "o.h5": "holds others records, not seeds or scores or posteriors or labels",
        "none.h5": "there is no such file",
        "none.pt": "checkpoint not found",
        "state.pt": "is not a checkpoint of this program",
        "x.txt": "only .h5, .pt",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {message}"):
            describe(tmp_path / name)


def test_mask_round_trip_with_voc_colours(tmp_path):
    labels = np.array([[0, 1, 255], [20, 2, 0]], dtype=np.uint8)
    write_mask(tmp_path / mask_name("a/b"), labels)
    assert np.array_equal(read_mask(tmp_path / "a%2Fb.png", (2, 3), 21), labels)
    assert voc_palette()[15].tolist() == [192, 128, 128]


@pytest.mark.parametrize(
    ("size", "n_labels", "message"), [((3, 3), 21, "mask is 3x2, its image is 3x3"), ((2, 3), 15, r"holds \[20\]")]
)
def test_wrong_masks_are_named(tmp_path, size, n_labels, message):
    write_mask(tmp_path / "m.png", np.array([[0, 1, 255], [20, 2, 0]]))
    with pytest.raises(UserError, match=message):
        read_mask(tmp_path / "m.png", size, n_labels)


def test_values_beyond_a_byte_are_not_cut_off(tmp_path):
    Image.fromarray(np.array([[0, 257], [3, 300]], dtype=np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"mask holds \[257, 300\], allowed are 0\.\.255"):
        read_mask(tmp_path / "m.png")


def test_truncated_mask(tmp_path):
    write_mask(tmp_path / "m.png", np.arange(256).repeat(100).reshape(160, 160) % 200)
    whole = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"m\.png"):
        read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("kind", ["external", "soft", "storage"])
def test_links_out_of_a_file_are_not_followed(tmp_path, kind):
    """A sealed file says that it is whole, not who made it."""
    write(tmp_path / "other.h5", {"a": "1"}, lambda _: seed_maps(), tmp_path / "cache.h5")
    write(tmp_path / "s.h5", {"a": "1"}, lambda _: seed_maps(2.0), tmp_path / "cache2.h5")
    path, name = tmp_path / "s.h5", shards.group_name("a")
    path.write_bytes(path.read_bytes()[: -sealed.LENGTH])
    with h5py.File(path, "r+") as file:
        if kind == "storage":
            shape = file[name]["scale_1.0"].shape
            del file[name]["scale_1.0"]
            (tmp_path / "raw").write_bytes(bytes(100))
            file[name].create_dataset("scale_1.0", shape, "f4", external=[(str(tmp_path / "raw"), 0, 100)])
        else:
            del file[name]
            file[name] = h5py.ExternalLink("other.h5", name) if kind == "external" else h5py.SoftLink("/elsewhere")
            if kind == "soft":
                file["elsewhere"] = file.create_group("x")
    sealed.seal(path)
    with pytest.raises(UserError, match=r"s\.h5: .* leads out of it; it is not followed"):
        SeedStore(path)["a"]
