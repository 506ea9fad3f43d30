"""The step `index`: image table, shards, and one clear message for every kind of bad input."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scenes import write_step
from wsss_core.data import examine
from wsss_core.data.table import read_manifest, read_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.keyed import generator
from wsss_core.steps import index
from wsss_core.store.masks import write_mask

CLASSES = ("cat", "dog", "owl")


@dataclass
class DataSet:
    """A folder of images with tags, masks and lists, and the files that its index makes."""

    root: Path
    out: Path

    def add(self, name: str, labels: str, *, size=(12, 16), mask: bool = True, mode: str = "RGB", suffix=".png"):
        pixels = generator(0, name).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(self.root / f"images/{name}{suffix}")
        if mask:
            labelled = np.zeros(size, dtype=np.uint8)
            for i, label in enumerate(labels.split()):
                labelled[2 * i : 2 * i + 2, :5] = CLASSES.index(label) + 1
            labelled[-1] = 255
            write_mask(self.root / f"masks/{name}.png", labelled)
        with open(self.root / "labels.csv", "a", encoding="utf-8") as handle:
            handle.write(f"{name}{suffix},{labels}\n")

    def list(self, name: str, *images: str) -> None:
        (self.root / f"{name}.txt").write_text("".join(f"{image}\n" for image in images))

    def index(self, method: str = "table", threads: int = 1, **settings) -> None:
        defaults = {
            "root": str(self.root),
            "masks": "masks",
            "train": ["train"],
            "val": ["val"],
            "classes": "classes.txt",
        }
        index.run(
            config=write_step(self.out / "config.json", "dataset", method, "index", defaults | settings),
            table=self.out / "images.csv",
            shards=self.out / "shards",
            problems=self.out / "problems.csv",
            cache=self.out / "cache.json",
            drawn=self.out / "masks",
            execution=Execution(threads=threads),
        )

    def problems(self) -> list[dict[str, str]]:
        with open(self.out / "problems.csv", newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle))

    def refused(self, *messages: str, **settings) -> str:
        """The error message, which must hold all texts; nothing but problems.csv may have been written."""
        with pytest.raises(UserError) as caught:
            self.index(**settings)
        for message in messages:
            assert message in str(caught.value)
        assert not (self.out / "images.csv").exists() and not (self.out / "shards").exists()
        return str(caught.value)

    def ids(self, role: str) -> list[str]:
        return [record.id for record in read_table(self.out / "images.csv").split(role)]


@pytest.fixture
def data(tmp_path) -> DataSet:
    made = DataSet(tmp_path / "data", tmp_path / "out")
    for folder in (made.root / "images", made.root / "masks", made.out):
        folder.mkdir(parents=True)
    (made.root / "labels.csv").write_text("image,labels\n")
    (made.root / "classes.txt").write_text("background\n" + "\n".join(CLASSES) + "\n")
    for i, labels in enumerate(["cat", "dog", "owl", "cat dog", "dog owl", "cat", "owl", "dog"]):
        made.add(f"t{i}", labels)
    made.add("v0", "cat")
    made.add("v1", "dog")
    made.list("train", *(f"t{i}" for i in range(8)))
    made.list("val", "v0", "v1")
    return made


def test_images_for_evaluation_that_are_scored_are_in_the_shards_of_train_and_in_no_training(data):
    data.index(score="val", shard_size=3)
    dealt = [r for path in (data.out / "shards/train").iterdir() for r in read_manifest(path).records]
    assert {r.id: r.splits for r in dealt if "score" in r.splits} == {"v0": ("score", "val"), "v1": ("score", "val")}
    assert all(r.mask for r in dealt if "score" in r.splits) and len(dealt) == 10
    assert [r.id for r in read_table(data.out / "shards/train.csv").records] == [f"t{i}" for i in range(8)]
    of_val = [r.id for path in (data.out / "shards/val").iterdir() for r in read_manifest(path).records]
    assert sorted(of_val) == ["v0", "v1"]


def test_scores_are_of_one_kind_of_images(data):
    data.list("both", "t1", "v0")
    data.refused("1 of the images to score are for training (such as t1), 1 for evaluation (such as v0)", score="both")


def test_table_and_shards(data):
    data.add("sky", "", mask=False, size=(20, 10))
    data.list("ood", "sky")
    data.index(ood=["ood"], shard_size=3, threads=2)
    table = read_table(data.out / "images.csv")
    assert table.class_names == CLASSES
    assert [r.id for r in table.records] == sorted(r.id for r in table.records)
    record = table.split("train")[3]
    assert record.size == (12, 16) and record.classes == (0, 1) and record.splits == ("train", "score")
    assert len(record.digest) == 32 and len(record.mask_digest) == 32
    assert [r.size for r in table.split("ood")] == [(20, 10)]
    dealt = [r for path in (data.out / "shards/train").iterdir() for r in read_manifest(path).records]
    assert sorted(dealt, key=lambda r: r.id) == list(table.split("train"))
    assert len(list((data.out / "shards/train").iterdir())) > 1
    assert read_table(data.out / "shards/val.csv").records == table.split("val")
    assert data.problems() == []


def test_training_never_sees_true_masks(data):
    data.index()
    records = read_table(data.out / "shards/train.csv").records
    assert len(records) == 8
    assert {(r.mask, r.mask_digest, r.splits) for r in records} == {("", "", ("train",))}


def test_splits_without_images_have_their_folder(data):
    data.index(val=[])
    assert list((data.out / "shards/ood").iterdir()) == []
    assert read_table(data.out / "shards/val.csv").records == ()


def test_tags_alone_are_enough(data):
    data.index(masks=None, val=[], classes=None)
    table = read_table(data.out / "images.csv")
    assert len(table.split("train")) == 8 and table.split("score") == ()
    assert {r.mask for r in table.records} == {""}


def test_every_kind_of_image(data):
    for mode, suffix in [
        ("L", ".jpg"),
        ("RGBA", ".png"),
        ("CMYK", ".jpg"),
        ("P", ".png"),
        ("1", ".bmp"),
        ("LA", ".webp"),
    ]:
        data.add(f"kind {mode}", "cat", mode=mode if suffix != ".webp" else "RGB", suffix=suffix)
    Image.fromarray(np.full((12, 16), 40000, dtype=np.uint16)).save(data.root / "images/deep.tif")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(np.zeros((12, 16, 3), dtype=np.uint8)).save(data.root / "images/turned.jpg", exif=rotated)
    write_mask(data.root / "masks/turned.png", np.ones((16, 12)))
    with open(data.root / "labels.csv", "a") as handle:
        handle.write("deep.tif,dog\nturned.jpg,cat\n")
    data.index(train=[], val=[], val_fraction=0)
    sizes = {r.id: r.size for r in read_table(data.out / "images.csv").records}
    assert sizes["turned"] == (16, 12) and sizes["deep"] == (12, 16) and "kind CMYK" in sizes


def test_same_result_again_and_with_other_threads(data):
    def files() -> dict[str, bytes]:
        return {p.relative_to(data.out).as_posix(): p.read_bytes() for p in data.out.rglob("*") if p.is_file()}

    data.index()
    first = files()
    data.index(threads=3)
    (data.out / "cache.json").unlink()
    data.index(threads=2)
    assert {k: v for k, v in files().items() if k != "cache.json"} == {
        k: v for k, v in first.items() if k != "cache.json"
    }


def test_unchanged_files_are_not_opened_again(data, monkeypatch):
    data.index()
    monkeypatch.setattr(examine, "look_at_image", lambda path: pytest.fail(f"{path} was opened"))
    monkeypatch.setattr(examine, "look_at_mask", lambda path: pytest.fail(f"{path} was opened"))
    data.index()


def test_adding_images_touches_their_shards_only(data):
    for i in range(8, 60):
        data.add(f"t{i}", CLASSES[i % 3], mask=False)
    data.list("train", *(f"t{i}" for i in range(59)))
    data.index(shard_size=8)
    before = {p.name: p.read_bytes() for p in (data.out / "shards/train").iterdir()}
    times = {p.name: p.stat().st_mtime_ns for p in (data.out / "shards/train").iterdir()}
    shutil.rmtree(data.out / "shards")
    data.list("train", *(f"t{i}" for i in range(60)))
    data.index(shard_size=8)
    after = {p.name: p.read_bytes() for p in (data.out / "shards/train").iterdir()}
    changed = [name for name in after if before.get(name) != after[name]]
    assert len(before) >= 4 and len(changed) == 1
    kept = set(after) - set(changed)
    assert all((data.out / "shards/train" / name).stat().st_mtime_ns == times[name] for name in kept)


def test_mask_change_changes_manifests_but_not_the_training_table(data):
    data.index()
    before = (data.out / "shards/train.csv").read_bytes()
    mask = np.zeros((12, 16))
    mask[0] = 1
    write_mask(data.root / "masks/t0.png", mask)
    manifests = {p: p.read_bytes() for p in (data.out / "shards/train").iterdir()}
    data.index()
    assert (data.out / "shards/train.csv").read_bytes() == before
    assert any(p.read_bytes() != content for p, content in manifests.items())


def truncate(data: DataSet) -> str:
    path = data.root / "images/t5.png"
    path.write_bytes(path.read_bytes()[:200])
    return "images/t5.png: image cannot be read"


def remove_image(data: DataSet) -> str:
    (data.root / "images/t5.png").unlink()
    return "train.txt, row 6: image 't5': there is no such image in"


def unknown_class(data: DataSet) -> str:
    text = (data.root / "labels.csv").read_text().replace("t5.png,cat", "t5.png,cat kat")
    (data.root / "labels.csv").write_text(text)
    return "labels.csv, row 7: image 't5': unknown class 'kat' (did you mean 'cat'?)"


def no_row(data: DataSet) -> str:
    text = (data.root / "labels.csv").read_text().replace("t5.png,cat\n", "")
    (data.root / "labels.csv").write_text(text)
    return "labels.csv: image 't5': no row gives the labels of this image"


def duplicate_row(data: DataSet) -> str:
    with open(data.root / "labels.csv", "a") as handle:
        handle.write("t5.png,dog\n")
    return "labels.csv, row 12: image 't5': duplicate: the image is in row 7 too"


def also_val(data: DataSet) -> str:
    data.list("val", "v0", "v1", "t5")
    return "images/t5.png: the image is both for training and for evaluation"


@pytest.mark.parametrize("harm", [truncate, remove_image, unknown_class, no_row, duplicate_row, also_val])
def test_an_image_that_cannot_be_used(data, harm):
    message = harm(data)
    error = data.refused("1 problem in a data set of", message, "problems.csv", "dataset.unreadable")
    assert str(data.out) in error
    (row,) = data.problems()
    assert row["image"] == "t5" and row["severity"] == "error" and row["action"] == "stop"
    data.index(unreadable="skip")
    (row,) = data.problems()
    assert row["action"] == "image skipped"
    assert data.ids("train") == [f"t{i}" for i in range(8) if i != 5]
    assert data.ids("val") == ["v0", "v1"]


def wrong_size(data: DataSet, name: str) -> str:
    write_mask(data.root / f"masks/{name}.png", np.zeros((12, 15)))
    return f"masks/{name}.png: mask is 15x12, its image is 16x12"


def wrong_value(data: DataSet, name: str) -> str:
    write_mask(data.root / f"masks/{name}.png", np.full((12, 16), 4))
    return f"masks/{name}.png: mask holds the values [4], allowed are 0..3 and 255"


def colour_mask(data: DataSet, name: str) -> str:
    Image.new("RGB", (16, 12)).save(data.root / f"masks/{name}.png")
    return f"masks/{name}.png: a mask must be a palette or grey PNG, this one is RGB"


def broken_mask(data: DataSet, name: str) -> str:
    path = data.root / f"masks/{name}.png"
    path.write_bytes(path.read_bytes()[:60])
    return f"masks/{name}.png: mask cannot be read"


@pytest.mark.parametrize("harm", [wrong_size, wrong_value, colour_mask, broken_mask])
def test_a_mask_that_cannot_be_used(data, harm):
    messages = [harm(data, "t5"), harm(data, "v1")]
    data.refused("2 problems", *messages)
    data.index(unreadable="skip")
    assert {row["image"]: row["action"] for row in data.problems()} == {"t5": "mask skipped", "v1": "image skipped"}
    assert "t5" in data.ids("train") and "t5" not in data.ids("score")
    assert data.ids("val") == ["v0"]


def test_a_missing_mask_of_an_image_to_evaluate(data):
    (data.root / "masks/v1.png").unlink()
    data.refused("masks/v1.png: there is no such mask")


def test_all_problems_are_listed_at_once(data):
    for i in range(7):
        (data.root / f"images/t{i}.png").write_bytes(b"")
    error = data.refused("7 problems in a data set of 10 images", "… and 2 more")
    assert error.count("empty file") == 5
    assert sum(row["severity"] == "error" for row in data.problems()) == 7


def test_finished_files_survive_a_failure(data):
    data.index()
    before = {p: p.read_bytes() for p in data.out.rglob("*") if p.is_file() and p.suffix in (".csv", ".json")}
    truncate(data)
    with pytest.raises(UserError):
        data.index()
    for path, content in before.items():
        if path.name not in ("problems.csv", "cache.json"):
            assert path.read_bytes() == content


def test_a_class_without_images(data):
    (data.root / "classes.txt").write_text("cat\ndog\nowl\nyak\n")
    data.refused("no train image has the class 'yak'")


def test_class_list_in_another_order(data):
    (data.root / "classes.txt").write_text("dog\ncat\nowl\n")
    error = data.refused("3 of 4 images tagged 'cat' do not hold its label 2", "class list in another order")
    assert "unreadable" not in error
    data.refused("another order", unreadable="skip")


def test_mask_with_a_class_that_the_tags_lack_is_noted(data):
    text = (data.root / "labels.csv").read_text().replace("t3.png,cat dog", "t3.png,cat")
    (data.root / "labels.csv").write_text(text)
    data.index()
    (row,) = data.problems()
    assert (row["image"], row["problem"], row["severity"], row["action"]) == (
        "t3",
        "the mask holds dog, the tags do not (cat)",
        "note",
        "kept",
    )


def test_empty_splits(data):
    data.list("val")
    data.refused("val.txt: the split list is empty")
    data.list("val", "v0", "v1")
    for name in ("v0", "v1"):
        (data.root / f"images/{name}.png").write_bytes(b"")
    data.refused("dataset.val: no image is left in this split", unreadable="skip")


def test_nothing_to_learn(data):
    (data.root / "labels.csv").write_text("image,labels\n" + "".join(f"t{i}.png,\n" for i in range(8)))
    data.refused("no train image has a class tag", val=[])


def test_blank_labels_are_background_only(data):
    data.add("plain", "", mask=False)
    data.list("train", *(f"t{i}" for i in range(8)), "plain")
    data.index()
    assert "plain" in data.ids("train") and data.problems() == []


def test_ood_image_with_tags(data):
    data.list("ood", "t5")
    data.list("train", *(f"t{i}" for i in range(8) if i != 5))
    data.refused("images/t5.png: the image is in an ood list but has the tags cat", ood=["ood"])


def test_same_picture_in_train_and_val_is_noted(data):
    shutil.copy(data.root / "images/t0.png", data.root / "images/v0.png")
    data.index()
    assert [row["problem"] for row in data.problems()] == ["the same picture as 't0', which is for training"]


def test_tags_from_masks(data):
    (data.root / "images").rename(data.root / "JPEGImages")
    voc = {"tags": "masks", "lists": "."}
    data.index(method="voc", **voc)
    table = read_table(data.out / "images.csv")
    assert [r.classes for r in table.split("train")][:4] == [(0,), (1,), (2,), (0, 1)]
    (data.root / "masks/t5.png").unlink()
    with pytest.raises(UserError, match="t5.png: there is no mask to take the tags from"):
        data.index(method="voc", **voc)


def test_two_images_of_one_id(data):
    (data.root / "images/extra").mkdir()
    shutil.copy(data.root / "images/t0.png", data.root / "images/extra/x.png")
    (data.root / "extra").mkdir()
    shutil.copy(data.root / "images/t1.png", data.root / "extra/x.png")
    with open(data.root / "labels.csv", "a") as handle:
        handle.write("extra/x,cat\n")
    data.list("train", *(f"t{i}" for i in range(8)), "extra/x")
    data.refused("duplicate id: ", "images/extra/x.png has it too", ood=["extra"])


def test_real_photos_in_two_formats(shared, tmp_path):
    made = DataSet(shared / "data/msrc", tmp_path)
    lists = {"val": ["val"], "ood": ["background"], "classes": "classes.txt", "masks": "SegmentationClass"}
    made.index(method="voc", threads=2, tags="labels.csv", **lists)
    first = read_table(tmp_path / "images.csv")
    made.index(method="table", threads=2, images="JPEGImages", lists="ImageSets/Segmentation", **lists)
    assert read_table(tmp_path / "images.csv") == first
    assert [len(first.split(role)) for role in ("train", "score", "val", "ood")] == [295, 295, 103, 70]
    assert len(first.class_names) == 14


def turn(data: DataSet, name: str, orientation: int, size: tuple[int, int]) -> None:
    """Store a photo of the size (H, W) with an EXIF tag that turns it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(data.root / f"images/{name}.png", exif=exif)


def test_a_mask_of_the_photo_as_stored(data):
    turn(data, "t5", 6, (12, 16))
    text = (
        "masks/t5.png: mask is 16x12, its image is 12x16 as its EXIF tag turns it (orientation 6): "
        "the mask was drawn on the photo as stored"
    )
    data.refused(text)


@pytest.mark.parametrize(("orientation", "size"), [(6, (12, 12)), (8, (12, 12)), (3, (12, 16)), (2, (12, 16))])
def test_a_turned_photo_whose_mask_fits_either_way_is_noted(data, orientation, size):
    turn(data, "t5", orientation, size)
    mask = np.zeros(size)
    mask[0] = 1
    write_mask(data.root / "masks/t5.png", mask)
    data.index()
    (row,) = data.problems()
    assert row["image"] == "t5" and row["severity"] == "note"
    assert f"turned by its EXIF tag (orientation {orientation}) and its mask would fit either way" in row["problem"]


def test_a_turned_photo_with_its_mask_needs_no_word(data):
    turn(data, "t5", 6, (16, 12))
    data.index()
    assert data.problems() == []
