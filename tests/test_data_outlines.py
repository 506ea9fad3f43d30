"""Outlines and other shapes are checked before anything computes with them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.test_data_readers import annotation as voc_annotation
from tests.test_data_readers import by_id, read_coco, read_labels_of, rectangle, save_text, texts
from tests.test_data_readers import coco_root as coco_root  # fixtures
from tests.test_data_readers import voc_root as voc_root
from wsss_core.data import voc
from wsss_core.data.outlines import inside, outline_problem
from wsss_core.data.voc import VocSettings
from wsss_core.keyed import generator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools.*")

SIZE = (20, 30)
TEXT = coco_mask.encode(np.asfortranarray(np.eye(20, 30, dtype=np.uint8)))["counts"].decode()


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_read_as_their_own_tools_do(seed):
    drawn = generator(seed, "runs").random(SIZE) < 0.1 + 0.2 * seed
    code = coco_mask.encode(np.asfortranarray(drawn.astype(np.uint8)))
    outline = {"size": list(SIZE), "counts": code["counts"].decode()}
    assert outline_problem(outline, SIZE) == ""
    np.testing.assert_array_equal(inside(outline, SIZE), drawn)


def test_polygons_may_reach_a_little_over_the_border():
    outline = [[-2, -1, 35.5, -1, 35.5, 22, -2, 22], [1, 1, 2, 2]]
    assert outline_problem(outline, SIZE) == "" and inside(outline, SIZE).all()
    assert not inside([[1, 1, 4, 4]], SIZE).any()


BROKEN = {
    "far": (rectangle(1, 1, 350_000_000, 9), "a polygon reaches 350000000, far outside the image of 30x20 pixels"),
    "far to the left": ([[-1e9, 1, 3, 4, 5, 6]], "a polygon reaches -1000000000.0, far outside"),
    "far down": ([[1, 1, 3, 41, 5, 6]], "a polygon reaches 41, far outside"),
    "not a number": ([[1, math.nan, 3, 4, 5, 6]], "a polygon reaches nan, far outside"),
    "infinite": ([[1, 2, math.inf, 4, 5, 6]], "a polygon reaches inf, far outside"),
    "no float holds it": ([[1, 2, 10**400, 4, 5, 6]], "a polygon reaches 1000"),
    "null": ([[1, 2, None, 4, 5, 6]], "a polygon holds null where a number must be"),
    "text": ([[1, 2, "3", 4, 5, 6]], "a polygon holds a text where a number must be"),
    "true": ([[1, 2, True, 4, 5, 6]], "a polygon holds true or false where"),
    "nested": ([[[1, 2], [3, 4], [5, 6]]], "a polygon holds a list where a number must be"),
    "flat": ([1, 2, 3, 4, 5, 6], "a polygon is a number, not a list of numbers"),
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "a polygon holds 7 numbers, which are no pairs"),
    "word": ("polygon", "the segmentation is a text"),
    "number": (7, "the segmentation is a number"),
    "no counts": ({"size": [20, 30]}, "holds no size and counts"),
    "other size": ({"size": [30, 20], "counts": [600]}, "is for [height, width] [30, 20], the image for [20, 30]"),
    "huge size": ({"size": [10**9, 10**9], "counts": [1]}, "is for [height, width] [1000000000, 1000000000]"),
    "too long": ({"size": [20, 30], "counts": [0, 10**12]}, "covers 1000000000000 pixels of 600"),
    "negative": ({"size": [20, 30], "counts": [700, -100]}, "covers 600 pixels of 600, or goes back"),
    "fractions": ({"size": [20, 30], "counts": [300.5, 299.5]}, "neither whole numbers nor a text"),
    "null counts": ({"size": [20, 30], "counts": None}, "neither whole numbers nor a text"),
    "no code": ({"size": [20, 30], "counts": "ä€ no"}, "is no text that COCO's tools write"),
    "cut": ({"size": [20, 30], "counts": TEXT[:-1] + "o"}, "ends in the middle of a number"),
    "endless": ({"size": [20, 30], "counts": "o" * 1000}, "is no text that COCO's tools write"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_outlines_are_described(name):
    outline, text = BROKEN[name]
    assert text in outline_problem(outline, SIZE)


def change(coco_root, entry: str, place: int, **values) -> None:
    content = json.loads((coco_root / "train.json").read_text())
    content[entry][place] |= values
    save_text(coco_root / "train.json", json.dumps(content))


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "no float holds it"])
def test_a_broken_outline_is_the_matter_of_its_image(coco_root, name):
    outline, text = BROKEN[name]
    change(coco_root, "annotations", 0, segmentation=outline)
    reading = read_coco(coco_root, workers=1)
    (found,) = [t for t in texts(reading) if not t.startswith("note")]
    assert (
        found.startswith("mask: 000000000001: 000000000001.jpg: no mask can be drawn: annotation 1: ") and text in found
    )
    records = by_id(reading)
    assert records["000000000001"].mask == "" and records["000000000001"].classes == (0, 2)
    assert read_labels_of(records["000000000002"]).shape == (20, 30)


@pytest.mark.parametrize("outline", [None, [], {}])
def test_boxes_alone_are_no_masks(coco_root, outline):
    change(coco_root, "annotations", 3, segmentation=outline)
    text = "no mask can be drawn: annotation 4: has no outline; with boxes alone, set dataset.masks to null"
    assert f"mask: 000000000002: 000000000002.jpg: {text}" in texts(read_coco(coco_root))
    assert not [t for t in texts(read_coco(coco_root, masks=None)) if "outline" in t]


@pytest.mark.parametrize(
    ("entry", "values", "found"),
    [
        ("images", {"height": None}, "error: images[1]: train.json: 000000000002.jpg: height is None"),
        ("images", {"width": math.nan}, "error: images[1]: train.json: 000000000002.jpg: width is nan"),
        ("images", {"width": "30"}, "error: images[1]: train.json: 000000000002.jpg: width is '30'"),
        ("images", {"height": 10**6, "width": 10**6}, "1000000x1000000 pixels are more than can be read"),
        ("images", {"file_name": None}, "error: images[1]: train.json: file_name is None, not a text"),
        ("images", {"id": [2]}, "error: images[1]: train.json: 000000000002.jpg: id is [2]"),
        ("images", {"id": 1}, "error: 000000000002.jpg: train.json: duplicate: another image has the id 1 too"),
        ("annotations", {"image_id": [1]}, "row: : train.json: annotations[1] names no image"),
        (
            "annotations",
            {"category_id": None},
            "error: 000000000001: train.json: annotation 2: unknown category id None",
        ),
        ("annotations", {"category_id": [1]}, "error: 000000000001: train.json: annotation 2: unknown category id [1]"),
        (
            "annotations",
            {"bbox": [0, 0, math.nan, 1]},
            "row: 000000000001: train.json: annotation 2: its box is not four",
        ),
        ("annotations", {"bbox": "0 0 1 1"}, "row: 000000000001: train.json: annotation 2: its box is not four"),
        ("annotations", {"id": None}, ""),
    ],
)
def test_a_broken_entry_is_not_the_matter_of_the_file(coco_root, entry, values, found):
    change(coco_root, entry, 1, **values)
    reading = read_coco(coco_root)
    assert any(found in text for text in texts(reading))
    assert by_id(reading)["000000000003"].mask


def test_entries_that_are_no_objects(coco_root):
    content = json.loads((coco_root / "train.json").read_text())
    content["annotations"].append(None)
    content["images"].append(7)
    save_text(coco_root / "train.json", json.dumps(content))
    found = texts(read_coco(coco_root))
    assert "row: : train.json: annotations[4] names no image" in found
    assert "error: images[3]: train.json: the entry is no object" in found


@pytest.mark.parametrize("corner", ["nan", "inf", "-Infinity", "1e999"])
def test_corners_of_boxes_are_finite(voc_root, corner):
    save_text(voc_root / "Annotations/a.xml", voc_annotation(("dog", (1, 2, 3, corner))))
    (found,) = texts(voc.read(VocSettings(root=str(voc_root))))
    assert found == "error: a: a.xml: annotation cannot be read (a corner of a box is no finite number)"
