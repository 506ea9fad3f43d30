"""Readers of VOC, COCO and plain tables, and the listing digest."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import coco, tags, voc
from wsss_core.data.boxes import Box
from wsss_core.data.coco import CocoSettings
from wsss_core.data.label_files import read_labels
from wsss_core.data.listing import listing_digest
from wsss_core.data.reading import class_list, read_class_names
from wsss_core.data.table import ImageRecord, ImageTable, read_table, write_table
from wsss_core.data.tags import TableSettings
from wsss_core.data.voc import VOC_CLASSES, VocSettings
from wsss_core.errors import UserError
from wsss_core.store.masks import write_mask

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools.*")


def save_image(path: Path, size: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 120, dtype=np.uint8)).save(path)


def save_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)


def annotation(*objects: tuple[str, tuple[int, int, int, int]]) -> str:
    items = "".join(
        f"<object><name>{name}</name><difficult>1</difficult><part><name>head</name></part><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    return f"<annotation>{items}</annotation>"


@pytest.fixture
def voc_root(tmp_path) -> Path:
    for name in ("a", "b", "c", "v"):
        save_image(tmp_path / f"JPEGImages/{name}.jpg")
        save_text(tmp_path / f"Annotations/{name}.xml", annotation(("dog", (1, 2, 3, 4)), ("cat", (2, 2, 8, 6))))
    for name in ("a", "v"):
        write_mask(tmp_path / f"SegmentationClass/{name}.png", np.zeros((6, 8)))
    save_text(tmp_path / "ImageSets/Segmentation/train_aug.txt", "a\nb\n\n")
    save_text(tmp_path / "ImageSets/Segmentation/train.txt", "a")
    save_text(tmp_path / "ImageSets/Segmentation/val.txt", "v\n")
    return tmp_path


def by_id(reading) -> dict:
    return {record.id: record for record in reading.records}


def texts(reading) -> list[str]:
    return [f"{p.severity}: {p.image}: {Path(p.path).name}: {p.text}" for p in reading.problems]


def test_voc_layout(voc_root):
    reading = voc.read(VocSettings(root=str(voc_root)))
    assert reading.class_names == VOC_CLASSES and len(VOC_CLASSES) == 20
    assert not reading.problems
    records = by_id(reading)
    assert records["a"].splits == ("train", "score")
    assert records["b"].splits == ("train",) and records["b"].mask == ""
    assert records["v"].splits == ("val",)
    assert records["a"].classes == (7, 11)
    assert records["a"].boxes == (Box(11, 0, 1, 3, 4, difficult=True), Box(7, 1, 1, 8, 6, difficult=True))
    assert "c" not in records


def test_voc_lists_by_path_with_masks_and_spaces_in_names(voc_root):
    save_image(voc_root / "JPEGImages/my photo.v2.png")
    write_mask(voc_root / "SegmentationClassAug/b.png", np.zeros((6, 8)))
    save_text(voc_root / "psa.txt", "/JPEGImages/b.jpg /SegmentationClassAug/b.png\nmy photo.v2\nc.jpg\n")
    save_text(voc_root / "Annotations/my photo.v2.xml", annotation(("sofa", (1, 1, 2, 2))))
    reading = voc.read(VocSettings(root=str(voc_root), train=("psa.txt",), val=()))
    records = by_id(reading)
    assert set(records) == {"b", "my photo.v2", "c"}
    assert records["b"].mask.endswith("SegmentationClassAug/b.png") and records["b"].splits == ("train", "score")
    assert VOC_CLASSES[records["my photo.v2"].classes[0]] == "sofa"


def test_voc_score_list_must_be_part_of_train(voc_root):
    save_text(voc_root / "ImageSets/Segmentation/other.txt", "a\nc\n")
    with pytest.raises(
        UserError, match=r"other.txt: 1 of 2 images to score are in no train or val list.*c.jpg \(row 2\)"
    ):
        voc.read(VocSettings(root=str(voc_root), score="other"))


def test_voc_missing_list_says_which_there_are(voc_root):
    with pytest.raises(UserError, match="no split list 'trainval'.*train, train_aug, val"):
        voc.read(VocSettings(root=str(voc_root), train=("trainval",)))
    (voc_root / "ImageSets/Segmentation/train_aug.txt").unlink()
    with pytest.raises(UserError, match="SBD"):
        voc.read(VocSettings(root=str(voc_root)))


def test_voc_problems_are_collected(voc_root):
    save_text(voc_root / "ImageSets/Segmentation/train_aug.txt", "a\nb\nc\nmissing\na\n")
    save_text(voc_root / "Annotations/a.xml", annotation(("dgo", (1, 2, 3, 4))))
    save_text(voc_root / "Annotations/b.xml", "<annotation><object>")
    (voc_root / "Annotations/c.xml").unlink()
    (voc_root / "SegmentationClass/v.png").unlink()
    found = "\n".join(texts(voc.read(VocSettings(root=str(voc_root)))))
    assert "error: a: a.xml: unknown class 'dgo' (did you mean 'dog'?)" in found
    assert "error: b: b.xml: annotation cannot be read (no element found" in found
    assert "error: c: c.xml: there is no such file" in found
    assert "error: missing: train_aug.txt, row 4: there is no such image in" in found
    assert "row: a: train_aug.txt, row 5: duplicate: the image is in row 1 too" in found
    assert "error: v: v.png: there is no such mask" in found


def test_voc_image_without_objects_is_kept_and_noted(voc_root):
    save_text(voc_root / "Annotations/b.xml", annotation())
    reading = voc.read(VocSettings(root=str(voc_root)))
    assert by_id(reading)["b"].classes == ()
    assert texts(reading) == ["note: b: b.xml: no class tags: the image is trained on as background only"]


def test_voc_tags_from_csv_and_own_classes(voc_root):
    save_text(voc_root / "classes.txt", "background\ncat\ndog\n")
    save_text(voc_root / "labels.csv", "image,labels,who\na.jpg,dog cat,me\nb,\nv,cat\nunused.jpg,cat\n")
    reading = voc.read(VocSettings(root=str(voc_root), tags="labels.csv", classes="classes.txt"))
    assert reading.class_names == ("cat", "dog") and not reading.problems
    assert {i: r.classes for i, r in by_id(reading).items()} == {"a": (0, 1), "b": (), "v": (0,)}


def test_ood_lists_and_folders(voc_root):
    save_text(voc_root / "ImageSets/Segmentation/background.txt", "c\n")
    save_image(voc_root / "openimages/x/1.png")
    (voc_root / "Annotations/c.xml").unlink()
    reading = voc.read(VocSettings(root=str(voc_root), ood=("background", "openimages")))
    assert [r.id for r in reading.records if "ood" in r.splits] == ["c", "openimages/x/1"]
    assert "ood" in reading.wanted


def test_ambiguous_names_keep_their_ending(voc_root):
    save_image(voc_root / "JPEGImages/a.png")
    save_text(voc_root / "ImageSets/Segmentation/train_aug.txt", "a.jpg\na.png\na\n")
    reading = voc.read(VocSettings(root=str(voc_root), val=()))
    assert {"a.jpg", "a.png"} <= set(by_id(reading))
    assert any("ambiguous: a.jpg or a.png" in text for text in texts(reading))


@pytest.fixture
def table_root(tmp_path) -> Path:
    rows = ["image,labels"]
    for i in range(40):
        save_image(tmp_path / f"images/{i:02d}.jpg")
        rows.append(f"{i:02d}.jpg,{'cat' if i % 2 else 'dog cat'}")
        write_mask(tmp_path / f"masks/{i:02d}.png", np.zeros((6, 8)))
    save_text(tmp_path / "labels.csv", "\n".join(rows))
    return tmp_path


def test_table_alone_is_all_training(table_root):
    reading = tags.read(TableSettings(root=str(table_root)))
    assert reading.class_names == ("cat", "dog")
    assert {r.splits for r in reading.records} == {("train",)} and len(reading.records) == 40
    assert by_id(reading)["00"].classes == (0, 1)


def test_table_photos_may_lie_in_the_root_itself_and_paths_start_here_too(table_root, monkeypatch):
    (table_root / "images").rename(table_root / "photos")
    (table_root / "labels.csv").rename(table_root / "photos/labels.csv")
    monkeypatch.chdir(table_root)
    expected = {f"{i:02d}" for i in range(40)}
    for labels in ("labels.csv", "photos/labels.csv", str(table_root / "photos/labels.csv")):
        for masks in (None, "masks", str(table_root / "masks")):
            settings = TableSettings(root="photos", labels=labels, masks=masks)
            reading = tags.read(settings)
            assert set(by_id(reading)) == expected and not reading.problems
            assert any(record.mask for record in reading.records) == (masks is not None)
            assert tags.classes(settings) == ("cat", "dog")
            folders, files = tags.sources(settings).folders, tags.sources(settings).files
            assert all(path.exists() for path in (*folders, *files))


def test_table_below_the_root_comes_before_the_working_folder(table_root, monkeypatch, tmp_path):
    monkeypatch.chdir(table_root)
    save_text(table_root / "photos/labels.csv", "image,labels\n00,owl\n")
    settings = TableSettings(root="photos", images="images", labels="labels.csv")
    assert tags.classes(settings) == ("owl",)
    assert [record.path for record in tags.read(settings).records] == ["images/00.jpg"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"labels": "tags.csv"},
            "dataset.labels: there is no file {root}/tags.csv, nor tags.csv in the working folder",
        ),
        ({"labels": "/nowhere/l.csv"}, "dataset.labels: there is no file /nowhere/l.csv$"),
        ({"images": "fotos"}, "dataset.images: there is no folder {root}/fotos, nor fotos in the working folder"),
        ({"masks": "truth"}, "dataset.masks: there is no folder {root}/truth, nor truth in the working folder"),
        ({"classes": "names.txt"}, "dataset.classes: there is no file {root}/names.txt, nor names.txt in the"),
        ({"images": 300 * "x"}, "dataset.images: there is no folder"),
        ({"train": (300 * "x",)}, "there is no split list"),
    ],
)
def test_table_says_where_it_looked(table_root, settings, message):
    with pytest.raises(UserError, match=message.format(root=table_root)):
        tags.read(TableSettings(root=str(table_root), **settings))


def test_the_working_folder_is_no_folder_of_images_unless_it_is_named(table_root, monkeypatch):
    monkeypatch.chdir(table_root)
    (table_root / "images").rename(table_root / "photos")
    with pytest.raises(UserError, match="dataset.images: name the folder of the images"):
        tags.read(TableSettings(root="."))
    assert len(tags.read(TableSettings(root=".", images="photos")).records) == 40


def test_table_val_fraction_is_stable(table_root):
    settings = TableSettings(root=str(table_root), masks="masks", val_fraction=0.3)
    first = {r.id: r.splits for r in tags.read(settings).records}
    assert set(first.values()) == {("train", "score"), ("val",)}
    assert 4 <= sum(s == ("val",) for s in first.values()) <= 20
    save_image(table_root / "images/new.jpg")
    with open(table_root / "labels.csv", "a") as handle:
        handle.write("\nnew.jpg,dog\n")
    second = {r.id: r.splits for r in tags.read(settings).records}
    assert {i: second[i] for i in first} == first
    assert second["new"] == ("train",)


def test_table_split_column(table_root):
    save_text(
        table_root / "labels.csv", "image,labels,split\n00,cat,train\n01,cat,val\n02,dog,score\n03,dog,\n04,,ood\n"
    )
    reading = tags.read(TableSettings(root=str(table_root), masks="masks"))
    roles = {r.id: r.splits for r in reading.records}
    assert roles == {"00": ("train",), "01": ("val",), "02": ("train", "score"), "04": ("ood",)}
    save_text(table_root / "labels.csv", "image,labels,split\n00,cat,train\n01,cat,val score\n02,dog,score val\n")
    reading = tags.read(TableSettings(root=str(table_root), masks="masks"))
    assert {r.id: r.splits for r in reading.records} == {
        "00": ("train",),
        "01": ("score", "val"),
        "02": ("score", "val"),
    }
    save_text(table_root / "labels.csv", "image,labels,split\n00,cat,trian\n")
    reading = tags.read(TableSettings(root=str(table_root)))
    assert "unknown split 'trian' (did you mean 'train'?)" in texts(reading)[0]


def test_table_names_with_spaces_and_subfolders(table_root):
    save_image(table_root / "images/sub/été 1.PNG")
    text = "\ufeffimage,note,labels\r\nsub/été 1.PNG,x,fire engine; school bus\r\n"
    save_text(table_root / "labels.csv", text)
    reading = tags.read(TableSettings(root=str(table_root), separator=";"))
    assert reading.class_names == ("fire engine", "school bus")
    assert by_id(reading)["sub/été 1"].classes == (0, 1)


def test_the_images_to_score_may_be_those_for_evaluation(table_root):
    save_text(table_root / "lists/a.txt", "00\n01.jpg\n")
    save_text(table_root / "lists/b.txt", "02\n")
    settings = TableSettings(root=str(table_root), lists="lists", train=("a",), val=("b",), score="b", masks="masks")
    found = by_id(tags.read(settings))
    assert {i: r.splits for i, r in found.items()} == {"00": ("train",), "01": ("train",), "02": ("score", "val")}
    assert found["02"].classes, "its seeds are made of its tags"
    save_text(table_root / "labels.csv", "image,labels\n00,cat\n01,dog\n")
    assert "02: labels.csv: no row gives the labels of this image" in " ".join(texts(tags.read(settings)))


def test_table_lists(table_root):
    save_text(table_root / "lists/a.txt", "00\n01.jpg\n")
    save_text(table_root / "lists/b.txt", "02\n")
    settings = TableSettings(root=str(table_root), lists="lists", train=("a",), val=("b",), masks="masks")
    assert {r.id: r.splits for r in tags.read(settings).records} == {
        "00": ("train", "score"),
        "01": ("train", "score"),
        "02": ("val",),
    }
    with pytest.raises(UserError, match=r"dataset.val: .* dataset.train"):
        tags.read(TableSettings(root=str(table_root), lists="lists", val=("b",)))


def test_table_problems_are_collected(table_root):
    save_text(table_root / "classes.txt", "cat\ndog\n")
    text = "image,labels\n00.jpg,Cat\n01,cat\n01.jpg,dog\n99,cat\n02\n,cat\n03,dog\n03,dog\n"
    save_text(table_root / "labels.csv", text)
    found = texts(tags.read(TableSettings(root=str(table_root), classes="classes.txt")))
    assert any("unknown class 'Cat' (did you mean 'cat'?" in t and "row 2" in t for t in found)
    assert any(t.startswith("error: 01: labels.csv, row 4: duplicate: the image is in row 3 too") for t in found)
    assert any(t.startswith("error: 99: labels.csv, row 5: there is no such image") for t in found)
    assert any(t.startswith("error: 02: labels.csv, row 6: the row has too few columns") for t in found)
    assert any(t.startswith("row: : labels.csv, row 7: the row names no image") for t in found)
    assert any(t.startswith("row: 03: labels.csv, row 9: duplicate") for t in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found the columns nothing; expected are a column or key of images"),
        ("photo,labels\n", "found the columns photo, labels; expected are"),
        ("image;lables\n00;cat\n", r"found the columns image, lables \(lables holds 'cat'\); expected are"),
        ("image,labels\n00,\n", "no row holds a label"),
    ],
)
def test_table_wrong_csv(table_root, text, message):
    save_text(table_root / "labels.csv", text)
    with pytest.raises(UserError, match=f"labels.csv: .*{message}"):
        tags.read(TableSettings(root=str(table_root)))


def test_files_that_are_not_utf8_or_absent(tmp_path):
    save_text(tmp_path / "labels.csv", "image,labels\né,cat\n", encoding="latin-1")
    with pytest.raises(UserError, match="labels.csv: is not UTF-8"):
        read_labels(tmp_path / "labels.csv", " ")
    with pytest.raises(UserError, match="nothing.csv: cannot be read"):
        read_labels(tmp_path / "nothing.csv", " ")


def test_class_lists(tmp_path):
    save_text(tmp_path / "c.txt", "Background\n cat \n\nfire engine\n")
    assert read_class_names(tmp_path / "c.txt") == ("cat", "fire engine")
    save_text(tmp_path / "c.txt", "cat\ncat\n")
    with pytest.raises(UserError, match="'cat' stands twice"):
        read_class_names(tmp_path / "c.txt")
    save_text(tmp_path / "c.txt", "background\n")
    with pytest.raises(UserError, match="holds no class names"):
        read_class_names(tmp_path / "c.txt")


@pytest.mark.parametrize("name", ["background", "Background", "_background_", "mean", " Mean", "MEAN "])
def test_words_that_tables_of_scores_use_name_no_class_in_any_format(name, tmp_path):
    save_text(tmp_path / "labels.csv", f"image,labels\na,cat;{name}\n")
    save_text(tmp_path / "classes.txt", f"cat\n{name}\n")
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": name}]
    save_text(tmp_path / "train.json", json.dumps({"images": [], "annotations": [], "categories": categories}))
    (tmp_path / "photos").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    table = TableSettings(root=str(tmp_path), images="photos", separator=";")
    for module, settings in (
        (tags, table),
        (tags, replace(table, classes="classes.txt")),
        (voc, VocSettings(root=str(tmp_path), classes="classes.txt")),
        (coco, coco_settings(tmp_path)),
    ):
        for read in (module.classes, module.read):
            with pytest.raises(UserError, match=f"'{name.strip()}'|'{name}'") as caught:
                read(settings)
            assert "cannot be the name of a class" in str(caught.value)


def test_names_that_only_begin_like_reserved_words_are_free():
    assert class_list(["mean dog", "backgrounds", "ignore"], Path("c")) == ("mean dog", "backgrounds", "ignore")


@pytest.mark.parametrize("name", ["sea\ngull", "sea\u2028gull", "sea\x85gull", ""])
def test_the_name_of_a_class_is_one_line(name):
    with pytest.raises(UserError, match="is one line of text"):
        class_list(["cat", name], Path("train.json"))


@pytest.mark.parametrize(
    ("settings", "key"),
    [(VocSettings(root="nowhere"), "root"), (TableSettings(root="nowhere"), "root"), (CocoSettings(root="no"), "root")],
)
def test_a_missing_folder_names_its_key(settings, key):
    module = {VocSettings: voc, TableSettings: tags, CocoSettings: coco}[type(settings)]
    with pytest.raises(UserError, match=f"dataset.{key}: there is no folder no"):
        module.read(settings)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def coco_json(images: list[dict], annotations: list[dict]) -> dict:
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def coco_root(tmp_path) -> Path:
    for name in ("000000000001", "000000000002", "000000000003"):
        save_image(tmp_path / f"photos/{name}.jpg", (20, 30))
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 20, "width": 30} for i in (1, 2, 3)]
    crowd = {"counts": [0, 20 * 5, 20 * 25], "size": [20, 30]}
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 90, "bbox": [12, 4, 4, 4], "segmentation": rectangle(12, 4, 16, 8)},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [10, 2, 15, 10], "segmentation": rectangle(10, 2, 25, 12)},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 20], "segmentation": crowd, "iscrowd": 1},
        {"id": 4, "image_id": 2, "category_id": 13, "bbox": [1, 1, 3, 3], "segmentation": [[1, 1, 4, 4]]},
    ]
    save_text(tmp_path / "train.json", json.dumps(coco_json(images, annotations)))
    return tmp_path


def coco_settings(root: Path, **changes) -> CocoSettings:
    return CocoSettings(
        **{"root": str(root), "train": ("train.json",), "train_images": ("photos",), "val": ()} | changes
    )


def read_coco(root: Path, workers: int = 0, **changes):
    """The reading, masks drawn into ``drawn``."""
    return coco.read(coco_settings(root, **changes), workers, root / "drawn")


def read_labels_of(record) -> np.ndarray:
    return np.asarray(Image.open(record.mask))


def test_coco_categories_masks_and_boxes(coco_root):
    reading = read_coco(coco_root)
    assert reading.class_names == ("person", "stop sign", "toothbrush")
    records = by_id(reading)
    assert records["000000000001"].classes == (0, 2)
    assert records["000000000001"].boxes == (
        Box(2, 12, 4, 16, 8),
        Box(0, 10, 2, 25, 12),
        Box(0, 0, 0, 5, 20, crowd=True),
    )
    assert records["000000000002"].classes == (1,)
    assert records["000000000003"].classes == () and records["000000000003"].splits == ("train", "score")
    assert [t for t in texts(reading) if "no class tags" in t] == [
        "note: 000000000003: 000000000003.jpg: no class tags: the image is trained on as background only"
    ]
    labels = read_labels_of(records["000000000001"])
    assert labels.shape == (20, 30)
    assert labels[6, 14] == 3 and labels[10, 20] == 1 and labels[10, 2] == 255 and labels[18, 28] == 0
    assert not read_labels_of(records["000000000002"]).any(), "two points are no polygon"
    assert not read_labels_of(records["000000000003"]).any()


def test_coco_crowds_as_their_class(coco_root):
    reading = read_coco(coco_root, crowd="class")
    assert read_labels_of(by_id(reading)["000000000001"])[10, 2] == 1


def test_coco_masks_are_drawn_again_only_where_needed(coco_root):
    read_coco(coco_root)
    masks = {path: path.stat().st_mtime_ns for path in (coco_root / "drawn").glob("*.png")}
    assert len(masks) == 3
    content = json.loads((coco_root / "train.json").read_text())
    content["annotations"][1]["segmentation"] = rectangle(10, 2, 25, 14)
    save_text(coco_root / "train.json", json.dumps(content))
    read_coco(coco_root, workers=2)
    changed = {path.stem for path, time in masks.items() if path.stat().st_mtime_ns != time}
    assert changed == {"000000000001"}


def test_coco_and_voc_take_paths_from_the_working_folder_too(coco_root, voc_root, monkeypatch):
    monkeypatch.chdir(coco_root.parent)
    here = coco_root.name
    (coco_root / "empty").mkdir()
    settings = coco_settings(coco_root / "empty", train=(f"{here}/train.json",), train_images=(f"{here}/photos",))
    assert len(coco.read(settings).records) == 3 and len(coco.classes(settings)) == 3
    with pytest.raises(UserError, match=r"dataset.train: there is no file .*empty/no.json, nor no.json in the working"):
        coco.read(replace(settings, train=("no.json",)))
    save_text(coco_root / "c.txt", "cat\ndog\n")
    settings = VocSettings(root=str(voc_root), classes=f"{here}/c.txt")
    assert voc.read(settings).class_names == ("cat", "dog")
    with pytest.raises(UserError, match=r"dataset.tags: there is no file .*/t.csv, nor t.csv in the working folder"):
        voc.read(replace(settings, tags="t.csv"))


def test_coco_class_subset_in_own_order(coco_root):
    save_text(coco_root / "classes.txt", "toothbrush\nperson\n")
    reading = read_coco(coco_root, classes="classes.txt")
    records = by_id(reading)
    assert reading.class_names == ("toothbrush", "person")
    assert records["000000000001"].classes == (0, 1) and records["000000000002"].classes == ()
    assert read_labels_of(records["000000000001"])[6, 14] == 1
    save_text(coco_root / "classes.txt", "tothbrush\n")
    with pytest.raises(UserError, match="classes.txt: unknown class 'tothbrush'.*toothbrush"):
        read_coco(coco_root, classes="classes.txt")


def test_coco_several_files(coco_root):
    save_image(coco_root / "more/7.jpg", (20, 30))
    more = coco_json([{"id": 7, "file_name": "7.jpg", "height": 20, "width": 30}], [])
    save_text(coco_root / "more.json", json.dumps(more))
    both = {"train": ("train.json", "more.json"), "train_images": ("photos", "more")}
    assert set(by_id(read_coco(coco_root, **both))) == {f"{i:012d}" for i in (1, 2, 3)} | {"7"}
    reading = read_coco(coco_root, val=("train.json",), val_images=("photos",))
    assert sum("duplicate: id" in text for text in texts(reading)) == 3
    more["categories"] = more["categories"][:2]
    save_text(coco_root / "more.json", json.dumps(more))
    with pytest.raises(UserError, match="more.json: its categories differ"):
        read_coco(coco_root, **both)


def test_coco_score_list_and_given_masks(coco_root):
    save_text(coco_root / "subset.txt", "000000000002\n")
    reading = read_coco(coco_root, score="subset")
    assert [r.id for r in reading.records if "score" in r.splits] == ["000000000002"]
    write_mask(coco_root / "given/000000000001.png", np.zeros((20, 30)))
    given = read_coco(coco_root, score="subset", masks="given")
    assert "mask: 000000000002: 000000000002.png: there is no such mask" in texts(given)


def test_coco_problems(coco_root):
    content = json.loads((coco_root / "train.json").read_text())
    content["images"].append({"id": 9, "file_name": "000000000009.jpg", "height": 2, "width": 3})
    content["annotations"] += [
        {"id": 8, "image_id": 2, "category_id": 12, "bbox": [0, 0, 1, 1], "segmentation": []},
        {"id": 9, "image_id": 404, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": []},
        {"id": 10, "image_id": 3, "category_id": 1, "segmentation": {"counts": [0, 6], "size": [2, 3]}},
    ]
    save_text(coco_root / "train.json", json.dumps(content))
    found = texts(read_coco(coco_root))
    assert any(t.startswith("error: 000000000009.jpg: train.json: there is no such image") for t in found)
    assert "error: 000000000002: train.json: annotation 8: unknown category id 12" in found
    assert "row: 404: train.json: 1 annotations are of an image that the file does not list" in found
    code = "the run-length code is for [height, width] [2, 3], the image for [20, 30]"
    assert f"mask: 000000000003: 000000000003.jpg: no mask can be drawn: annotation 10: {code}" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no images, no annotations, no categories"),
        ('{"images": [], "annotations": [], "categories": []}', "holds no class names"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "its categories are not in COCO's format"),
        ('{"images": {}, "annotations": null, "categories": []}', "holds no images, no annotations"),
    ],
)
def test_coco_wrong_json(coco_root, text, message):
    save_text(coco_root / "train.json", text)
    with pytest.raises(UserError, match=f"train.json: .*{message}"):
        read_coco(coco_root)


def listing(root: Path, form: str = "table", **settings) -> str:
    return listing_digest({"format": form, "root": str(root), **settings})


def test_listing_sees_images_masks_and_tables(table_root):
    digests = [listing(table_root, masks="masks")]
    assert listing(table_root, masks="masks") == digests[0]
    save_image(table_root / "images/new.jpg")
    digests.append(listing(table_root, masks="masks"))
    (table_root / "masks/00.png").unlink()
    digests.append(listing(table_root, masks="masks"))
    with open(table_root / "labels.csv", "a") as handle:
        handle.write("new,cat\n")
    digests.append(listing(table_root, masks="masks"))
    os.utime(table_root / "images/00.jpg", ns=(1, 1))
    digests.append(listing(table_root, masks="masks"))
    os.utime(table_root / "labels.csv", ns=(1, 1))
    assert len(set(digests)) == 5
    assert listing(table_root, masks="masks") == digests[-1], "a table counts by content"


def test_listing_never_fails(tmp_path, voc_root):
    assert listing(tmp_path / "nowhere") != listing(tmp_path / "nowhere", form="voc")
    assert listing(voc_root, form="voc") != listing(voc_root, form="voc", val=["missing"])


def test_listing_does_not_see_masks_it_draws(coco_root):
    settings = {"train": ["train.json"], "train_images": ["photos"], "val": []}
    before = listing(coco_root, form="coco", **settings)
    read_coco(coco_root)
    assert listing(coco_root, form="coco", **settings) == before
    assert listing(coco_root, form="coco", **settings, masks="drawn") != before


def test_real_voc_files(shared):
    settings = VocSettings(root=str(shared / "data/voc_sample"), train=("train",), val=(), tags="masks")
    reading = voc.read(settings)
    assert reading.tags_from_masks and len(reading.records) == 3 and not reading.problems
    assert all(record.splits == ("train", "score") for record in reading.records)


def test_real_coco_files(shared, tmp_path):
    settings = CocoSettings(
        root=str(shared / "data/coco100"),
        train=("annotations/instances_train2017.json",),
        train_images=("images",),
        val=(),
    )
    reading = coco.read(settings, drawn=tmp_path)
    assert len(reading.class_names) == 80 and reading.class_names[11] == "stop sign"
    assert len(reading.records) == 100 and all(record.mask for record in reading.records)
    shown = [set(np.unique(read_labels_of(record))) - {0, 255} for record in reading.records]
    tagged = [{c + 1 for c in record.classes} for record in reading.records]
    assert all(s <= t for s, t in zip(shown, tagged, strict=True))
    assert sum(map(len, shown)) > 0.9 * sum(map(len, tagged))


def test_two_coco_categories_with_one_id_are_refused(coco_root):
    content = json.loads((coco_root / "train.json").read_text())
    content["categories"].append({"id": content["categories"][0]["id"], "name": "another"})
    save_text(coco_root / "train.json", json.dumps(content))
    with pytest.raises(UserError, match=r"train\.json: .* have the same id"):
        read_coco(coco_root)


@pytest.mark.parametrize("text", ["<html><object/></html>", "<annotations/>"])
def test_xml_of_another_layout_is_a_problem_of_its_image(voc_root, text):
    path = sorted((voc_root / "Annotations").glob("*.xml"))[0]
    path.write_text(text)
    told = texts(voc.read(VocSettings(root=str(voc_root))))
    assert any(path.stem in line and "an annotation of VOC with <annotation>" in line for line in told)


@pytest.mark.parametrize(
    ("old", "new"), [(",20,", ",x,"), (",20,", ",-20,"), ("[]", "[3]"), ("[]", "["), ('["cat"]', "3"), (",0,", ",7,")]
)
def test_a_damaged_image_table_is_told_in_a_line(tmp_path, old, new):
    record = ImageRecord("a", "a.png", 20, 30, ("train",), (0,))
    write_table(tmp_path / "images.csv", ImageTable(("cat",), (record,)))
    assert read_table(tmp_path / "images.csv").records == (record,)
    text = (tmp_path / "images.csv").read_text()
    assert old in text
    (tmp_path / "images.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=r"images\.csv: is a damaged image table"):
        read_table(tmp_path / "images.csv")
