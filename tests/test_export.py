"""Masks leave for other programs and come back pixel by pixel, by each form's own library or by its description."""

from __future__ import annotations

import json
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from wsss_core import cli
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.exchange import pieces
from wsss_core.exchange.labelstudio import brush_code
from wsss_core.exchange.outlines import outline
from wsss_core.registry import FORMS
from wsss_core.store.masks import read_mask, write_mask
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CLASSES = ("cow", "Ünïcode & <co>", "night sky")
SIZES = {"a": (12, 17), "sub/b": (20, 9), "empty": (6, 7)}
UNDECIDED = 255


def drawn(name: str) -> np.ndarray:
    """Rings, single pixels that touch at corners, and pixels at the border, of all classes."""
    labels = np.zeros(SIZES[name], np.uint8)
    if name != "empty":
        labels[1:7, 1:8] = 1
        labels[2:6, 2:7] = 0
        labels[3:5, 3:6] = 2
        labels[np.arange(8, 12), np.arange(4)] = 3
        labels[-1] = 3
        labels[:3, -2:] = UNDECIDED
    return labels


@pytest.fixture
def masks(tmp_path) -> Path:
    """The masks of a stage, in two shards."""
    run = tmp_path / "run"
    records = []
    for name, (height, width) in SIZES.items():
        photo = tmp_path / "photos" / f"{name}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (90, 120, 60)).save(photo)
        records.append(ImageRecord(name, str(photo), height, width, ("train",), (0, 1, 2)))
    write_table(run / "dataset/images.csv", ImageTable(CLASSES, tuple(records)))
    folder = run / "refinements/crf/masks"
    for shard, part in {"0-of-2": records[:2], "1-of-2": records[2:]}.items():
        write_manifest(run / f"dataset/shards/train/{shard}.json", CLASSES, part)
        for record in part:
            write_mask(folder / shard / f"{record.id.replace('/', '%2F')}.png", drawn(record.id))
    return folder


def exported(masks: Path, form: str, name: str = "out") -> Path:
    out = masks.parents[3] / name
    assert cli.main(["export", "--masks", str(masks), "--out", str(out), "--format", form]) == 0
    return out


def annotated(name: str) -> np.ndarray:
    """What forms with annotations keep: they have no undecided pixels."""
    labels = drawn(name)
    return np.where(labels == UNDECIDED, 0, labels)


def test_masks_as_they_are_have_their_names_beside_them(masks):
    out = exported(masks, "png")
    assert (out / "classes.txt").read_text(encoding="utf-8").splitlines() == ["background", *CLASSES]
    for name in SIZES:
        assert (read_mask(out / f"{name.replace('/', '%2F')}.png") == drawn(name)).all()
    assert exported(masks, "png") == out, "own files are replaced"


def test_grey_levels_are_the_labels_for_who_reads_grey(masks):
    out = exported(masks, "index")
    for name in SIZES:
        stem = Path(name).name
        assert (cv2.imread(str(out / f"{stem}.png"), cv2.IMREAD_GRAYSCALE) == drawn(name)).all()


def test_voc_comes_back_by_the_colours_of_its_label_map(masks):
    out = exported(masks, "voc")
    colours = {}
    for line in (out / "labelmap.txt").read_text(encoding="utf-8").splitlines()[1:]:
        name, colour, *_ = line.split(":")
        colours[name] = np.array([int(value) for value in colour.split(",")])
    assert list(colours) == ["background", *CLASSES, "void"]
    listed = (out / "ImageSets/Segmentation/default.txt").read_text().split()
    assert listed == [Path(name).name for name in SIZES]
    for name in SIZES:
        painted = np.asarray(Image.open(out / f"SegmentationClass/{Path(name).name}.png").convert("RGB"))
        for label, colour in zip((0, 1, 2, 3, UNDECIDED), colours.values(), strict=True):
            assert ((painted == colour).all(-1) == (drawn(name) == label)).all()


