"""Label text that betrays another separator, or another spelling."""

from __future__ import annotations

import json
import logging

import pytest

from tests.test_data_readers import by_id, coco_settings, save_image, save_text, texts
from tests.test_data_readers import coco_root as coco_root  # fixtures
from tests.test_data_readers import table_root as table_root
from tests.test_index import DataSet
from tests.test_index import data as data
from wsss_core.data import coco, tags
from wsss_core.data.label_text import check_labels, split_labels
from wsss_core.data.tags import TableSettings
from wsss_core.errors import UserError


def check(*cells: str, separator: str = " ", names: tuple[str, ...] | None = None) -> None:
    check_labels([split_labels(cell, separator) for cell in cells], separator, names, "labels.csv")


@pytest.mark.parametrize("character", [",", ";", "|", "/", "\\", "+", "&"])
def test_another_separator_is_seen(character):
    with pytest.raises(UserError) as caught:
        check("owl", f"cow{character}dog", "dog")
    assert f"1 of 3 labels, such as {f'cow{character}dog'!r}, hold {character!r}" in str(caught.value)
    assert f"set it to {character!r}" in str(caught.value)
    check("owl", f"cow{character}dog", "dog", separator=character)
    check("owl", f"cow{character}dog", "dog", names=("owl", "dog", f"cow{character}dog"))


@pytest.mark.parametrize("cell", ["['cow', 'dog']", '["cow"]', "{cow}", "cow:0.9 dog:0.1"])
def test_lists_that_a_program_wrote_are_seen(cell):
    with pytest.raises(UserError, match="labels, such as .*, hold "):
        check("owl", cell)


def test_tabs_and_several_lines_in_a_cell():
    check("cow\tdog", "cow", "dog", "cow\nowl")
    with pytest.raises(UserError, match=r"hold '\\t', though dataset.separator is ';'; set it to '\\t'"):
        check("cow\tdog", "cow", separator=";")


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["big cow", "dog", "big cow dog"], "'big cow' always stand together"),
        (["big cow", "small cow", "big cow", "dog"], "'big cow', 'small cow' always stand together"),
        (["stop sign", "stop sign traffic light", "traffic light", "car"], "'stop sign' always stand together"),
    ],
)
def test_names_with_spaces_are_seen(cells, found):
    with pytest.raises(UserError, match=found):
        check(*cells)
    check(*cells, names=tuple({word for cell in cells for word in cell.split()}))


def test_two_classes_that_often_stand_together_are_two():
    check("horse rider", "horse rider", "horse", "dog")
    check("horse rider", "dog", "cow")  # once is no habit
    check("cat dog", "cat", "dog cat", "dog")


def test_class_names_that_the_separator_cuts():
    with pytest.raises(UserError, match="the class list holds 'big cow', which dataset.separator, ' ', would cut"):
        check("big cow", "dog", names=("big cow", "dog"))
    check("big cow", "big cow;dog", separator=";", names=("big cow", "dog"))


@pytest.mark.parametrize(
    "pair", [("Cow", "cow"), ("fire-truck", "fire_truck"), ("caf\u00e9", "cafe\u0301"), ("cow\u200b", "cow")]
)
def test_one_name_in_two_writings(pair):
    with pytest.raises(UserError, match=r"differ by their writing alone: .*\(1 images\).*\(2 images\)"):
        check(sorted(pair)[0], sorted(pair)[1], sorted(pair)[1], "dog")
    check(*pair, names=pair)


def test_table_stops_at_each(table_root):
    settings = TableSettings(root=str(table_root))
    for text, found in [
        ('image,labels\n00,"cat,dog"\n01,cat\n', r"labels.csv: 1 of 2 labels, such as 'cat,dog'"),
        ("image,labels\n00,big cat\n01,big cat\n", "labels.csv: 'big cat' always stand together"),
        ("image,labels\n00,Cat\n01,cat\n", r"'Cat' \(1 images\) and 'cat' \(1 images\)"),
        ("image,labels,labels\n00,cat,dog\n", "its first line names the column labels twice"),
    ]:
        save_text(table_root / "labels.csv", text)
        with pytest.raises(UserError, match=found):
            tags.read(settings)


def test_a_row_with_more_cells_than_the_first_line(table_root):
    save_text(table_root / "labels.csv", "image,labels\n00,cat\n01,cat,dog\n02,dog,,\n")
    reading = tags.read(TableSettings(root=str(table_root)))
    assert set(by_id(reading)) == {"00", "02"}
    assert texts(reading)[0] == (
        "error: 01: labels.csv, row 3: the row has more cells than the first line has columns ('dog' is left over); "
        "write all labels in one cell, separated by white space"
    )


def test_images_without_a_row_are_counted(table_root):
    save_image(table_root / "images/z.jpg")
    save_image(table_root / "images/sub/y.jpg")
    text = "note: : images: 2 of 42 images have no row in labels.csv and are not used, such as sub/y.jpg"
    assert texts(tags.read(TableSettings(root=str(table_root)))) == [text]


def test_coco_categories_of_one_name(coco_root):
    content = json.loads((coco_root / "train.json").read_text())
    content["categories"].append({"id": 91, "name": "Person"})
    save_text(coco_root / "train.json", json.dumps(content))
    with pytest.raises(UserError, match="train.json: the categories 'Person' and 'person' differ by their writing"):
        coco.read(coco_settings(coco_root))
    content["categories"][-1]["name"] = "person"
    save_text(coco_root / "train.json", json.dumps(content))
    with pytest.raises(UserError, match="train.json: the categories 1 and 91 have the same name, 'person'"):
        coco.read(coco_settings(coco_root))


def test_classes_are_always_counted(data: DataSet, caplog):
    caplog.set_level(logging.INFO)
    data.index()
    assert "images for training by class: cat 3, dog 4, owl 3" in caplog.text
    caplog.clear()
    (data.root / "images/t0.png").write_bytes(b"")
    with pytest.raises(UserError):
        data.index()
    assert "images for training by class: cat 2, dog 4, owl 3" in caplog.text
