"""Data without a background: every pixel is of some class, and no mask holds a 0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from tests.warm import wsss
from wsss_core import cli
from wsss_core.config import load
from wsss_core.data.examine import KnownFiles, zeros_without_background
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.evaluate.sweep import ScoresSettings
from wsss_core.evaluate.thresholds import score_thresholds
from wsss_core.refine import NO_BACKGROUND
from wsss_core.refine.crf import CrfSettings, crf_mask
from wsss_core.refine.threshold import score_mask
from wsss_core.store.seeds import SeedMaps

MAPS = torch.tensor([[[0.0, 0.2, 0.1, 0.0]], [[0.0, 0.1, 0.3, 0.9]]])
RUN = {
    "run": "land",
    "dataset": {"format": "table", "root": ".", "background": "none"},
    "classifiers": {"bce": {"objective": "bce"}},
    "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
    "refinements": {"crf": {"method": "crf", "seed": "cam"}, "cut": {"method": "seed_threshold", "seed": "cam"}},
}


def test_every_pixel_has_the_strongest_present_class():
    assert score_mask(MAPS, (2, 4), NO_BACKGROUND, None).tolist() == [[3, 3, 5, 5]]
    assert score_mask(MAPS[:1], (2,), NO_BACKGROUND, None).tolist() == [[3, 3, 3, 3]]
    assert score_mask(MAPS[:0], (), NO_BACKGROUND, None).tolist() == [[255] * 4]


@pytest.mark.parametrize("unary", ["label", "soft"])
def test_the_crf_lets_the_classes_alone_compete(unary):
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[:, 15:] = 255
    maps = torch.full((2, 20, 30), 0.05)
    maps[0, :, :13], maps[1, :, 13:] = 0.2, 0.2
    settings = CrfSettings(unary=unary)
    assert crf_mask(image, maps, (0, 3), NO_BACKGROUND, settings)[10, 11:17].tolist() == [1, 1, 1, 1, 4, 4]
    assert np.unique(crf_mask(image, maps[:1], (3,), NO_BACKGROUND, settings)).tolist() == [4]
    assert np.unique(crf_mask(image, maps[:0], (), NO_BACKGROUND, settings)).tolist() == [255]


def test_scores_are_means_over_the_classes_alone():
    seed = SeedMaps((0, 1), {1.0: torch.tensor([[[0.0, 0.2, 1.0, 0.0]], [[0.0, 0.1, 0.3, 1.0]]])}, (1, 4), stride=1)
    target = np.array([[1, 1, 2, 2]], dtype=np.uint8)
    found = score_thresholds(lambda ids: [(seed, target)], [], ["a"], ScoresSettings(rule="none"), 3)
    assert found.levels == () and found.chosen is None
    assert np.isnan(found.at_chosen.iou[0])  # label 0 takes no part
    assert found.at_chosen.iou[1:].tolist() == [2 / 3, 1 / 2]
    assert found.miou(0) == 0.583333


def test_the_data_set_decides_thresholds_and_rules():
    stages = load(RUN).stages
    assert stages["cam"].settings["scores"]["rule"] == "none"
    assert [stages[name].settings["masks"]["threshold"] for name in ("crf", "cut")] == ["none", "none"]


@pytest.mark.parametrize(
    "section, stage, message",
    [
        ("refinements", {"method": "crf", "seed": "cam", "threshold": 0.3}, "there is no background to cut off"),
        ("refinements", {"method": "irn", "seed": "cam"}, "irn needs a background, and dataset.background is none"),
        (
            "seeds",
            {"method": "cam", "classifier": "bce", "score": {"rule": "otsu"}},
            "seeds.more.score.rule: there is no",
        ),
        ("segmentations", {"network": "deeplab_v2", "masks": "crf"}, "export the masks of a refinement"),
    ],
)
def test_what_needs_a_background_is_refused(section, stage, message):
    with pytest.raises(UserError, match=message):
        load(RUN | {section: {**RUN.get(section, {}), "more": stage}})


def test_no_background_is_a_property_of_the_data():
    crf = {"method": "crf", "seed": "cam", "threshold": "none"}
    with pytest.raises(UserError, match="refinements.crf.threshold: none is for data without a background"):
        load(RUN | {"dataset": {"format": "table", "root": "."}, "refinements": {"crf": crf}})


def test_a_zero_in_a_true_mask_is_told_with_numbers(tmp_path):
    known = KnownFiles(tmp_path / "known.json", {"mask": {"a.png": {"labels": [0, 1]}, "b.png": {"labels": [1, 255]}}})
    records = [ImageRecord(name, f"{name}.jpg", 1, 4, ("score",), (0,), mask=f"{name}.png") for name in "ab"]
    assert "1 of 2 true masks hold label 0, such as that of 'a'" in zeros_without_background(records, known)[0].text
    assert zeros_without_background(records[1:], known) == []


NAMES = ("field", "water", "town")


def draw_land(folder: Path, count: int, side: int = 72) -> None:
    """Pictures of one to three textures side by side, their tags, and masks of 1 to 3."""
    draw = np.random.default_rng(0)
    (folder / "masks").mkdir(parents=True)
    rows = ["image,labels"]
    for number in range(count):
        present = draw.permutation(3)[: 1 + number % 3]
        mask = np.zeros((side, side), np.uint8)
        edges = [0, *sorted(draw.integers(20, side - 20, len(present) - 1)), side]
        for label, left, right in zip(present, edges, edges[1:], strict=False):
            mask[:, left:right] = label + 1
        y, x = np.mgrid[:side, :side]
        colours = np.array([[0, 0, 0], [90, 150, 60], [40, 80, 160], [150, 140, 135]])[mask].astype(float)
        pattern = np.select([mask == 1, mask == 3], [25 * np.sin(y), 50 * ((x // 4 + y // 4) % 2)], 0)
        pixels = colours + pattern[..., None] + draw.normal(0, 8, (side, side, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
        Image.fromarray(mask).save(folder / f"masks/{number:02}.png")
        rows.append(f"{number:02}.png,{' '.join(NAMES[label] for label in np.unique(mask) - 1)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")


@pytest.mark.workflow
def test_a_run_from_tags_to_the_report(tmp_path, monkeypatch, capsys):
    draw_land(tmp_path / "land", 24)
    training = {"backbone": "small", "epochs": 12, "batch_size": 4, "long_side": [64, 96], "crop": 64}
    run = {
        "run": "land",
        "dataset": {
            "format": "table",
            "root": "land",
            "images": ".",
            "labels": "labels.csv",
            "classes": "classes.txt",
            "masks": "masks",
            "background": "none",
        },
        "classifiers": {"bce": {"objective": "bce", "learning_rate": 0.05, "tag_scores": {"stop": False}} | training},
        "seeds": {"cam": {"method": "cam", "classifier": "bce", "scales": [1.0]}},
        "refinements": {"crf": {"method": "crf", "seed": "cam"}, "cut": {"method": "seed_threshold", "seed": "cam"}},
    }
    (tmp_path / "land.yaml").write_text(yaml.safe_dump(run))
    wsss(tmp_path, "check", "land.yaml")
    wsss(tmp_path, "run", "land.yaml", "--cores", "2")
    made = tmp_path / "results/land"
    for stage in ("crf", "cut"):
        masks = list((made / f"refinements/{stage}/masks").glob("*/*.png"))
        labels = {int(label) for path in masks for label in np.unique(np.asarray(Image.open(path)))}
        assert len(masks) == 20 and labels == {1, 2, 3}, stage
    assert json.loads((made / "seeds/cam/threshold.json").read_text())["value"] is None
    scored = pd.read_csv(made / "results.csv", comment="#")
    assert scored["miou"].between(0, 1).all()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tune", "results/land"]) == 2
    assert "no background (dataset.background), so there is no threshold to tune" in capsys.readouterr().err