def test_coco_comes_back_by_pycocotools(masks, capsys):
    from pycocotools.coco import COCO

    coco = COCO(str(exported(masks, "coco") / "annotations.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    images = {image["file_name"]: image for image in coco.loadImgs(coco.getImgIds())}
    assert set(images) == {f"{Path(name).name}.jpg" for name in SIZES}
    for name in SIZES:
        back = np.zeros(SIZES[name], np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(images[f"{Path(name).name}.jpg"]["id"])):
            assert annotation["area"] == coco.annToMask(annotation).sum()
            back[coco.annToMask(annotation) > 0] = annotation["category_id"]
        assert (back == annotated(name)).all()


def test_cvat_comes_back_by_its_run_lengths(masks):
    root = ET.parse(exported(masks, "cvat") / "annotations.xml").getroot()
    names = [label.findtext("name") for label in root.iter("label")]
    assert names == list(CLASSES)
    for name, image in zip(SIZES, root.iter("image"), strict=True):
        assert image.get("name") == f"{Path(name).name}.jpg"
        back = np.zeros((int(image.get("height")), int(image.get("width"))), np.uint8)
        for mask in image.iter("mask"):
            left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
            runs = [int(run) for run in mask.get("rle").split(",")]
            inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width) == 1
            back[top : top + height, left : left + width][inside] = names.index(mask.get("label")) + 1
        assert (back == annotated(name)).all()


def test_yolo_comes_back_by_its_outlines(masks):
    from pycocotools import mask as rasterised

    out = exported(masks, "yolo")
    names = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))["names"]
    assert names == dict(enumerate(CLASSES))
    for name, (height, width) in SIZES.items():
        back = np.zeros((height, width), np.uint8)
        for line in (out / f"labels/{Path(name).name}.txt").read_text().splitlines():
            number, *corners = line.split()
            pixels = [float(value) * (height if k % 2 else width) for k, value in enumerate(corners)]
            codes = rasterised.frPyObjects([pixels], height, width)
            back[rasterised.decode(rasterised.merge(codes)) > 0] = int(number) + 1
        assert (back == annotated(name)).all()


def brush_mask(code: list[int], size: tuple[int, int]) -> np.ndarray:
    """Label Studio's brush mask read bit by bit, by its description."""
    bits = iter("".join(f"{byte:08b}" for byte in code))

    def number(count: int) -> int:
        return int("".join(next(bits) for _ in range(count)), 2)

    total, value_bits = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated, length = number(1), number(sizes[number(2)]) + 1
        values += [number(value_bits)] * length if repeated else [number(value_bits) for _ in range(length)]
    return np.array(values).reshape(*size, 4)


def test_label_studio_comes_back_by_its_brush_masks(masks):
    out = exported(masks, "labelstudio")
    interface = ET.parse(out / "labels.xml").getroot()
    assert [label.get("value") for label in interface.iter("Label")] == list(CLASSES)
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    for name, task in zip(SIZES, tasks, strict=True):
        assert task["data"]["image"] == f"/data/local-files/?d={Path(name).name}.jpg"
        back = np.zeros(SIZES[name], np.uint8)
        for result in task["predictions"][0]["result"]:
            assert (result["original_height"], result["original_width"]) == SIZES[name]
            opacity = brush_mask(result["value"]["rle"], SIZES[name])[..., 3]
            (brushed,) = result["value"]["brushlabels"]
            back[opacity == 255] = CLASSES.index(brushed) + 1
        assert (back == annotated(name)).all()


@pytest.mark.parametrize(("form", "theirs"), [("cvat", "cvat"), ("coco", "coco"), ("voc", "voc_segmentation")])
def test_datumaro_reads_the_same_pixels(masks, form, theirs):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    out = exported(masks, form)
    if form == "coco":  # as it wants its folders
        target = out / "annotations/instances_default.json"
        target.parent.mkdir()
        (out / "annotations.json").rename(target)
    shutil.copytree(masks.parents[3] / "photos", out / "images", dirs_exist_ok=True)
    shutil.copy(out / "images/sub/b.jpg", out / "images/b.jpg")
    found = datumaro.Dataset.import_from(str(out), theirs)
    labels = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    seen = set()
    for item in found:
        name = next(name for name in SIZES if Path(name).name == item.id)
        back = np.zeros(SIZES[name], np.uint8)
        for annotation in item.annotations:
            if annotation.type == datumaro.AnnotationType.mask and labels[annotation.label] in CLASSES:
                back[np.asarray(annotation.image) > 0] = CLASSES.index(labels[annotation.label]) + 1
        assert (back == annotated(name)).all(), name
        seen.add(name)
    assert seen == set(SIZES)


