"""`wsss objects`: objects as COCO's JSON, read back by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from wsss_core import cli
from wsss_core.exchange.coco_objects import coco_objects
from wsss_core.models.backbones import backbone
from wsss_core.models.mask_rcnn import MaskRcnn
from wsss_core.store.checkpoints import save_network
from wsss_core.store.instances import Instances


def read_back(content: dict) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        table = COCO()
        table.dataset = json.loads(json.dumps(content))
        table.createIndex()
    return table


def test_masks_names_and_boxes_come_back_as_they_were():
    generator = np.random.default_rng(0)
    found = {
        name: Instances.of(
            (30, 40),
            generator.integers(0, 3, n),
            np.zeros((n, 4)),
            generator.random((n, 30, 40)) > 0.6,
            np.full(n, 0.25),
        )
        for name, n in (("a.jpg", 3), ("größe/b.png", 0), ("c.jpg", 2))
    }
    table = read_back(coco_objects(found.items(), ["cat", "traffic light", "dog"]))
    assert [category["name"] for category in table.loadCats([1, 2, 3])] == ["cat", "traffic light", "dog"]
    for image in table.loadImgs(table.getImgIds()):
        objects = found[image["file_name"]]
        annotations = table.loadAnns(table.getAnnIds([image["id"]]))
        assert len(annotations) == len(objects) and (image["height"], image["width"]) == (30, 40)
        for number, annotation in enumerate(annotations):
            mask = table.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(mask, objects.masks[number])
            x, y, width, height = annotation["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum() == annotation["area"]
            assert annotation["category_id"] == objects.classes[number] + 1 and annotation["score"] == 0.25


def test_objects_without_a_pixel_are_left_out():
    empty = Instances.of((4, 4), [0], [[0, 0, 2, 2]], np.zeros((1, 4, 4), bool))
    assert coco_objects([("a.jpg", empty)], ["cat"])["annotations"] == []


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    network = MaskRcnn(backbone("small", 32), 2, channels=8, short_side=64, long_side=96)
    meta = {**network.about, "class_names": ["cat", "dog"]}
    save_network(tmp_path / "model.pt", network.kind, network.state_dict(), meta)
    return tmp_path / "model.pt"


def objects(*words: object) -> int:
    return cli.main(["objects", *map(str, words)])


def test_a_bad_photo_does_not_stop_the_others(tmp_path, model, capsys):
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    photos = [tmp_path / f"{name}.jpg" for name in "abc"]
    words = ("--model", model, "--out", tmp_path / "o.json", "--overlays", tmp_path / "over", "--device", "cpu")
    assert objects(*photos, *words) == 1
    printed = capsys.readouterr()
    assert "failed:" in printed.err and "c.jpg" in printed.err and "in 2 photos" in printed.out
    content = json.loads((tmp_path / "o.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert sorted(path.name for path in (tmp_path / "over").iterdir()) == ["a.jpg.png", "b.jpg.png"]
    assert objects(*photos[:2], *words) == 0, "own results are replaced"


def test_foreign_files_are_never_replaced(tmp_path, model, capsys):
    (tmp_path / "mine.json").write_text('{"mine": 1}')
    assert objects(tmp_path, "--model", model, "--out", tmp_path / "mine.json") == 2
    assert "mine.json: is left as it is" in capsys.readouterr().err


BOTH = ["--run", "r", "--stage", "s"]


@pytest.mark.parametrize("words", [[], BOTH[:2], BOTH[2:], ["a.jpg"], ["a.jpg", *BOTH]])
def test_wrong_calls_say_what_goes_together(tmp_path, words, capsys):
    assert objects(*words, "--out", tmp_path / "o.json") == 2
    assert "objects: " in capsys.readouterr().err
