"""Maps of other programs: every form that this field shares, what is refused, and what is read again after a change."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.scenes import write_step
from wsss_core import cli
from wsss_core.config import load
from wsss_core.data.arrays import read_arrays
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.seeds.external import ExternalSettings, files, maps
from wsss_core.steps import maps_from_files
from wsss_core.store.masks import write_mask
from wsss_core.store.seeds import SeedStore

CLASSES = ("cow", "cat", "night sky")
SIZE = (9, 14)
RECORD = ImageRecord("sub/a.jpg", "photos/sub/a.jpg", *SIZE, ("train",), (0, 2))
DRAW = np.random.default_rng(0)
PLANES = DRAW.random((3, *SIZE), dtype=np.float32)
SMALL = DRAW.random((3, 3, 4), dtype=np.float32)


def irn(folder: Path, **more) -> None:
    held = {"keys": torch.tensor([0, 2]), "cam": torch.from_numpy(SMALL[[0, 2]]), "high_res": PLANES[[0, 2]]}
    np.save(folder / "a.npy", {**held, **more})


def hdf5(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["maps"] = PLANES[[2, 0]]
        file["classes"] = ["night sky", "cow"]


def pictures(folder: Path) -> None:
    for c, name in ((0, "cow"), (2, "night sky")):
        Image.fromarray((PLANES[c] * 65535).astype(np.uint16)).save(folder / f"a-{name}.png")


FORMS = {
    "PSA's and SEAM's dictionary": (lambda f: np.save(f / "a.npy", {0: PLANES[0], 2: PLANES[2]}), {}),
    "IRN's and RIB's dictionary": (irn, {}),
    "an array of all classes": (lambda f: np.save(f / "a.npy", PLANES), {}),
    "an array in another order": (
        lambda f: np.save(f / "a.npy", np.stack([PLANES[1], PLANES[2], PLANES[1], PLANES[0]])),
        {"classes": ("background", "night sky", "cat", "cow")},
    ),
    "maps by name": (lambda f: np.savez(f / "a.npz", **{"cow": PLANES[0], "night sky": PLANES[2]}), {}),
    "an export of this program": (
        lambda f: np.savez(f / "sub%2Fa.jpg.npz", maps=PLANES[[0, 2]], classes=np.array(["cow", "night sky"])),
        {},
    ),
    "HDF5": (hdf5, {}),
    "a picture a class": (pictures, {"pattern": "{image}-{class}.png"}),
    "an array a class": (
        lambda f: [np.save(f / f"{c}_a.npy", PLANES[c]) for c in (0, 2)],
        {"pattern": "{number}_{image}"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_maps_of_every_form_are_those_of_the_tags_at_the_size_of_the_photo(tmp_path, form):
    write, settings = FORMS[form]
    write(tmp_path)
    found = maps(ExternalSettings(folder=str(tmp_path), **settings), RECORD, CLASSES)
    assert found.classes == (0, 2) and found.size == SIZE
    expected = PLANES[[0, 2]] / (PLANES[[0, 2]].max((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(found.full().numpy(), expected, atol=2e-5)
    assert found.strided().shape == (2, 3, 4)


def test_small_maps_cover_the_whole_photo(tmp_path):
    np.save(tmp_path / "a.npy", {0: SMALL[0], 2: SMALL[2]})
    found = maps(ExternalSettings(folder=str(tmp_path)), RECORD, CLASSES).full()
    large = torch.nn.functional.interpolate(torch.from_numpy(SMALL[None]), SIZE, mode="bilinear")[0, [0, 2]]
    torch.testing.assert_close(found, large / (large.amax((1, 2), keepdim=True) + 1e-5))


def test_label_masks_are_maps_of_ones(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[2:5, 3:9] = 1
    labels[6:, :4] = 3
    labels[0] = 255
    write_mask(tmp_path / "a.png", labels)
    found = maps(ExternalSettings(folder=str(tmp_path), content="labels"), RECORD, CLASSES).full().numpy()
    assert np.array_equal(found > 0.9, np.stack([labels == 1, labels == 3]))
    assert np.allclose(found[:, 0], 0.5, atol=1e-4)
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: mask holds \[9\]"):
        maps(ExternalSettings(folder=str(tmp_path), content="labels"), RECORD, CLASSES)


class Evil:
    def __init__(self, call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch ran",)),
        (eval, ("open('ran', 'w')",)),
        (np.load, ("other.npy",)),
        (getattr, ("text", "upper")),
        (pickle.loads, (b"cos\nsystem\n(S'touch ran'\ntR.",)),
        (torch.load, ("other.pt",)),
    ],
)
def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", {0: Evil(call)}, allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy: asks for .*, which is neither an array nor a number; it is not run"):
        read_arrays(Path("a.npy"))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("write", "settings", "message"),
    [
        (lambda f: None, {}, "no file of image 'sub/a.jpg'; looked for sub%2Fa.jpg.npz and .* the folder is empty"),
        (lambda f: np.save(f / "b.npy", PLANES), {}, r"no file of image .* there lies b\.npy"),
        (lambda f: np.save(f / "a.npy", {0: PLANES[0]}), {}, "has the tags cow, night sky, but no map of night sky"),
        (lambda f: np.save(f / "a.npy", {0: PLANES[0], 3: PLANES[2]}), {}, "holds the class 3; .* classes 0 to 2"),
        (lambda f: np.save(f / "a.npy", PLANES[:2]), {}, "an array of 2x9x14, expected 3 maps; the setting classes"),
        (lambda f: np.save(f / "a.npy", [{0: 1}]), {}, "not an array or a dictionary"),
        (lambda f: np.savez(f / "a.npz", cow=PLANES[0], dog=PLANES[2]), {}, "'dog' is no class of the data set"),
        (lambda f: np.save(f / "a.npy", -PLANES), {}, "the map of cow holds negative numbers"),
        (lambda f: np.save(f / "a.npy", PLANES * np.nan), {}, "holds numbers that are not finite"),
        (lambda f: np.save(f / "a.npy", {0: PLANES, 2: PLANES[2]}), {}, r"the map of cow is float32 \(3, 9, 14\)"),
        (lambda f: np.save(f / "a.npy", {0: "text", 2: PLANES[2]}), {}, "the map of cow is <U4"),
        (lambda f: (f / "a.npy").write_bytes(b""), {}, r"a\.npy: cannot be read as arrays"),
        (lambda f: (f / "a.npz").write_bytes(b"PK\3\4"), {}, r"a\.npz: cannot be read as arrays"),
        (lambda f: (f / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), {}, r"a\.h5: cannot be read as arrays"),
        (lambda f: Image.new("L", SIZE[::-1]).save(f / "a.png"), {}, "is one map, of which class is not said"),
        (
            lambda f: Image.new("RGB", SIZE[::-1]).save(f / "a0.png"),
            {"pattern": "{image}{number}.png"},
            r"a0\.png: a grey picture is expected, this one is RGB",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path, write, settings, message):
    write(tmp_path)
    with pytest.raises(UserError, match=message):
        maps(ExternalSettings(folder=str(tmp_path), **settings), RECORD, CLASSES)


def test_what_is_missing_may_be_empty(tmp_path):
    np.save(tmp_path / "a.npy", {0: PLANES[0]})
    settings = ExternalSettings(folder=str(tmp_path), missing="empty")
    found = maps(settings, RECORD, CLASSES).full()
    assert found[0].max() > 0.99 and not found[1].any()
    (tmp_path / "a.npy").unlink()
    assert not maps(settings, RECORD, CLASSES).full().any() and files(settings, RECORD, CLASSES) == []


def test_the_step_reads_again_only_what_has_changed(tmp_path, monkeypatch):
    records = [RECORD, ImageRecord("b", "b.png", *SIZE, ("train",), (1,)), ImageRecord("c", "c.png", 4, 4, (), ())]
    write_manifest(tmp_path / "shard.json", CLASSES, records)
    folder = tmp_path / "theirs"
    folder.mkdir()
    np.save(folder / "a.npy", PLANES)
    np.save(folder / "b.npy", PLANES)
    read: list[str] = []
    original = np.load
    monkeypatch.setattr(np, "load", lambda path, **options: read.append(Path(path).name) or original(path, **options))

    def made() -> SeedStore:
        maps_from_files.run(
            config=write_step(
                tmp_path / "step.json",
                "seeds/x",
                "external",
                "maps_from_files",
                ExternalSettings(folder=str(folder)),
            ),
            manifest=tmp_path / "shard.json",
            maps=tmp_path / "maps.h5",
            cache=tmp_path / "cache.h5",
            execution=Execution("cpu"),
        )
        return SeedStore(tmp_path / "maps.h5")

    store = made()
    assert set(store) == {"sub/a.jpg", "b", "c"} and store["c"].classes == () and read == ["a.npy", "b.npy"]
    np.save(folder / "b.npy", PLANES[::-1])
    assert made()["b"].classes == (1,) and read == ["a.npy", "b.npy", "b.npy"]


def test_networks_on_external_maps_name_their_own_backbone():
    raw = {"run": "x", "dataset": {"format": "demo"}, "seeds": {"theirs": {"method": "external", "folder": "theirs"}}}

    def irn(**network) -> None:
        load(raw | {"refinements": {"irn": {"method": "irn", "seed": "theirs", "network": network}}})

    for network in ({}, {"backbone": "resnet50"}, {"weights": "imagenet"}):
        with pytest.raises(UserError, match=r"refinements\.irn\.network: takes the classifier's .* name a backbone"):
            irn(**network)
    irn(backbone="resnet50", weights="imagenet")


def test_check_says_how_many_images_have_maps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", SIZE[::-1]).save(f"photos/{name}.jpg")
    Path("photos/labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,cow\n")
    theirs = {"method": "external", "folder": "theirs"}
    raw = {"run": "x", "dataset": {"format": "table", "root": "photos"}, "seeds": {"theirs": theirs}}
    raw["refinements"] = {"crf": {"method": "crf", "seed": "theirs"}}

    def check(status: int) -> str:
        Path("mine.yaml").write_text(yaml.safe_dump(raw))
        assert cli.main(["check", "mine.yaml"]) == status
        told = capsys.readouterr()
        return told.err if status else told.out

    assert "seeds.theirs: there is no folder theirs" in check(2)
    Path("theirs").mkdir()
    np.save("theirs/a.npy", PLANES[:2])
    assert "seeds.theirs: 1 of 2 images for training have no file in theirs, such as 'b'" in check(2)
    theirs["missing"] = "empty"
    assert "seeds.theirs: 1 of 2 images for training have maps" in check(0)
