"""Signs that need no true masks: their arithmetic, what they say, and the classifier that stops the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from tests.scenes import write_classifier, write_step
from tests.test_report import STAGES, configuration, make_run, write_page
from wsss_core.classify.tag_scores import TagScoresSettings, Tried, folds_of, judge, tag_scores
from wsss_core.config import step_json
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.evaluate import mask_signs as masks
from wsss_core.evaluate.health import (
    Finding,
    expected_precision,
    health_lines,
    read_health,
    write_health,
)
from wsss_core.evaluate.mask_signs import MaskSigns, mask_signs
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.steps import health as health_step
from wsss_core.steps import maps as maps_step
from wsss_core.steps import tag_scores as tag_scores_step

EXECUTION = Execution("cpu")


@pytest.mark.parametrize(("positives", "images"), [(1, 14), (3, 9), (30, 60)])
def test_chance_is_the_mean_precision_of_random_orders(positives, images):
    rng = np.random.default_rng(0)
    present = np.arange(images) < positives
    drawn = [average_precision_score(present, rng.random(images)) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(expected_precision(positives, images), abs=0.01)


def tried(told: bool, peaks: float = 1.0) -> tuple[Tried, np.ndarray]:
    """What a classifier made of 40 images, of whose two classes it tells one from the other, or nothing at all."""
    rng = np.random.default_rng(0)
    labels = np.stack([np.arange(40) % 2 == 0, np.arange(40) % 4 < 2], 1)
    signal = np.where(labels, 2.0, -2.0)
    noise = rng.normal(size=(40, 2))
    logits = signal + noise if told else noise
    return Tried(logits, np.concatenate([signal + noise, rng.normal(size=(40, 6))], 1), np.full((40, 2), peaks)), labels


def signs(told: bool, peaks: float = 1.0, unseen: bool = True) -> dict:
    outcome, labels = tried(told, peaks)
    if not unseen:
        outcome = Tried(outcome.logits, np.random.default_rng(1).normal(size=(40, 8)), outcome.peaks)
    return tag_scores(outcome, labels, ["cow", "car"], folds_of([str(k) for k in range(40)], 5))


def test_a_classifier_that_tells_its_classes_apart_is_left_in_peace():
    found = signs(told=True)
    assert found["cow"]["images"] == 20 and found["cow"]["precision"] > 0.9 and found["cow"]["unseen"] > 0.6
    assert judge("classifiers/bce", found, "") == []


@pytest.mark.parametrize(("told", "peaks", "sign"), [(True, -1.0, "zero_maps"), (False, 1.0, "precision")])
def test_a_classifier_of_which_nothing_can_come_stops(told, peaks, sign):
    (finding,) = judge("classifiers/bce", signs(told, peaks), "Train longer.")
    assert (finding.severity, finding.sign) == ("stop", sign) and finding.text.endswith("Train longer.")
    assert ("Its features do tell them apart" in finding.text) == (sign == "precision")


def test_photos_known_by_heart_are_a_warning():
    (finding,) = judge("classifiers/bce", signs(told=True, unseen=False), "")
    assert (finding.severity, finding.sign) == ("warning", "unseen")


def test_one_class_that_is_not_told_is_named():
    found = signs(told=True)
    found["car"] |= {"precision": found["car"]["chance"]}
    (finding,) = judge("classifiers/bce", found, "")
    assert finding.severity == "warning" and "hardly tells car from the rest" in finding.text


def test_what_cannot_be_told_is_none():
    outcome, labels = tried(told=True)
    labels[:, 0], labels[:, 1] = True, np.arange(40) < 3
    found = tag_scores(outcome, labels, ["cow", "car"], folds_of([str(k) for k in range(40)], 5))
    assert found["cow"]["precision"] is None and found["cow"]["unseen"] is None
    assert found["car"]["precision"] is not None and found["car"]["unseen"] is None
    labels[:] = False
    nothing = tag_scores(outcome, labels, ["cow", "car"], folds_of([str(k) for k in range(40)], 5))
    assert {value for one in nothing.values() for value in one.values()} == {0, None}
    assert judge("classifiers/bce", nothing, "") == []


def drawn(size: tuple[int, int], *boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for top, left, bottom, right, value in boxes:
        mask[top:bottom, left:right] = value
    return mask


def test_signs_of_masks_are_those_counted_by_hand():
    first = drawn((10, 20), (0, 0, 5, 10, 1), (8, 15, 10, 20, 1), (9, 0, 10, 2, 255))
    second = drawn((10, 20))
    before = drawn((10, 20), (0, 0, 5, 10, 1))
    found = mask_signs([(first, (0,), before), (second, (0, 1), second), (second, (), None)], 3)
    assert (found.images, found.empty) == (2, 0.5)
    assert found.kept == pytest.approx(1 / 3)
    assert found.coverage == (pytest.approx(0.3 / 2), 0.0, None) and found.pieces == (1.0, 0.0, None)
    assert found.agreement == pytest.approx((340 / 350 + 50 / 60) / 2)
    assert mask_signs([(second, (), None)], 3) is None


def test_masks_are_judged_by_what_is_missing_and_by_what_fills_everything():
    def said(**changes) -> list[str]:
        whole = {"images": 9, "empty": 0.0, "kept": 1.0, "coverage": (0.3, 0.2), "pieces": (1.0, 1.0)}
        return [
            finding.sign for finding in masks.judge("refinements/crf", MaskSigns(**whole | changes), ["cow", "car"])
        ]

    assert said() == []
    assert said(empty=0.6) == ["empty"]
    assert said(coverage=(0.3, 0.0)) == ["coverage"] and said(coverage=(0.9, 0.2)) == ["coverage"]
    assert said(kept=0.5) == ["kept"] and said(coverage=(None, 0.2)) == []


@pytest.fixture
def trained(tmp_path: Path) -> dict[str, Path]:
    """Twelve tagged images, an untrained classifier and the history of its training."""
    rng, records = np.random.default_rng(0), []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
        records.append(ImageRecord(f"{number}", str(path), 40, 48, ("train",), (number % 2,), digest=str(number)))
    table = ImageTable(("red", "blue"), tuple(records))
    write_table(tmp_path / "images.csv", table)
    write_manifest(tmp_path / "shard.json", table.class_names, table.records)
    torch.manual_seed(0)
    (tmp_path / "history.csv").write_text("step,rate,loss\n20,0.5,0.7\n37,0.0,0.6\n")
    return {
        "table": tmp_path / "images.csv",
        "classifier": write_classifier(tmp_path / "model.pt", cam_network("small", 2), table.class_names),
        "history": tmp_path / "history.csv",
        "scores": tmp_path / "tag_scores.json",
        "predicted": tmp_path / "predicted.csv",
    }


def try_it(trained: dict[str, Path], folder: Path, **settings) -> dict:
    config = write_step(folder / "try.json", "classifiers/bce", "bce", "tag_scores", TagScoresSettings(**settings))
    tag_scores_step.run(config=config, **trained, execution=EXECUTION)
    return read_health(trained["scores"])


def make_maps(trained: dict[str, Path], folder: Path) -> None:
    maps_step.run(
        config=write_step(folder / "maps.json", "seeds/cam", "cam", "maps", {"scales": [1.0]}),
        classifier=trained["classifier"],
        health=trained["scores"],
        manifest=folder / "shard.json",
        table=trained["table"],
        maps=folder / "maps.h5",
        cache=folder / "cache.h5",
        execution=EXECUTION,
    )


def test_a_classifier_that_learned_nothing_stops_before_maps_are_made_unless_told_to_go_on(trained, tmp_path):
    content = try_it(trained, tmp_path)
    assert content["classes"]["red"]["images"] == 6
    (finding,) = content["findings"]
    assert finding["severity"] == "stop" and "It took 37 steps on 12 photos" in finding["text"]
    with pytest.raises(UserError, match=r"tag_scores: \{stop: false\}"):
        make_maps(trained, tmp_path)
    assert not (tmp_path / "maps.h5").exists()
    assert try_it(trained, tmp_path, stop=False)["findings"] == content["findings"]
    make_maps(trained, tmp_path)
    assert (tmp_path / "maps.h5").exists()


def test_trying_twice_writes_the_same_bytes(trained, tmp_path):
    try_it(trained, tmp_path)
    first = trained["scores"].read_bytes()
    try_it(trained, tmp_path)
    assert trained["scores"].read_bytes() == first


def look(run: Path) -> dict:
    config = run / "config/run/health.json"
    config.write_text(step_json(configuration(), "run", "health"))
    health_step.run(config=config, run=run, health=run / "health.json", execution=EXECUTION)
    return read_health(run / "health.json")


def test_a_run_is_looked_at_and_its_page_says_so(tmp_path):
    stages = STAGES | {"rib@steps=5": replace(STAGES["cam"], name="rib@steps=5")}
    report = make_run(tmp_path, stages, masks=False)
    (tmp_path / "classifiers/bce").mkdir(exist_ok=True)
    warning = Finding("warning", "classifiers/bce", "unseen", 0.1, 0.3, "it knows <these> by heart")
    told = {"images": 3, "chance": 0.5, "precision": 1.0, "unseen": None, "zero_maps": 0.0}
    names = ("cat", "dog & <wolf>", "bus")
    write_health(
        tmp_path / "classifiers/bce/tag_scores.json", {"classes": dict.fromkeys(names, told), "stop": True}, [warning]
    )
    content = look(tmp_path)
    assert set(content["stages"]) == {"bce", "cam", "rib@steps=5", "rib-crf"}
    assert content["stages"]["rib-crf"]["kept"] == 1.0 and content["stages"]["rib-crf"]["agreement"] is not None
    assert content["findings"][0]["text"] == warning.text
    page = write_page(tmp_path, report)
    assert "it knows &lt;these&gt; by heart" in page and "Given were 7 photos with tags of 3 classes" in page
    assert "What to do next: classifiers/bce: it knows" in page
    assert "nobody can say how good that is; 1 sign that something is wrong stands below" in page


def test_lines_name_severity_and_stage_and_a_broken_file(tmp_path):
    write_health(tmp_path / "a.json", {}, [Finding("warning", "seeds/cam", "empty", 0.9, 0.5, "empty")])
    (tmp_path / "b.json").write_text("{")
    lines = health_lines([tmp_path / name for name in ("a.json", "b.json", "absent.json")])
    assert lines[0] == "warning: seeds/cam: empty" and "b.json" in lines[1] and len(lines) == 2
    assert json.loads((tmp_path / "a.json").read_text())["findings"][0]["limit"] == 0.5
