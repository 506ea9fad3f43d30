"""`wsss check`: a configuration and the files that it names, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from wsss_core import cli
from wsss_core.models.backbones import backbone

TABLE = {"format": "table", "root": "photos"}


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A working folder with three photos of cats and dogs, and their tags."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 30)).save(folder / f"images/{name}.jpg")
    (folder / "labels.csv").write_text("image,labels\na,cat\nb,dog\nc,cat dog\n")
    return folder


def check(capsys, **configuration) -> tuple[int, str]:
    """Exit status and all words of `wsss check` on a configuration."""
    Path("mine.yaml").write_text(yaml.safe_dump({"run": "mine", "dataset": TABLE} | configuration))
    status = cli.main(["check", "mine.yaml"])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_it_says_what_the_files_hold(photos, capsys):
    assert check(capsys) == (0, "run mine: table data\n2 classes: cat, dog\n3 images for training: cat 2, dog 2\n")


def test_files_that_are_not_here_are_no_mistake(photos, capsys):
    status, said = check(capsys, dataset={"format": "voc", "root": "VOCdevkit/VOC2012"})
    assert status == 0 and "dataset.root: there is no folder VOCdevkit/VOC2012 yet" in said


@pytest.mark.parametrize("word", ["background", "Mean"])
def test_a_reserved_word_among_the_tags_stops_it(photos, capsys, word):
    with open(photos / "labels.csv", "a") as handle:
        handle.write(f"a,{word}\n")
    status, said = check(capsys)
    assert status == 2 and f"labels.csv: {word!r} cannot be the name of a class" in said


def test_a_mistake_in_the_tags_is_told_once(photos, capsys):
    (photos / "labels.csv").write_text("image,labels\na,background\n")
    status, said = check(capsys)
    assert status == 2 and said.count("cannot be the name of a class") == 1


def test_weight_files_are_looked_at_with_the_backbone_that_they_are_for(photos, capsys):
    state = backbone("small").state_dict()
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, "small.pth")
    Path("empty.pth").touch()
    classifiers = {
        "one": {"objective": "bce", "backbone": "small", "weights": "small.pth"},
        "two": {"objective": "bce", "backbone": "small", "weights": "absent.pth"},
    }
    assert check(capsys, classifiers=classifiers) == (
        0,
        "run mine: table data\n  classifiers/one: bce\n  classifiers/two: bce\n2 classes: cat, dog\n"
        "3 images for training: cat 2, dog 2\n"
        "classifiers.one: small.pth fits the backbone small\nclassifiers.two: there is no weight file absent.pth yet\n",
    )
    classifiers["one"]["backbone"] = "vgg16"
    classifiers["two"]["weights"] = "empty.pth"
    seeds = {"cam": {"method": "cam", "classifier": "two"}}
    irn = {"irn": {"method": "irn", "seed": "cam", "network": {"weights": "small.pth", "backbone": "mobilenet_v2"}}}
    status, said = check(capsys, classifiers=classifiers, seeds=seeds, refinements=irn)
    assert status == 2
    assert "classifiers.one: small.pth: the weights do not fit the backbone vgg16" in said
    assert "empty.pth: is not a readable weight file; it is empty" in said
    assert "refinements.irn: small.pth: the weights do not fit the backbone mobilenet_v2" in said


def test_images_that_are_missing_stop_it_now(photos, capsys):
    with open("photos/labels.csv", "a") as handle:
        handle.write("absent,cat\n")
    status, said = check(capsys)
    assert status == 2 and "1 problem in the data set" in said and "absent: there is no such image" in said


def test_a_class_of_every_image_is_told_with_the_way_out(photos, capsys):
    text = Path("photos/labels.csv").read_text().splitlines()
    Path("photos/labels.csv").write_text("\n".join([text[0], *(line.partition(",")[0] + ",cat" for line in text[1:])]))
    status, said = check(capsys)
    assert status == 0 and "ATTENTION: every image for training has the class 'cat'" in said and "add images" in said


def test_a_second_file_adds_to_the_first(photos, capsys):
    Path("more.yaml").write_text("classifiers: {bce: {objective: bce, epochs: 3}}\ntargets: []\n")
    assert check(capsys)[0] == 0
    assert cli.main(["check", "mine.yaml", "more.yaml"]) == 0
    said = capsys.readouterr().out
    assert "classifiers/bce: bce (no target is built upon it, so it is not made)" in said


DETECTOR = {"detector": {"network": "faster_rcnn", "backbone": "small"}}


@pytest.mark.parametrize("section", [{"detectors": DETECTOR}, {"instances": {"filled": {"method": "filled"}}}])
def test_stages_of_boxes_need_data_that_can_have_them(photos, capsys, section):
    status, said = check(capsys, **section)
    assert status == 2 and "needs boxes, which data of the format table do not have: use voc or coco" in said


def test_boxes_are_counted_and_must_be_there(photos, capsys):
    (photos / "Annotations").mkdir()
    for name, objects in (("a", "<object><name>cat</name>{}</object>"), ("b", "<object><name>dog</name></object>")):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        (photos / f"Annotations/{name}.xml").write_text(f"<annotation>{objects.format(box)}</annotation>")
    (photos / "classes.txt").write_text("cat\ndog\n")
    (photos / "train.txt").write_text("a\nb\n")
    data = {"format": "voc", "root": "photos", "images": "images", "masks": None, "val": [], "classes": "classes.txt"}
    data |= {"train": ["photos/train.txt"]}
    status, said = check(capsys, dataset=data, detectors=DETECTOR)
    assert status == 0 and "1 boxes on 1 of 2 images for training" in said
    (photos / "Annotations/a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    status, said = check(capsys, dataset=data, detectors=DETECTOR)
    assert status == 2 and "detectors.detector: needs boxes, and no image for training has one" in said
