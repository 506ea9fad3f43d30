"""Names that are nearly right get a hint; files that are there are not said to be missing."""

from __future__ import annotations

import unicodedata

import pytest

from tests.test_data_readers import coco_root as coco_root  # fixtures
from tests.test_data_readers import coco_settings, save_image, save_text, texts
from tests.test_data_readers import table_root as table_root
from tests.test_data_readers import voc_root as voc_root
from wsss_core.data import coco, tags, voc
from wsss_core.data.reading import ImageFolder
from wsss_core.data.tags import TableSettings
from wsss_core.data.voc import VocSettings
from wsss_core.errors import UserError

NFD = unicodedata.normalize("NFD", "Café-01")


@pytest.fixture
def images(tmp_path) -> ImageFolder:
    for name in ("IMG_001.JPG", "sub/Café-01.png", "a/same.jpg", "b/same.jpg", "photo.v2.jpg"):
        save_image(tmp_path / f"images/{name}")
    for name in ("phone.HEIC", "deep/raw.CR2", "moving.gif", "plain", "notes.txt", "odd.jpg ", "cut.jpg.crdownload"):
        save_text(tmp_path / f"images/{name}", "x")
    return ImageFolder(tmp_path / "images", "images")


def told(images: ImageFolder, name: str) -> str:
    with pytest.raises(LookupError) as caught:
        images.find(name)
    return str(caught.value).removeprefix(f"there is no such image in {images.folder}")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("img_001.jpg", "'IMG_001.JPG'"),
        ("IMG-001", "'IMG_001.JPG'"),
        ("img 001.jpeg", "'IMG_001.JPG'"),
        ("images/IMG_001.JPG", "'IMG_001.JPG'"),
        ("./IMG_001.JPG", "'IMG_001.JPG'"),
        ("/home/me/photos/IMG_001.JPG", "'IMG_001.JPG'"),
        (r"C:\photos\IMG_001.JPG", "'IMG_001.JPG'"),
        ("IMG_001.png", "'IMG_001.JPG'"),
        (r"sub\Café-01.png", "'sub/Café-01.png'"),
        ("Café-01.png", "'sub/Café-01.png'"),
        (f"sub/{NFD}.png", "'sub/Café-01.png'"),
        ("sub/café_01\u200b", "'sub/Café-01.png'"),
        ("same.jpg", "'a/same.jpg' or 'b/same.jpg'"),
    ],
)
def test_a_name_that_is_nearly_right(images, name, meant):
    assert told(images, name) == f" (did you mean {meant}?)"


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("phone", "phone.HEIC"),
        ("phone.HEIC", "phone.HEIC"),
        ("Phone.heic", "phone.HEIC"),
        ("phone.jpg", "phone.HEIC"),
        ("raw", "deep/raw.CR2"),
        ("moving.gif", "moving.gif"),
        ("plain", "plain"),
        ("odd.jpg", "odd.jpg "),
        ("cut.jpg", "cut.jpg.crdownload"),
    ],
)
def test_a_file_with_an_ending_that_is_not_read(images, name, there):
    assert told(images, name).startswith(
        f", but {there!r}, which is not read as an image (endings that are read are .jpg"
    )


@pytest.mark.parametrize("name", ["nothing.jpg", "photo.v3.jpg", "IMG_0011.JPG", ""])
def test_other_names_get_no_hint(images, name):
    assert told(images, name) == ""


def test_rows_and_lists_get_the_hint(table_root):
    (table_root / "images/05.jpg").rename(table_root / "images/05.heic")
    (table_root / "images/07.jpg").rename(table_root / "images/Seven.jpg")
    save_text(table_root / "labels.csv", "image,labels\n00,cat\n05.jpg,dog\nseven.jpg,cat\n")
    found = texts(tags.read(TableSettings(root=str(table_root))))
    assert any(
        "labels.csv, row 3: there is no such image" in t and "but '05.heic', which is not read" in t for t in found
    )
    assert any("labels.csv, row 4: there is no such image" in t and "did you mean 'Seven.jpg'" in t for t in found)


def test_a_folder_of_other_files_says_what_it_holds(table_root):
    save_text(table_root / "sky/1.heic", "x")
    with pytest.raises(
        UserError, match=r"sky holds no images; it holds 1 files such as 1.heic, whose ending is not read"
    ):
        tags.read(TableSettings(root=str(table_root), ood=("sky",)))


def test_files_and_folders_get_the_hint(table_root, voc_root, coco_root):
    for settings, message in [
        (
            TableSettings(root=str(table_root), images="Images"),
            r"there is no folder .*Images, nor .*did you mean 'images'\?",
        ),
        (TableSettings(root=str(table_root), labels="label.csv"), r"label.csv, nor .*did you mean 'labels.csv'"),
    ]:
        with pytest.raises(UserError, match=message):
            tags.read(settings)
    with pytest.raises(UserError, match=r"trian.json, nor .*did you mean 'train.json'"):
        coco.read(coco_settings(coco_root, train=("trian.json",)))
    (voc_root / "Annotations/b.xml").rename(voc_root / "Annotations/b.XML")
    found = texts(voc.read(VocSettings(root=str(voc_root))))
    assert any("error: b: b.xml: there is no such file" in text and "did you mean 'b.XML'" in text for text in found)
