"""`wsss init` on photos with boxes: what is found, and a configuration that `wsss check` takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from wsss_core import cli
from wsss_core.data.demo import DemoSettings, generate
from wsss_core.init import look_for_boxes


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Path:
    """Twelve drawn pictures in VOC's layout, in a folder below the working folder."""
    monkeypatch.chdir(tmp_path)
    made = generate(DemoSettings(root=str(tmp_path / "demo"), train=12, val=1, background=1, min_side=64, max_side=72))
    shutil.copytree(made / "JPEGImages", tmp_path / "photos/JPEGImages")
    shutil.copytree(made / "Annotations", tmp_path / "photos/Annotations")
    shutil.copytree(made / "SegmentationClass", tmp_path / "truth")
    return tmp_path / "photos"


def checked(capsys) -> tuple[dict, str]:
    """The configuration that `wsss init photos` writes, and what it and `wsss check` say."""
    assert cli.main(["init", "photos", "--weights", "none"]) == 0
    assert cli.main(["check", "mine.yaml"]) == 0
    return yaml.safe_load(Path("mine.yaml").read_text()), capsys.readouterr().out


def test_annotations_as_those_of_voc(drawn, capsys):
    configuration, said = checked(capsys)
    found = look_for_boxes(Path("photos"))
    assert found and (found.photos, found.others, found.format) == (13, 1, "voc")
    assert f"{found.boxes} boxes on 13 photos in photos" in said and "1 photo has no box" in said
    assert f"{found.boxes} boxes on 13 of 13 images for training" in said
    assert configuration["dataset"]["val"] == [] and configuration["dataset"]["masks"] is None
    assert Path("mine-classes.txt").read_text().split() == ["beetle", "bird", "boat", "car", "sheep"]
    assert set(configuration) >= {"detectors", "attributions", "instances", "refinements"}


@pytest.mark.parametrize("place", ["xml", "photos"])
def test_annotations_lie_in_a_folder_of_another_name_or_beside_the_photos(drawn, capsys, place):
    (drawn / "JPEGImages").rename(drawn / "photos")
    for path in (drawn / "Annotations").glob("*.xml"):
        (drawn / place).mkdir(exist_ok=True)
        shutil.move(path, drawn / place / path.name)
    (drawn / "Annotations").rmdir()
    configuration, _ = checked(capsys)
    assert configuration["dataset"]["annotations"] == place and configuration["dataset"]["images"] == "photos"


def test_a_part_of_the_photos_with_true_masks_evaluates(drawn, capsys):
    shutil.move("truth", drawn / "SegmentationClass")
    configuration, _ = checked(capsys)
    train, val = (Path(f"mine-{name}.txt").read_text().split() for name in ("train", "val"))
    dataset = configuration["dataset"]
    assert dataset["val"] == ["mine-val.txt"] and dataset["masks"] == "SegmentationClass"
    assert val and not set(train) & set(val) and len(train) + len(val) == 13


@pytest.mark.parametrize("outlines", [True, False])
def test_annotations_of_coco(drawn, capsys, outlines):
    shutil.rmtree(drawn / "Annotations")
    files = sorted(path.name for path in (drawn / "JPEGImages").iterdir())
    boxes = [
        {"id": k, "image_id": k, "category_id": 3 + k % 2, "bbox": [4, 4, 20, 20]}
        | ({"segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]} if outlines else {})
        for k in range(len(files))
    ]
    content = {
        "images": [{"id": k, "file_name": name, "height": 64, "width": 64} for k, name in enumerate(files)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "traffic light"}, {"id": 5, "name": "unseen"}],
        "annotations": boxes,
    }
    (drawn / "boxes.json").write_text(json.dumps(content))
    configuration, said = checked(capsys)
    assert "14 boxes on 14 photos in photos" in said and "2 classes: cat, traffic light" in said
    dataset = configuration["dataset"]
    assert (dataset["format"], dataset["train"], dataset["train_images"]) == ("coco", ["boxes.json"], ["JPEGImages"])
    assert dataset.get("val_fraction") == (0.2 if outlines else None) and ("masks" in dataset) is not outlines


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"images": 3}', '{"images": [], "annotations": [], "categories": []}']
)
def test_other_files_are_no_boxes(drawn, content):
    shutil.rmtree(drawn / "Annotations")
    (drawn / "other.json").write_text(content)
    (drawn / "train_0000.xml").write_text("<svg/>")
    assert look_for_boxes(drawn) is None


def test_files_beside_it_are_never_replaced(drawn, capsys):
    Path("mine-classes.txt").write_text("mine")
    assert cli.main(["init", "photos", "--weights", "none"]) == 2
    assert "mine-classes.txt: is there already" in capsys.readouterr().err
    assert Path("mine-classes.txt").read_text() == "mine" and not Path("mine.yaml").exists()
