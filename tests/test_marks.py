"""Points and scribbles over masks, and as the only labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scenes import make_masks
from wsss_core.check import look_ahead
from wsss_core.config import load
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.errors import UserError
from wsss_core.refine.marks import MarksSettings
from wsss_core.store.cut import Cut, read_about, write_about
from wsss_core.store.masks import mask_name, read_mask, write_mask

SIZE = (6, 8)
RECORDS = [ImageRecord(name, f"photos/{name}", *SIZE, ("train",), (0,)) for name in ("a.jpg", "sub/b.jpg", "c.jpg")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Masks of the first class for three images, and scribbles of one."""
    write_manifest(tmp_path / "shard.json", ("cat", "dog"), RECORDS)
    for record in RECORDS:
        write_mask(tmp_path / "made" / mask_name(record.id), np.ones(SIZE))
    write_about(tmp_path / "made", Cut("otsu"))
    scribble = np.full(SIZE, 255, np.uint8)
    scribble[2, 1:5], scribble[5, :3] = 2, 0
    (tmp_path / "marks").mkdir()
    Image.fromarray(scribble).save(tmp_path / "marks/b.png")
    return tmp_path


def marked(folder: Path, **settings: object) -> list[np.ndarray]:
    given = MarksSettings(folder=str(folder / "marks"), **settings)
    make_masks(folder, "marks", given, start=folder / "made")
    return [read_mask(folder / "masks" / mask_name(record.id)) for record in RECORDS]


def test_scribbles_stand_over_the_mask_and_the_rest_stays(folder: Path) -> None:
    first, drawn, last = marked(folder)
    expected = np.ones(SIZE, np.uint8)
    expected[2, 1:5], expected[5, :3] = 2, 0
    assert (drawn == expected).all() and (first == 1).all() and (last == 1).all()
    assert read_about(folder / "masks") == Cut("otsu", notes=("marks by hand",))


def test_as_the_only_labels_all_else_is_undecided(folder: Path) -> None:
    first, drawn, last = marked(folder, rest="undecided")
    assert (first == 255).all() and (last == 255).all()
    assert sorted(np.unique(drawn).tolist()) == [0, 2, 255] and (drawn != 255).sum() == 7


@pytest.mark.parametrize("name", ["sub/b.jpg", "b.jpg", "b"])
@pytest.mark.parametrize("form", ["csv", "json"])
def test_points_are_discs_over_scribbles_under_any_name_of_their_image(folder: Path, name: str, form: str) -> None:
    if form == "csv":
        (folder / "marks/points.csv").write_text(f"image,x,y,class\n{name},2,2,background\n{name},7.9,0,dog\n")
    else:
        points = [{"x": 2, "y": 2, "class": "background"}, {"x": 7.9, "y": 0, "class": "dog"}]
        (folder / "marks/points.json").write_text(json.dumps({name: points}))
    drawn = marked(folder, radius=1)[1]
    by_loop = np.ones(SIZE, np.uint8)
    by_loop[2, 1:5], by_loop[5, :3] = 2, 0
    for row in range(6):
        for column in range(8):
            if abs(row - 2) + abs(column - 2) <= 1:
                by_loop[row, column] = 0
            if abs(row) + abs(column - 7) <= 1:
                by_loop[row, column] = 2
    assert (drawn == by_loop).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x,y,class\nb,1,1,cta\n", r"points.csv, row 2: there is no class 'cta' \(did you mean 'cat'\?\)"),
        ("image,x,y,class\nb,one,1,cat\n", "row 2: x and y must be numbers"),
        ("image,x,y,class\nb,nan,1,cat\n", "must be finite"),
        ("image,x,y,class\nb,8,1,cat\n", r"the point \(8, 1\) lies outside of the image of 8x6"),
        ("image,x,y,class\nb,1,-1,cat\n", "lies outside"),
        ("image,x,label\nb,1,cat\n", "no column class, y"),
    ],
)
def test_points_that_cannot_be_are_told_with_their_place(folder: Path, text: str, message: str) -> None:
    (folder / "marks/points.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        marked(folder)


def test_a_file_of_points_that_is_no_mapping_is_refused(folder: Path) -> None:
    (folder / "marks/points.json").write_text("[1]")
    with pytest.raises(UserError, match="points cannot be read"):
        marked(folder)


@pytest.mark.parametrize("labels", [np.full(SIZE, 7), np.zeros((3, 3))])
def test_scribbles_of_another_size_or_with_other_labels_are_refused(folder: Path, labels: np.ndarray) -> None:
    Image.fromarray(labels.astype(np.uint8)).save(folder / "marks/b.png")
    with pytest.raises(UserError, match="mask"):
        marked(folder)


def test_a_folder_without_marks_is_refused(folder: Path) -> None:
    (folder / "marks/b.png").unlink()
    with pytest.raises(UserError, match=r"neither scribbles \(.png\) nor points.csv"):
        marked(folder)


def test_check_says_how_many_images_have_marks_and_which_are_of_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("images").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", SIZE[::-1]).save(f"images/{name}.png")
    Path("labels.csv").write_text("image,labels\na,cat\nb,dog\nc,cat dog\n")
    Path("marks/points.csv").write_text("image,x,y,class\nc,1,1,cat\nz,1,1,cat\n")
    configuration = load(
        {
            "dataset": {"format": "table", "root": "."},
            "classifiers": {"bce": {"objective": "bce"}},
            "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
            "refinements": {
                "crf": {"method": "crf", "seed": "cam"},
                "marked": {"method": "marks", "masks": "crf", "folder": "marks"},
            },
        }
    )
    text = "refinements.marked: of 3 images 1 have scribbles and 1 points; 1 names of points are of no image, such as z"
    assert text in look_ahead(configuration)