def test_what_left_as_cvat_comes_back_mended(masks, capsys):
    """The whole loop: a mask is mended in the XML, as by hand, and comes back under the names of the run."""
    pytest.importorskip("datumaro", reason="datumaro is not installed")
    out = exported(masks, "cvat")
    shutil.copytree(masks.parents[3] / "photos", out / "images")
    shutil.copy(out / "images/sub/b.jpg", out / "images/b.jpg")
    tree = ET.parse(out / "annotations.xml")
    first = next(tree.getroot().iter("image"))
    added = {"label": CLASSES[1], "source": "manual", "occluded": "0", "rle": "0, 6", "left": "9", "top": "8"}
    ET.SubElement(first, "mask", {**added, "width": "3", "height": "2", "z_order": "1"})
    ET.SubElement(
        first, "box", {"label": CLASSES[0], "xtl": "1", "ytl": "2", "xbr": "5.5", "ybr": "7", "occluded": "0"}
    )
    points = {"label": CLASSES[2], "points": "3.0,4.0", "occluded": "0"}
    ET.SubElement(first, "points", points)
    tree.write(out / "annotations.xml", encoding="utf-8")
    exported(masks, "png", "names")
    back = masks.parents[3] / "back"
    words = [
        "import",
        str(out),
        "--format",
        "cvat",
        "--out",
        str(back),
        "--classes",
        str(out.parent / "names/classes.txt"),
    ]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "tags of 3 images" in told and "2 masks in" in told and "1 boxes in" in told
    assert "left out, as nothing here takes them: 1 points" in told
    expected = annotated("a")
    expected[8:10, 9:12] = 2
    assert (read_mask(back / "masks/a.png") == expected).all()
    assert (read_mask(back / "masks/b.png") == annotated("sub/b")).all()
    (box,) = json.loads((back / "boxes.json").read_text())["annotations"]
    assert box["bbox"] == [1, 2, 4.5, 5] and box["category_id"] == 1
    assert "a,cow" in (back / "labels.csv").read_text().splitlines()
    assert cli.main(words) == 0, "the same again"
    (back / "labels.csv").write_text("mine")
    assert cli.main(words) == 2 and (back / "labels.csv").read_text() == "mine"


@pytest.mark.parametrize(("path", "form"), [("nothing", "cvat"), ("run", "cvat"), ("out", "no-such-form")])
def test_annotations_that_cannot_be_read_are_told_in_a_line(masks, path, form, capsys):
    pytest.importorskip("datumaro", reason="datumaro is not installed")
    exported(masks, "cvat")
    top = masks.parents[3]
    assert cli.main(["import", str(top / path), "--format", form, "--out", str(top / "back")]) == 2
    assert not (top / "back").exists() and len(capsys.readouterr().err.splitlines()) == 1


