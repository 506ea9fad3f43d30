"""`wsss predict`: which photos, under which names, what is written, and what a photo that fails does to the others."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core import cli
from wsss_core.models import cct
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.predict import find_photos
from wsss_core.segment.predict import Predictor, PredictSettings
from wsss_core.store.checkpoints import save_network
from wsss_core.store.masks import read_mask


@pytest.fixture
def model(tmp_path) -> Path:
    """A network with random weights that finds several labels in a photo."""
    torch.manual_seed(0)
    settings = {"rates": [1], "output_stride": 8, "msc_scales": [], "variant": "paper"}
    network = deeplab_v2("small", 3, settings["rates"], scales=())
    with torch.no_grad():
        network.aspp[0].weight.mul_(100)
    meta = {"backbone": "small", "class_names": ["cat", "dog"], "settings": settings}
    save_network(tmp_path / "model.pt", "segmentation", network.state_dict(), meta)
    return tmp_path / "model.pt"


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three photos, one in a sub-folder, one that is damaged, and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "sub/deep").mkdir(parents=True)
    for name, size in {"a.jpg": (40, 60), "sub/deep/a.PNG": (30, 50), "b.png": (40, 60)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("no photo")
    return folder


def predict(model: Path, out: Path, *words: object) -> int:
    return cli.main(["predict", "--device", "cpu", "--model", str(model), "--out", str(out), *map(str, words)])


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_predicted_in_its_sub_folders_and_a_bad_file_stops_nothing(tmp_path, model, photos, capsys):
    assert predict(model, tmp_path / "out", photos, "--csv", tmp_path / "found.csv") == 1
    assert files(tmp_path / "out") == ["a.png", "b.png", "sub/deep/a.png"]
    printed = capsys.readouterr()
    assert f"failed: {photos}/broken.png: image cannot be read" in printed.err
    assert "error: 1 of 4 photos could not be predicted" in printed.err
    assert [line.split(":")[0] for line in printed.out.splitlines()] == [
        str(photos / name) for name in ("a.jpg", "b.png", "sub/deep/a.PNG")
    ]
    predictor = Predictor(model)
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    for name, mask in [("a.jpg", "a.png"), ("sub/deep/a.PNG", "sub/deep/a.png")]:
        labels, _ = predictor.predict(np.asarray(Image.open(photos / name).convert("RGB")))
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / mask), labels)
        mine = [row for row in rows if row["image"] == str(photos / name)]
        counts = {("background", "cat", "dog")[k]: int((labels == k).sum()) for k in np.unique(labels)}
        assert {row["class"]: int(row["pixels"]) for row in mine} == counts
        assert [float(row["share"]) for row in mine] == pytest.approx(
            [n / labels.size for n in counts.values()], abs=1e-6
        )
        assert {(int(row["height"]), int(row["width"])) for row in mine} == {labels.shape}
    (bad,) = [row for row in rows if row["problem"]]
    assert bad["image"].endswith("broken.png") and not bad["class"]


def test_files_patterns_and_a_list_name_photos_once_each(tmp_path, model, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("# mine\n\nphotos/sub\nphotos/a.jpg\n")
    found = find_photos(cli.matching([Path("photos/*.jpg"), Path("photos/b.png")]), Path("list.txt"))
    assert [(str(p.path), p.name) for p in found] == [
        ("photos/a.jpg", "a"),
        ("photos/b.png", "b"),
        ("photos/sub/deep/a.PNG", "sub/deep/a"),
    ]
    assert predict(model, tmp_path / "out", "--list", "list.txt") == 0
    assert files(tmp_path / "out") == ["a.png", "sub/deep/a.png"]
    Path("list.txt").write_text("photos/none.jpg\n")
    assert predict(model, tmp_path / "out", "--list", "list.txt") == 2
    assert predict(model, tmp_path / "out") == 2


def test_overlays_and_probabilities_are_written_where_asked(tmp_path, model, photos):
    extra = ["--overlays", tmp_path / "over", "--probabilities", tmp_path / "soft", "--flip", "--scales", 1, 0.75]
    assert predict(model, tmp_path / "out", photos / "a.jpg", *extra) == 0
    with np.load(tmp_path / "soft/a.npz") as held:
        assert held["labels"].tolist() == ["background", "cat", "dog"]
        soft = held["probabilities"]
    predictor = Predictor(model, settings=PredictSettings(flip=True, scales=(1.0, 0.75)))
    labels, probabilities = predictor.predict(np.asarray(Image.open(photos / "a.jpg")))
    np.testing.assert_array_equal(soft, np.rint(probabilities * 255))
    np.testing.assert_array_equal(read_mask(tmp_path / "out/a.png"), labels)
    over = Image.open(tmp_path / "over/a.png")
    assert over.size == (60, 40) and over.mode == "RGB"
    assert predict(model, tmp_path / "out", photos / "a.jpg", *extra) == 0, "own results are replaced"


def test_large_photos_pass_in_tiles(tmp_path, model, photos, capsys):
    assert predict(model, tmp_path / "out", photos / "a.jpg", "--tile", 16, "--overlap", 8) == 0
    assert read_mask(tmp_path / "out/a.png").shape == (40, 60)
    assert predict(model, tmp_path / "crf", photos / "a.jpg", "--tile", 16, "--overlap", 8, "--crf") == 1
    assert "the dense CRF needs the whole photo" in capsys.readouterr().err
    assert predict(model, tmp_path / "crf", photos / "a.jpg", "--tile", 0, "--crf") == 0


def test_a_network_that_looks_at_whole_photos_takes_no_tiles(tmp_path, photos, capsys):
    settings = {"output_stride": 8, "channels": 8}
    network = cct.restored("small", 3, settings)
    meta = {**network.about, "class_names": ["cat", "dog"], "settings": settings}
    save_network(tmp_path / "cct.pt", network.kind, network.state_dict(), meta)
    assert predict(tmp_path / "cct.pt", tmp_path / "out", photos / "a.jpg", "--tile", 16, "--overlap", 8) == 1
    assert "a network of the form cct looks at whole photos" in capsys.readouterr().err
    assert predict(tmp_path / "cct.pt", tmp_path / "out", photos / "a.jpg") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "photos"], "photos/b.png: is a photo"),
        (["--overlays", "out"], "is a result of"),
        (["--overlays", "photos"], "is a photo"),
        (["--probabilities", "foreign"], "a.npz: is left as it is"),
        (["--overlays", "foreign"], "b.png: is left as it is"),
        (["--csv", "foreign/table.csv"], "table.csv: is left as it is"),
    ],
)
def test_nothing_foreign_is_replaced(tmp_path, model, photos, words, message, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("foreign").mkdir()
    Path("foreign/a.npz").write_bytes(b"mine")
    Path("foreign/table.csv").write_text("mine\n")
    Image.new("RGB", (3, 3)).save("foreign/b.png")
    before = {path: (tmp_path / path).read_bytes() for path in files(tmp_path)}
    assert predict(model, Path("out"), "photos", *words) == 2
    assert message in capsys.readouterr().err
    assert {path: (tmp_path / path).read_bytes() for path in files(tmp_path)} == before


def test_a_turned_photo_is_predicted_as_shown(tmp_path, model):
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("a.jpg", "b.png", "c.tif"):
        Image.new("RGB", (60, 40)).save(tmp_path / name, exif=turned)
    assert [photo.size for photo in find_photos([tmp_path])] == [(60, 40)] * 3
    assert predict(model, tmp_path / "out", *(tmp_path / name for name in ("a.jpg", "b.png", "c.tif"))) == 0
    assert all(read_mask(path).shape == (60, 40) for path in (tmp_path / "out").glob("*.png"))


def test_a_mask_that_was_changed_by_hand_stays(tmp_path, model, photos):
    assert predict(model, tmp_path / "out", photos / "a.jpg") == 0
    mask = read_mask(tmp_path / "out/a.png")
    Image.fromarray(255 - mask).save(tmp_path / "out/a.png")
    assert predict(model, tmp_path / "out", photos / "a.jpg") == 2
    np.testing.assert_array_equal(read_mask(tmp_path / "out/a.png"), 255 - mask)
