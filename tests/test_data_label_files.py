"""Files of tags in the shapes that people and programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from wsss_core.data import tags
from wsss_core.data.label_files import read_labels
from wsss_core.data.tags import TableSettings
from wsss_core.errors import UserError

EXPECTED = {"a.jpg": ("cow",), "b.jpg": ("cow", "fire truck"), "c.jpg": ()}
LISTS = {name: list(labels) for name, labels in EXPECTED.items()}

SHAPES = {
    "semicolons.csv": "image;labels\na.jpg;cow\nb.jpg;cow|fire truck\nc.jpg;\n",
    "tabs.tsv": "Filename\tTags\na.jpg\tcow\nb.jpg\tcow|fire truck\nc.jpg\t\n",
    "quoted.csv": 'path,labels\na.jpg,cow\nb.jpg,"cow|fire truck"\nc.jpg,""\n',
    "rows.csv": "filename,label\na.jpg,cow\nb.jpg,cow\nb.jpg,fire truck\nb.jpg,cow\nc.jpg,\n",
    "class.txt": "file_name,Class\na.jpg,cow\nb.jpg,fire truck\nb.jpg,cow\nc.jpg,\n",
    "one-hot.csv": "id,cow,fire truck\na.jpg,1,0\nb.jpg,1,1\nc.jpg,0,0\n",
    "true.csv": ",image,cow,fire truck\n0,a.jpg,True,False\n1,b.jpg,True,True\n2,c.jpg,,\n",
    "mapping.json": json.dumps(LISTS),
    "mapping.yaml": yaml.safe_dump(LISTS),
    "list.json": json.dumps([{"file": name, "labels": labels} for name, labels in LISTS.items()]),
    "list.yml": yaml.safe_dump([{"image": name, "classes": labels or None} for name, labels in LISTS.items()]),
    "cells.json": json.dumps({"a.jpg": "cow", "b.jpg": "cow|fire truck", "c.jpg": None}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_holds_the_same_tags(tmp_path, name):
    path = tmp_path / name
    path.write_text(SHAPES[name])
    whole = name in ("rows.csv", "class.txt")
    found = read_labels(path, " " if whole else "|")
    assert {row.image: tuple(sorted(row.labels)) for row in found.rows} == EXPECTED
    assert not found.problems and len(found.rows) == 3


def test_the_shape_is_told(tmp_path):
    told = {}
    for name, text in SHAPES.items():
        (tmp_path / name).write_text(text)
        told[name] = read_labels(tmp_path / name, "|").shape
    assert told["semicolons.csv"] == (
        "an image and its labels a row, in the columns image and labels, separated by semicolons"
    )
    assert told["rows.csv"] == "one label a row, in the columns filename and label, separated by commas"
    assert told["one-hot.csv"] == "a column of 0 and 1 for each of 2 classes, separated by commas"
    assert told["mapping.yaml"] == "images mapped to their labels"
    assert told["list.json"] == "a list of images with their labels"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "photo,labels\nx,cow\n", "found the columns photo, labels; expected are"),
        ("a.csv", "image,width,height\nx,10,20\n", r"\(width holds '10'\)"),
        ("a.csv", "image\nx\n", "found the columns image; expected are"),
        ("a.csv", "image,label,Label\nx,cow,cow\n", "names the column label twice"),
        ("a.json", "{", "a.json: cannot be read"),
        ("a.json", "3", "is neither a mapping from images to labels nor a list"),
        ("a.json", "[3]", "entry 1: has no image or no labels"),
        ("a.yaml", "a: [b\n", "a.yaml: cannot be read"),
        ("a.json", '{"x": ["cow"], "x": ["car"]}', "a.json: x stands twice; write all labels of an image in one list"),
        ("a.yaml", "x: [cow]\ny: [cow]\nx: [car]\n", "a.yaml: x, in lines 1 and 3 stands twice"),
        ("a.yaml", "", "is neither a mapping"),
    ],
)
def test_what_is_no_file_of_tags_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / name, " ")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "image,cow,car\nx,1\ny,0,1\n", "the row has 2 cells, the first line 3"),
        ("a.csv", "image,cow\n,1\ny,1\n", "the row names no image"),
        ("a.json", '{"x": 3, "y": ["cow"]}', "its labels are no text and no list of texts: 3"),
        ("a.json", '{"x": ["cow", 3], "y": ["cow"]}', "no list of texts"),
    ],
)
def test_a_broken_row_is_a_problem_and_the_rest_is_read(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    found = read_labels(tmp_path / name, " ")
    assert [row.image for row in found.rows] == ["y"]
    assert problem in found.problems[0].text


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cow/a.png", "fire truck/b.png", "train/fire truck/c.png", "d.png", "masks/cow/a.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def test_folders_are_classes(photos):
    settings = TableSettings(root=str(photos), labels="folders", masks="masks")
    assert tags.classes(settings) == ("cow", "fire truck")
    reading = tags.read(settings)
    assert {record.id: record.classes for record in reading.records} == {
        "cow/a": (0,),
        "fire truck/b": (1,),
        "train/fire truck/c": (1,),
        "d": (),
    }
    assert any(problem.text == "is read as folders that are classes" for problem in reading.problems)
    assert tags.sources(settings).files == ()


def test_a_table_of_another_shape_is_a_data_set(photos):
    (photos / "tags.tsv").write_text("file\tlabel\ncow/a.png\tbig cow\nd.png\tbig cow\nd.png\tcar\n")
    reading = tags.read(TableSettings(root=str(photos), labels="tags.tsv"))
    assert reading.class_names == ("big cow", "car")
    assert {record.id: record.classes for record in reading.records} == {"cow/a": (0,), "d": (0, 1)}


def test_several_labels_in_a_cell_of_one_label_stop_with_the_separator(photos):
    (photos / "labels.csv").write_text('image,label\ncow/a.png,"cow,dog"\nd.png,cow\n')
    with pytest.raises(UserError, match=r"though a cell of this column is one label; set dataset.separator to ','"):
        tags.read(TableSettings(root=str(photos)))
    reading = tags.read(TableSettings(root=str(photos), separator=","))
    assert reading.class_names == ("cow", "dog")


def test_a_label_that_is_made_of_others_stops_with_the_cure(photos):
    text = "image,{}\ncow/a.png,cow dog\nd.png,cow\ntrain/fire truck/c.png,dog\n"
    (photos / "labels.csv").write_text(text.format("label"))
    with pytest.raises(UserError, match="cow dog. are made of other labels; call the column labels"):
        tags.read(TableSettings(root=str(photos)))
    (photos / "labels.csv").write_text(text.format("labels"))
    assert tags.read(TableSettings(root=str(photos))).class_names == ("cow", "dog")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('a.jpg,"cow\nb.jpg,car\nc.jpg,cow\n', r"line 2 is no line of a table"),
        ('a.jpg,"cow\nb.jpg,car\nc.jpg,"cow"\n', r"line 2 is no line of a table"),
        ('a.jpg,"cow\nb.jpg,car"\nc.jpg,cow\n', r"the row that begins in line 2 ends in line 3"),
        ('"a.jpg,cow\nb.jpg",car\nc.jpg,cow\n', r"the row that begins in line 2 ends in line 3"),
        ('a.jpg,"cow\ncar"\n', r"the row that begins in line 2 ends in line 3"),
        ('a.jpg,"cow"s\n', r"line 2 is no line of a table"),
    ],
)
def test_a_stray_quote_does_not_swallow_rows(tmp_path, rows, message):
    path = tmp_path / "labels.csv"
    path.write_text("image,labels\n" + rows)
    with pytest.raises(UserError, match=message):
        read_labels(path, " ")


def test_a_quote_within_a_cell_is_that_rows_problem(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text('image,labels\na.jpg,cow"\nb.jpg,"car"\n')
    found = read_labels(path, " ")
    assert [(row.image, row.labels) for row in found.rows] == [("b.jpg", ("car",))]
    assert ["a quote stands within" in problem.text for problem in found.problems] == [True]


def test_a_class_whose_column_stands_twice_stops(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("image,cow,car,cow\na.jpg,1,0,0\n")
    with pytest.raises(UserError, match="names the column cow twice"):
        read_labels(path, " ")


def test_a_cell_larger_than_any_label_stops(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("image,labels\na.jpg," + 200_000 * "x" + "\n")
    with pytest.raises(UserError, match="line 2 is no line of a table"):
        read_labels(path, " ")


@pytest.mark.parametrize("key", [lambda name: name, lambda name: int(name.replace("_", ""))])
def test_vectors_of_the_field_are_read_by_the_list_of_classes(tmp_path, key):
    names = ("2007_000032", "2011_003271", "2008_000008")
    (tmp_path / "photos").mkdir()
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"photos/{name}.jpg")
    vectors = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], np.float32)
    np.save(tmp_path / "cls_labels.npy", {key(name): vector for name, vector in zip(names, vectors, strict=True)})
    (tmp_path / "classes.txt").write_text("cow\nfire truck\ncat\n")
    settings = TableSettings(root=str(tmp_path), images="photos", labels="cls_labels.npy", classes="classes.txt")
    reading = tags.read(settings)
    assert {record.id: record.classes for record in reading.records} == dict(
        zip(names, [(0,), (1, 2), ()], strict=True)
    )
    assert reading.class_names == ("cow", "fire truck", "cat")


@pytest.mark.parametrize(
    ("held", "names", "message"),
    [
        ({"a": [1, 0]}, None, "holds no names of classes; list them"),
        ({"a": [1, 0, 0]}, ("cow", "cat"), r"a has numbers of shape \(3,\), there are 2 classes"),
        ({"a": [1, 2]}, ("cow", "cat"), "a has int64 .* expected a 0 or 1 for every class"),
        ({"a": ["cow", "cat"]}, ("cow", "cat"), "expected a 0 or 1"),
        ({}, ("cow",), "is no dictionary from images"),
    ],
)
def test_vectors_that_say_something_else_are_refused(tmp_path, held, names, message):
    np.save(tmp_path / "c.npy", held)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "c.npy", " ", names)