def test_without_datumaro_a_line_says_what_to_install(masks, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datumaro", None)
    top = masks.parents[3]
    assert cli.main(["import", str(top), "--format", "cvat", "--out", str(top / "back")]) == 2
    assert "pip install 'wsss[exchange]'" in capsys.readouterr().err


def test_every_form_writes_twice_and_never_over_another_file(masks, capsys):
    for form in FORMS:
        out = exported(masks, form, form)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert before and exported(masks, form, form) == out
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        changed = sorted(before)[0]
        changed.write_bytes(b"mine")
        words = ["export", "--masks", str(masks), "--out", str(out), "--format", form]
        assert cli.main(words) == 2, form
        assert changed.read_bytes() == b"mine"
        assert str(changed) in capsys.readouterr().err


def random_masks() -> Iterator[np.ndarray]:
    draw = np.random.default_rng(0)
    for number in range(60):
        noise = draw.random(draw.integers(1, 24, 2))
        yield (cv2.blur(noise, (3, 3)).reshape(noise.shape) if number % 2 else noise) > 0.5


def test_outlines_enclose_just_the_pixels_of_each_piece():
    """By the rule of crossings: a pixel is inside if a line from its centre crosses the outline an odd number of times.
    A step there and back counts twice."""
    for mask in random_masks():
        for _, piece in pieces(mask.astype(np.uint8)):
            corners = outline(piece)
            crossings = np.zeros(piece.shape, int)
            rows, columns = np.mgrid[: piece.shape[0], : piece.shape[1]] + 0.5
            for (x, y), (a, b) in zip(corners, corners[1:] + corners[:1], strict=True):
                low, high = min(y, b), max(y, b)
                if low < high:
                    at = x + (rows - y) * (a - x) / (b - y)
                    crossings += (rows > low) & (rows < high) & (at < columns)
            assert (crossings % 2 == piece).all()


def test_brush_masks_come_back():
    for mask in random_masks():
        assert (brush_mask(brush_code(mask), mask.shape) == 255 * mask[..., None]).all()


def test_maps_leave_as_arrays_and_as_confidence(masks):
    run = masks.parents[2]
    draw = torch.Generator().manual_seed(0)
    maps = {
        name: SeedMaps(classes, {1.0: torch.rand(len(classes), 2, 2, generator=draw)}, size)
        for (name, size), classes in zip(SIZES.items(), ((0, 2), (0, 2), ()), strict=True)
    }
    folder = run / "seeds/cam/maps"
    for shard, part in {"0-of-2": ("a", "sub/b"), "1-of-2": ("empty",)}.items():
        records = dict.fromkeys(part, "")
        attrs = {"class_names": list(CLASSES)}
        build(folder / f"{shard}.h5", SEEDS, records, maps.__getitem__, attrs, cache=run / "cache.h5")
    soft, sure = exported(folder, "npz", "soft"), exported(folder, "confidence", "sure")
    for name, size in SIZES.items():
        full = maps[name].full().numpy()
        with np.load(soft / f"{Path(name).name}.npz", allow_pickle=False) as held:
            assert held["classes"].tolist() == [CLASSES[c] for c in maps[name].classes]
            np.testing.assert_allclose(held["maps"] / 255, full, atol=1 / 500)
            expected = held["maps"].max(0, initial=0)
        assert expected.shape == size
        assert (np.asarray(Image.open(sure / f"{Path(name).name}.png")) == expected).all()
    exported(folder, "npz", "soft")


@pytest.mark.parametrize(
    ("folder", "form", "message"),
    [
        ("refinements/crf/masks", "npz", "holds masks, not maps"),
        ("refinements/crf", "coco", "holds no shard folders with masks"),
        ("refinements/none/masks", "png", "holds no shard folders with masks"),
    ],
)
def test_a_folder_of_another_kind_is_named(masks, folder, form, message, capsys):
    words = ["export", "--masks", str(masks.parents[2] / folder), "--out", str(masks.parents[3] / "out")]
    assert cli.main([*words, "--format", form]) == 2
    assert message in capsys.readouterr().err and not (masks.parents[3] / "out").exists()


@pytest.mark.parametrize("form", ["png", "coco"])
def test_of_a_run_that_is_not_finished_nothing_is_written(masks, form, capsys):
    shutil.rmtree(masks / "1-of-2")
    assert cli.main(["export", "--masks", str(masks), "--out", str(masks.parents[3] / "out"), "--format", form]) == 2
    assert "1-of-2: is not made yet" in capsys.readouterr().err and not (masks.parents[3] / "out").exists()


def test_without_its_table_a_run_has_no_names(masks, capsys):
    (masks.parents[2] / "dataset/images.csv").unlink()
    assert cli.main(["export", "--masks", str(masks), "--out", str(masks.parents[3] / "out"), "--format", "coco"]) == 2
    assert "image table cannot be read" in capsys.readouterr().err


def test_a_name_that_a_form_cannot_write_is_refused(tmp_path):
    from wsss_core.errors import UserError
    from wsss_core.exchange import voc

    with pytest.raises(UserError, match="class 'a:b'"):
        voc.write(tmp_path / "out", [], ["a:b"])
    assert not (tmp_path / "out").exists()
