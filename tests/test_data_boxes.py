"""Boxes and true masks of single objects, from the files to the records of the index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import coco, voc
from wsss_core.data.box_noise import noisy
from wsss_core.data.boxes import Box, fitted, from_plain, plain
from wsss_core.data.coco import CocoSettings
from wsss_core.data.demo import DemoSettings
from wsss_core.data.examine import KnownFiles, examine, with_boxes_of_share, without_truth
from wsss_core.data.instances import true_instances
from wsss_core.data.table import ImageRecord, ImageTable, read_manifest, read_table, write_manifest, write_table
from wsss_core.data.voc import VocSettings
from wsss_core.errors import UserError
from wsss_core.steps.index import with_given_boxes
from wsss_core.store.instances import INSTANCES, Instances, InstanceStore
from wsss_core.store.masks import write_mask
from wsss_core.store.shards import build

SIZE = (20, 30)


@pytest.mark.parametrize(
    ("corners", "kept", "text"),
    [
        ((1, 2, 9, 12), (1, 2, 9, 12), ""),
        ((-4, 2, 9, 25), (0, 2, 9, 20), "leaves its image and is clipped"),
        ((3, 3, 4.5, 12), None, "a side of less than 2 pixels"),
        ((28.5, 3, 40, 12), None, "a side of less than 2 pixels"),
        ((9, 2, 1, 12), None, "ends before it begins"),
        ((0, 0, float("inf"), 5), None, "no finite number"),
    ],
)
def test_boxes_are_fitted_to_their_image(corners, kept, text):
    box, said = fitted(Box(3, *corners, difficult=True), SIZE)
    assert (box is None) == (kept is None) and text in said and bool(text) == bool(said)
    if box is not None:
        assert box == Box(3, *kept, difficult=True)


def test_boxes_go_through_tables_and_manifests(voc_root, tmp_path):
    records, _ = indexed(voc_root)
    table = ImageTable(("dog", "cat"), tuple(records))
    write_table(tmp_path / "images.csv", table)
    write_manifest(tmp_path / "shard.json", table.class_names, table.records)
    assert read_table(tmp_path / "images.csv") == table == read_manifest(tmp_path / "shard.json")
    boxes = records[0].boxes
    assert from_plain(json.loads(json.dumps(plain(boxes)))) == boxes


@pytest.fixture
def voc_root(tmp_path) -> Path:
    """One image: a dog (object 1, box 2) left, a cat (object 2, box 1) right, a void rim, a box outside the image."""
    root = tmp_path / "voc"
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "Annotations", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "JPEGImages/a.jpg")
    labels, numbers = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    labels[5:15, 2:10], numbers[5:15, 2:10] = 1, 1
    labels[4:12, 15:25], numbers[4:12, 15:25] = 2, 2
    labels[15:17, 2:10] = numbers[15:17, 2:10] = 255
    write_mask(root / "SegmentationClass/a.png", labels)
    write_mask(root / "SegmentationObject/a.png", numbers)
    (root / "classes.txt").write_text("dog\ncat\n")
    objects = [("cat", (16, 5, 26, 12), 1), ("dog", (3, 6, 10, 15), 0), ("dog", (28, 1, 28, 9), 0)]
    text = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1), hard in objects
    )
    (root / "Annotations/a.xml").write_text(f"<annotation>{text}</annotation>")
    (root / "ImageSets/Segmentation/train_aug.txt").write_text("a\n")
    return root


def indexed(root: Path, **settings):
    reading = voc.read(VocSettings(root=str(root), val=(), classes="classes.txt", **settings))
    records, problems = examine(reading, KnownFiles.read(root / "known.json"), 1)
    return records, [*reading.problems, *problems]


def test_objects_follow_the_boxes_they_belong_to(voc_root):
    records, problems = indexed(voc_root)
    (record,) = records
    assert record.boxes == (Box(1, 15, 4, 26, 12, difficult=True), Box(0, 2, 5, 10, 15))
    assert [p.text for p in problems] == [
        "the box (27, 0, 28, 9) has a side of less than 2 pixels in the image of 30x20: left out"
    ]
    assert {p.severity for p in problems} == {"note"}
    truth = true_instances(record)
    assert truth.classes.tolist() == [1, 0] and truth.boxes.tolist() == [[15, 4, 26, 12], [2, 5, 10, 15]]
    assert [int(mask.sum()) for mask in truth.masks] == [80, 80]
    assert truth.ignored.sum((1, 2)).tolist() == [16, 16] and not (truth.ignored & truth.masks).any()
    assert without_truth(record).instances == "" and without_truth(record).boxes == record.boxes


def test_an_object_without_a_box_comes_last_with_its_tightest(voc_root):
    (voc_root / "Annotations/a.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>16</xmin><ymin>5</ymin><xmax>25</xmax><ymax>12</ymax>"
        "</bndbox></object></annotation>"
    )
    truth = true_instances(indexed(voc_root)[0][0])
    assert truth.classes.tolist() == [1, 0] and truth.boxes[1].tolist() == [2, 5, 10, 15]


def test_boxes_are_drawn_around_the_regions_of_masks(voc_root):
    labels = np.array(Image.open(voc_root / "SegmentationClass/a.png"))
    labels[0, 29] = 2  # a speck
    write_mask(voc_root / "SegmentationClass/a.png", labels)
    (record,), _ = indexed(voc_root, boxes="masks")
    assert [(box.label, *box.corners) for box in record.boxes] == [(0, 2, 5, 10, 15), (1, 15, 4, 25, 12)]


def test_objects_of_another_size_or_without_a_class_are_noticed(voc_root):
    write_mask(voc_root / "SegmentationObject/a.png", np.zeros((5, 5), np.uint8))
    records, problems = indexed(voc_root)
    assert records[0].instances == ""
    assert ("row", "its objects are of 5x5 pixels, the image of 30x20") in [(p.severity, p.text) for p in problems]
    numbers = np.zeros(SIZE, np.uint8)
    numbers[18:, :3] = 1
    write_mask(voc_root / "SegmentationObject/a.png", numbers)
    with pytest.raises(UserError, match="object 1 lies where the mask .* shows no class"):
        true_instances(indexed(voc_root)[0][0])


def test_a_named_folder_without_objects_of_these_images_stops(voc_root):
    (voc_root / "objects").mkdir()
    with pytest.raises(UserError, match="dataset.instances: none of 1 images with a mask has a file <id>.png there"):
        indexed(voc_root, instances="objects")


def test_coco_keeps_overlaps_and_crowds(tmp_path):
    root = tmp_path / "coco"
    (root / "train").mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "train/a.jpg")
    crowd = {"counts": [0, 20 * 5, 20 * 25], "size": list(SIZE)}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 5, 20], "segmentation": crowd, "iscrowd": 1},
            {"id": 2, "image_id": 1, "category_id": 7, "bbox": [8, 4, 10, 10], "segmentation": square(8, 4, 18, 14)},
            {"id": 3, "image_id": 1, "category_id": 7, "bbox": [12, 6, 14, 12], "segmentation": square(12, 6, 26, 18)},
        ],
    }
    (root / "train.json").write_text(json.dumps(content))
    settings = CocoSettings(root=str(root), train=("train.json",), train_images=("train",), val=(), val_images=())
    reading = coco.read(settings, drawn=tmp_path / "drawn")
    records, problems = examine(reading, KnownFiles.read(tmp_path / "known.json"), 1)
    assert not problems and [box.crowd for box in records[0].boxes] == [True, False, False]
    truth = true_instances(records[0])
    assert truth.crowd.tolist() == [False, False, True]
    assert [int(mask.sum()) for mask in truth.masks] == [100, 168, 100]
    assert (truth.masks[0] & truth.masks[1]).sum() == 6 * 8


def square(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def test_instances_are_kept_as_they_are(tmp_path):
    generator = np.random.default_rng(0)
    masks = generator.random((3, 7, 9)) > 0.5
    found = {
        "a": Instances.of((7, 9), [4, 0, 2], generator.random((3, 4)), masks, [0.5, 0.25, 1], statistics={"kept": 3}),
        "b/c": Instances.of((5, 6)),
    }
    build(tmp_path / "s.h5", INSTANCES, {"a": "1", "b/c": "2"}, found.__getitem__, {}, cache=tmp_path / "c.h5")
    store = InstanceStore(tmp_path / "s.h5")
    for image, kept in found.items():
        for name in ("classes", "boxes", "masks", "scores", "ignored", "crowd"):
            np.testing.assert_array_equal(getattr(store[image], name), getattr(kept, name))
        assert store[image].size == kept.size and store[image].statistics == kept.statistics


def test_instances_of_another_size_are_refused():
    with pytest.raises(ValueError, match="masks of 1 objects"):
        Instances.of((4, 6), [0], [[0, 0, 2, 2]], np.zeros((1, 6, 4)))


def test_a_fraction_of_coco_evaluates_by_a_hash_of_the_ids(tmp_path):
    (tmp_path / "train").mkdir()
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 20, "width": 30} for k in range(40)]
    for image in images:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "train" / image["file_name"])
    boxes = [{"id": k, "image_id": k, "category_id": 7, "bbox": [8, 4, 10, 10]} for k in range(40)]
    content = {"images": images, "categories": [{"id": 7, "name": "dog"}], "annotations": boxes}
    (tmp_path / "train.json").write_text(json.dumps(content))
    given = {"root": str(tmp_path), "train": ("train.json",), "train_images": ("train",), "masks": None}
    read = coco.read(CocoSettings(**given, val=(), val_images=(), val_fraction=0.25))
    chosen = {record.id for record in read.records if record.splits == ("val",)}
    assert 5 <= len(chosen) <= 15 and "val" in read.wanted
    more = coco.read(CocoSettings(**given, val=(), val_images=(), val_fraction=0.5))
    assert chosen < {record.id for record in more.records if record.splits == ("val",)}
    with pytest.raises(UserError, match="dataset.val_fraction"):
        coco.read(CocoSettings(**given, val=("train.json",), val_images=("train",), val_fraction=0.25))


def test_a_share_of_the_boxes_is_among_those_of_a_larger_one():
    records = [ImageRecord(f"{k}", "", 20, 30, ("train",), (0,), boxes=(Box(0, 1, 1, 9, 9),)) for k in range(200)]
    boxed = {
        share: {r.id for r in (with_boxes_of_share(record, share, 0) for record in records) if r.boxes}
        for share in (0, 0.25, 0.5, 1)
    }
    assert not boxed[0] and boxed[0.25] < boxed[0.5] < boxed[1] == {record.id for record in records}
    assert 30 < len(boxed[0.25]) < 70
    held_out = replace(records[0], splits=("val",))
    assert with_boxes_of_share(held_out, 0, 0) == held_out


def record_with(*boxes):
    return ImageRecord("a", "a.png", 100, 100, ("train",), (0,), boxes=boxes)


def test_noise_scales_boxes_about_their_centre_within_the_image():
    record = record_with(Box(0, 20, 40, 60, 60, difficult=True), Box(1, 0, 0, 50, 50))
    larger = noisy(record, 0.5, "fixed", 0)
    assert larger == (Box(0, 10, 35, 70, 65, difficult=True), Box(1, 0, 0, 62.5, 62.5))
    assert noisy(record, -0.5, "fixed", 0)[0].corners == (30, 45, 50, 55)
    assert noisy(record, 0.0, "fixed", 0) == record.boxes
    thin = record_with(Box(0, 10, 10, 13, 40))
    assert noisy(thin, -0.5, "fixed", 0) == thin.boxes


def test_random_noise_is_between_none_and_all_and_always_the_same():
    record = record_with(*(Box(0, 30, 30, 70, 70) for _ in range(20)))
    found = noisy(record, 0.2, "random", 5)
    widths = np.array([box.x1 - box.x0 for box in found])
    assert widths.min() >= 40 and widths.max() <= 48 and widths.std() > 1
    assert found == noisy(record, 0.2, "random", 5) != noisy(record, 0.2, "random", 6)


def test_training_sees_badly_drawn_boxes_and_evaluation_the_true_ones():
    settings = DemoSettings(box_noise=0.5)
    train, val = record_with(Box(0, 20, 40, 60, 60)), replace(record_with(Box(0, 20, 40, 60, 60)), splits=("val",))
    assert with_given_boxes(train, settings).boxes == (Box(0, 10, 35, 70, 65),)
    assert with_given_boxes(val, settings) == val
