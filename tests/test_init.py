"""The first configuration: what is found in a folder, what is chosen, and that it runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.warm import wsss
from wsss_core import cli, init
from wsss_core.config import load
from wsss_core.config.reading import merged
from wsss_core.data.demo import DemoSettings, generate
from wsss_core.errors import UserError
from wsss_core.init import Machine, Weights, choose, find_weights, look
from wsss_core.models.backbones import backbone

TAGS = {f"{k}.jpg": ["cow"] if k % 3 == 0 else ["cow", "car"] if k % 3 == 1 else [] for k in range(9)}
"""Photos with their tags."""


def save(path: Path, size: tuple[int, int] = (24, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


def make_photos(folder: Path, tags: dict[str, list[str]] = TAGS, below: str = "") -> Path:
    for name in tags:
        save(folder / below / name)
    return folder


def as_csv(tags: dict[str, list[str]], separator: str = " ") -> str:
    return "".join(["image,labels\n", *(f"{name},{separator.join(labels)}\n" for name, labels in tags.items())])


FORMATS = {
    "labels.csv": as_csv(TAGS),
    "tags.csv": as_csv(TAGS, "|"),
    "train.csv": "filename,label\n" + "".join(f"{n},{label}\n" for n, ls in TAGS.items() for label in ls or [""]),
    "classes.tsv": "file\tcar\tcow\n" + "".join(f"{n}\t{'car' in ls:d}\t{'cow' in ls:d}\n" for n, ls in TAGS.items()),
    "semicolons.csv": as_csv(TAGS).replace(",", ";"),
    "tags.json": json.dumps(TAGS),
    "tags.yaml": yaml.safe_dump([{"image": name, "labels": labels} for name, labels in TAGS.items()]),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("below", ["", "images"])
def test_tags_are_found_in_every_shape(tmp_path, name, below):
    photos = make_photos(tmp_path / "photos", below=below)
    (photos / name).write_text(FORMATS[name])
    (photos / "README.txt").write_text("Photos of cows\nand cars.\n")
    found = look(photos)
    assert {label: count for label, (count, _) in found.classes.items()} == {"car": 3, "cow": 6}
    assert (found.photos, found.others, found.untagged, found.longest, found.masks) == (9, 0, 3, 32, None)
    assert found.labels == str(photos / name) and found.separator == ("|" if name == "tags.csv" else " ")


def test_folders_are_found_to_be_classes(tmp_path):
    photos = make_photos(tmp_path, {"cow/a.jpg": [], "cow/b.jpg": [], "car/c.jpg": [], "d.jpg": []})
    found = look(photos)
    assert found.labels == "folders" and found.untagged == 1
    assert found.classes == {"car": (1, "car/c.jpg"), "cow": (2, "cow/a.jpg")}


def test_masks_are_found_and_are_no_photos(tmp_path):
    photos = make_photos(tmp_path / "photos")
    (photos / "labels.csv").write_text(as_csv(TAGS))
    for name in TAGS:
        save(photos / "masks" / f"{Path(name).stem}.png")
    found = look(photos)
    assert found.masks == str(photos / "masks") and found.others == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tags for them. Looked at:\n  nothing that could hold tags"),
        ({"labels.csv": "photo,tag\n0.jpg,cow\n"}, "labels.csv: found the columns photo, tag; expected are"),
        ({"labels.csv": "image,labels\nx.jpg,cow\ny.jpg,cow\n"}, "labels.csv: 0 of its 2 rows name a photo"),
        ({"labels.csv": "image,labels\n0.jpg,\n1.jpg,\n"}, "no photo has a tag"),
        ({"labels.csv": "image,labels\n0.jpg,big cow\n1.jpg,big cow\n2.jpg,car\n"}, "'big cow' always stand together"),
    ],
)
def test_a_folder_without_tags_is_told_what_was_looked_at(tmp_path, files, message):
    photos = make_photos(tmp_path / "photos")
    for name, text in files.items():
        (photos / name).write_text(text)
    with pytest.raises(UserError) as error:
        look(photos)
    assert message in str(error.value)


def test_what_is_no_folder_of_photos_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no such folder"):
        look(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no photo \(read are .jpg"):
        look(tmp_path / "empty")
    monkeypatch.chdir(make_photos(tmp_path / "photos"))
    with pytest.raises(UserError, match=r"is the current folder.*\(photos\)"):
        look(Path())


def test_photos_that_cannot_be_opened_and_names_that_are_no_runs_are_refused(tmp_path, monkeypatch, capsys):
    photos = make_photos(tmp_path / "photos")
    (photos / "labels.csv").write_text(as_csv(TAGS))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "photos", "--out", "my run.yaml"]) == 2
    assert "my run.yaml: the run takes the name of the file" in capsys.readouterr().err
    for name in TAGS:
        (photos / name).write_bytes(b"no photo")
    assert cli.main(["init", "photos"]) == 2
    assert "photos: none of the photos can be opened, such as 0.jpg" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.yaml"))


def test_a_class_of_every_photo_is_told_with_the_way_out(tmp_path, capsys, monkeypatch):
    photos = make_photos(tmp_path / "photos")
    (photos / "labels.csv").write_text(as_csv({name: ["cow"] for name in TAGS}))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "photos"]) == 0
    said, written = capsys.readouterr().out, Path("mine.yaml").read_text()
    for text in (said, written):
        assert "ATTENTION: every photo has the tag cow, so nothing tells it from what is around it; add photos" in text


def test_weights_are_known_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    laptop = Machine(2, False)
    assert find_weights(None, laptop) == Weights("mobilenet_v2", "imagenet")
    assert find_weights(None, Machine(2, True)) == Weights("resnet50", "imagenet")
    assert find_weights("none", laptop) == Weights("small", None)
    (tmp_path / "weights").mkdir()
    network = backbone("vgg16")
    state = {network._published_name(name): value for name, value in network.state_dict().items()}
    torch.save({"x": torch.zeros(1)}, "weights/another.pth")
    Path("weights/a-broken.pt").write_text("no weights")
    torch.save(state, "weights/vgg.pth")
    expected = Weights("vgg16", "weights/vgg.pth")
    assert find_weights(None, laptop) == find_weights("weights/vgg.pth", laptop) == expected
    with pytest.raises(UserError, match="fits no backbone; there are resnet50"):
        find_weights("weights/another.pth", laptop)


@pytest.mark.parametrize(
    "weights", [Weights("small", None), Weights("resnet50", "weights/r: 50.pth"), Weights("mobilenet_v2", "imagenet")]
)
@pytest.mark.parametrize("machine", [Machine(2, False), Machine(16, True)])
def test_the_file_is_a_configuration_also_with_its_next_block(tmp_path, weights, machine):
    photos = tmp_path / "photos: mine"
    for name in TAGS:
        save(photos / name, (300, 400))
    (photos / "tags.csv").write_text(as_csv(TAGS, "|"))
    found = look(photos)
    text = init.configuration(found, weights, choose(found, weights, machine), machine, "mine")
    made = load(yaml.safe_load(text))
    assert list(made.stages) == ["bce", "cam", "masks"] and made.dataset["separator"] == "|"
    assert made.stages["bce"].settings["train"]["weights"] == weights.file
    start = text.index("seeds:")
    marks = (
        "# rib",
        "# rib-irn",
        "#   {method",
        "#    network",
        "# segmentations",
        "#   network",
        "#     {",
        "#      iter",
    )
    lines = [
        line.replace("# ", "", 1) if line.lstrip().startswith(marks) else line for line in text[start:].splitlines()
    ]
    whole = load(yaml.safe_load("\n".join([text[:start], *lines])))
    assert list(whole.stages) == ["bce", "cam", "rib", "masks", "rib-irn", "network"]


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    photos = make_photos(tmp_path / "photos")
    (photos / "labels.csv").write_text(as_csv(TAGS))
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in photos.iterdir())
    Path("mine.yaml").write_text("kept")
    assert cli.main(["init", "photos"]) == 2
    assert "mine.yaml: is there already" in capsys.readouterr().err and Path("mine.yaml").read_text() == "kept"
    assert cli.main(["init", "photos", "--out", "other.yaml"]) == 0
    assert yaml.safe_load(Path("other.yaml").read_text())["run"] == "other"
    assert sorted(path.name for path in photos.iterdir()) == before
    assert cli.main(["check", "other.yaml"]) == 0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Drawn photos with tags."""
    folder = tmp_path_factory.mktemp("drawn")
    return generate(DemoSettings(root=str(folder), train=8, val=1, background=0, min_side=64, max_side=80))


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ("labels.csv", ""),
        ("one-hot.csv", "dataset"),
        ("rows.tsv", "dataset"),
        ("tags.json", "dataset"),
        ("folders", ""),
    ],
)
def test_from_a_folder_to_masks(drawn, tmp_path, shape, target):
    """The whole way for two shapes of tags; for the others as far as the shape matters, to the table of images."""
    rows = [line.split(",") for line in (drawn / "labels.csv").read_text().splitlines()[1:]]
    tags = {row[0]: row[1].split() for row in rows if row[0].startswith("train")}
    photos = tmp_path / "photos"
    for name in tags:
        file = next((drawn / "JPEGImages").glob(f"{Path(name).stem}.*"))
        own = photos / (tags[name][0] if shape == "folders" and tags[name] else "") / file.name
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, own)
    classes = sorted({label for labels in tags.values() for label in labels})
    texts = {
        "labels.csv": as_csv(tags),
        "one-hot.csv": "\n".join(
            ["id," + ",".join(classes)]
            + [f"{n}," + ",".join(f"{c in ls:d}" for c in classes) for n, ls in tags.items()]
        ),
        "rows.tsv": "filename\tlabel\n" + "".join(f"{n}\t{c}\n" for n, ls in tags.items() for c in ls or [""]),
        "tags.json": json.dumps(tags),
    }
    if shape != "folders":
        (photos / shape).write_text(texts[shape])
    assert "8 photos in photos" in wsss(tmp_path, "init", "photos", "--weights", "none")
    assert "classes: " in wsss(tmp_path, "check", "mine.yaml")
    quick = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-4, "tag_scores": {"stop": False}}
    given = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    given = merged(given, {"classifiers": {"bce": quick}, "seeds": {"cam": {"scales": [1.0]}}})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(given))
    wsss(tmp_path, "run", "mine.yaml", *([target] if target else []), "--cores", "2")
    if not target:
        assert len(list(tmp_path.glob("results/mine/refinements/masks/masks/*/*.png"))) == 8
        assert "Given were 8 photos" in (tmp_path / "results/mine/report.html").read_text()
    else:
        assert len((tmp_path / "results/mine/dataset/images.csv").read_text().splitlines()) == 10
