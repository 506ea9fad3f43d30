"""Masks that people have corrected win over those that were made, and are scored as what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.scenes import make_masks
from wsss_core import cli
from wsss_core.config import load, step_json
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.errors import UserError
from wsss_core.refine.corrected import CorrectedSettings
from wsss_core.store.cut import Cut, read_about, write_about
from wsss_core.store.masks import mask_name, read_mask, write_mask

SIZE = (6, 8)
RECORDS = [ImageRecord(name, f"photos/{name}", *SIZE, ("train",), (0,)) for name in ("a.jpg", "sub/b.jpg", "c.jpg")]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Masks of one class made for three images, and a folder for corrected ones."""
    write_manifest(tmp_path / "shard.json", ("cat", "dog"), RECORDS)
    for record in RECORDS:
        write_mask(tmp_path / "made" / mask_name(record.id), np.ones(SIZE))
    write_about(tmp_path / "made", Cut("otsu", notes=("first",)))
    (tmp_path / "corrected").mkdir()
    return tmp_path


def corrected(folder: Path) -> list[np.ndarray]:
    settings = CorrectedSettings(folder=str(folder / "corrected"))
    make_masks(folder, "corrected", settings, start=folder / "made")
    return [read_mask(folder / "masks" / mask_name(record.id)) for record in RECORDS]


def grey(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


@pytest.mark.parametrize("name", ["sub%2Fb.jpg.png", "sub/b.jpg.png", "sub/b.png", "b.png"])
def test_a_corrected_mask_wins_and_the_others_stay(folder, name):
    drawn = np.arange(48).reshape(SIZE) % 3
    grey(folder / "corrected" / name, drawn)
    first, mended, last = corrected(folder)
    assert (mended == drawn).all() and (first == 1).all() and (last == 1).all()
    assert read_about(folder / "masks") == Cut("otsu", notes=("first", "some masks are corrected by hand"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(SIZE, 7), r"a\.png: mask holds \[7\]"),
        (np.zeros((5, 5)), r"a\.png: mask is 5x5, its image is 8x6"),
        (np.zeros((*SIZE, 3)), r"a\.png: a mask must be a palette or grey PNG"),
    ],
)
def test_a_mask_that_cannot_be_is_named_and_nothing_is_made(folder, labels, message):
    grey(folder / "corrected/a.png", labels)
    with pytest.raises(UserError, match=message):
        corrected(folder)
    assert not (folder / "masks").exists()


def test_a_folder_where_no_mask_lies_is_no_folder_without_corrections(folder):
    with pytest.raises(UserError, match="holds no PNG .* but nothing"):
        corrected(folder)
    (folder / "corrected/a.tif").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no PNG .* but 1 files, such as a\.tif"):
        corrected(folder)
    (folder / "corrected/a.tif").unlink()
    (folder / "corrected").rmdir()
    with pytest.raises(UserError, match="is not a folder"):
        corrected(folder)


RAW = {
    "run": "mine",
    "dataset": {"format": "table", "root": "photos", "labels": "labels.csv"},
    "classifiers": {"bce": {"objective": "bce"}},
    "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
    "refinements": {
        "crf": {"method": "crf", "seed": "cam"},
        "mended": {"method": "corrected", "masks": "crf", "folder": "corrected"},
    },
    "segmentations": {"net": {"network": "deeplab_v2", "masks": "mended"}},
}


@pytest.mark.parametrize(
    ("masks", "labelled"), [(None, []), ("true", []), ("corrected", [[1.0, 0]]), ("../corrected", [[1.0, 0]])]
)
def test_masks_that_are_true_and_corrected_are_not_scored_with_themselves(masks, labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    configuration = load(RAW | {"dataset": RAW["dataset"] | {"masks": masks}})
    evaluation = json.loads(step_json(configuration, "refinements/mended", "evaluation"))
    assert evaluation["labelled"] == labelled
    assert json.loads(step_json(configuration, "refinements/crf", "evaluation"))["labelled"] == []


def test_check_counts_corrected_masks_and_names_strays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        grey(Path("photos") / name, np.zeros(SIZE))
    Path("photos/labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,dog\nc.jpg,cat dog\n")
    Path("mine.yaml").write_text(yaml.safe_dump(RAW))
    assert cli.main(["check", "mine.yaml"]) == 2
    assert "refinements.mended: there is no folder corrected" in capsys.readouterr().err
    grey(Path("corrected/x.png"), np.zeros(SIZE))
    assert cli.main(["check", "mine.yaml"]) == 2
    told = capsys.readouterr().err
    assert "no file in corrected is called as a mask of an image, such as a.png; such as x.png" in told
    grey(Path("corrected/a.png"), np.zeros(SIZE))
    assert cli.main(["check", "mine.yaml"]) == 0
    told = capsys.readouterr().out
    assert "refinements.mended: 1 of 3 images have a corrected mask; 1 of no image, such as x.png" in told
