"""Localisation by class maps, on maps and boxes worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import write_scene, write_step
from wsss_core.data.boxes import Box
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.evaluate.localisation import (
    COLUMNS,
    LEVELS,
    Located,
    best_level,
    box_accuracy,
    component_boxes,
    localisation_rows,
    located,
    min_max,
    pixel_ap,
)
from wsss_core.evaluate.predicted import write_predicted
from wsss_core.evaluate.sweep import is_held_out
from wsss_core.evaluate.tables import read_evaluation
from wsss_core.execution import Execution
from wsss_core.registry import METHODS
from wsss_core.steps import localisation
from wsss_core.store.seeds import SeedMaps

NAMES = ("round", "long/thin")
SIZE = (40, 60)


def one_map() -> np.ndarray:
    """A square of 1 within a square of .6 on 0, and apart from them a small square of .8."""
    values = np.zeros(SIZE, dtype=np.float32)
    values[5:25, 5:25] = 0.6
    values[10:20, 10:20] = 1.0
    values[30:34, 50:54] = 0.8
    return values


def at(level: float) -> int:
    return int(np.flatnonzero(np.isclose(LEVELS, level))[0])


def test_boxes_are_those_of_components_at_or_above_the_threshold():
    assert component_boxes(one_map(), 0.6).tolist() == [[5, 5, 25, 25], [50, 30, 54, 34]]
    assert component_boxes(one_map(), 0.61).tolist() == [[10, 10, 20, 20], [50, 30, 54, 34]]
    assert component_boxes(one_map(), 0.0).tolist() == [[0, 0, 60, 40]]
    diagonal = np.eye(3, dtype=np.float32)
    assert component_boxes(diagonal, 1.0).tolist() == [[0, 0, 3, 3]]


def test_maps_are_scaled_from_least_to_greatest_value():
    assert min_max(np.array([[1.0, 3.0, 2.0]])).tolist() == [[0.0, 1.0, 0.5]]
    assert min_max(np.full((2, 2), 7.0)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_largest_and_best_component_meet_any_true_box_of_the_class():
    boxes = np.array([[50, 30, 54, 34], [5, 5, 25, 20], [0, 0, 60, 40]], dtype=float)
    found = located(one_map()[None], [1], boxes, np.array([1, 1, 0]), None, 2)
    assert found.classes.tolist() == [1]
    assert found.largest[0, at(0.3)] == pytest.approx(0.75)  # 20 x 15 of 20 x 20
    assert found.best[0, at(0.3)] == 1.0  # the small square
    assert found.largest[0, at(0.9)] == pytest.approx(100 / 300)
    assert found.best[0, at(0.9)] == pytest.approx(100 / 300)  # the small one is gone
    assert found.largest[0, at(0.0)] == pytest.approx(300 / 2400)


def test_a_class_without_a_box_is_left_out():
    maps = np.stack([one_map(), one_map()])
    found = located(maps, [0, 1], np.array([[5.0, 5, 25, 25]]), np.array([0]), None, 2)
    assert found.classes.tolist() == [0] and found.largest[0, at(0.5)] == 1.0


def test_accuracies_count_boxes_at_or_above_an_iou():
    ious = np.zeros((4, len(LEVELS)))
    ious[:, 3] = [0.5, 0.3, 0.7, 0.1]
    assert box_accuracy(ious, (0.5,))[3] == 0.5
    assert box_accuracy(ious, (0.3, 0.5, 0.7))[3] == pytest.approx((0.75 + 0.5 + 0.25) / 3)
    assert np.isnan(box_accuracy(ious[:0], (0.5,))).all()


def test_the_mean_row_pools_maps_and_averages_corloc_over_classes():
    ious = np.zeros((4, len(LEVELS)))
    ious[:, 10] = [0.9, 0.9, 0.0, 0.0]  # two right of class 0, one wrong of each class
    ious[:, 20] = [0.9, 0.9, 0.9, 0.0]
    found = Located(np.array([0, 0, 0, 1]), ious, ious, Located.none(2).pixels, np.zeros(4, dtype=bool))
    assert best_level(found) == 20
    rows = localisation_rows(found, 10, NAMES)
    assert rows["round"]["box_acc"] == pytest.approx(2 / 3) and rows["long/thin"]["corloc"] == 0.0
    mean = rows["mean"]
    assert [mean[c] for c in ("box_acc", "corloc", "max_box_acc", "max_box_acc_v2", "maps")] == pytest.approx(
        [0.5, 1 / 3, 0.75, 0.75, 4]
    )
    assert set(mean) == set(COLUMNS) and np.isnan(mean["px_ap"]) and np.isnan(rows["round"]["max_box_acc"])


def test_pixel_ap_is_the_area_under_precision_over_recall():
    mask = np.array([[1, 1, 0, 0, 255]], dtype=np.uint8)
    values = np.array([[1.0, 0.5, 0.8, 0.0, 0.9]])
    found = located(values[None], [0], np.array([[0.0, 0, 2, 1]]), np.array([0]), mask, 1)
    # 1.0: precision 1 at recall 1/2; 0.8: one wrong; 0.5: precision 2/3 at recall 1
    assert pixel_ap(found.pixels[0]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found.pixels.sum() == 4
    twice = Located.together([found, found], 1)
    assert twice.pixels.sum() == 8 and len(twice.classes) == 2


@pytest.fixture
def scene(tmp_path):
    """Twenty images, a perfect map each at thresholds up to .6; every other map has its box missed by much."""
    records, maps = [], {}
    for k in range(20):
        mask = np.zeros(SIZE, dtype=np.uint8)
        mask[5:25, 5:25] = k % 2 + 1
        Image.fromarray(mask).save(tmp_path / f"{k}.png")
        corners = (5, 5, 25, 25) if k % 2 == 0 else (5, 5, 55, 35)
        boxes = (Box(k % 2, *corners), Box(k % 2, 0, 0, 60, 40, crowd=True))
        path = str(tmp_path / f"{k}.png")
        records.append(
            ImageRecord(
                f"{k}", path, *SIZE, ("train", "score"), (k % 2,), path if k % 2 == 0 else "", boxes, digest="d"
            )
        )
        maps[f"{k}"] = SeedMaps((k % 2,), {1.0: torch.from_numpy(one_map())[None]}, SIZE, stride=1)
    records.append(ImageRecord("none", path, *SIZE, ("train",), (0,), digest="d"))
    maps["none"] = maps["0"]
    write_scene(tmp_path, NAMES, records, maps)
    return tmp_path


def run(folder, predicted=None, **settings):
    localisation.run(
        config=write_step(folder / "step.json", "seeds/cam", "cam", "localisation", settings),
        manifests=[folder / "shard.json"],
        maps=[folder / "seeds.h5"],
        predicted=predicted,
        localisation=folder / "localisation.csv",
        execution=Execution(device="cpu"),
    )
    return read_evaluation(folder / "localisation.csv", COLUMNS)


def test_the_step_scores_images_with_boxes(scene):
    table = run(scene, rule="fixed", threshold=0.3)
    assert table.header.images == 20 and table.header.cut.threshold == 0.3
    assert table.rows["round"]["box_acc"] == 1.0 and table.rows["long/thin"]["box_acc"] == 0.0
    assert table.rows["mean"]["corloc"] == 0.5 and table.rows["mean"]["maps"] == 20
    assert table.rows["mean"]["max_box_acc"] == pytest.approx(0.5)
    # At 1 only the inner square (a quarter of the object) is found, at .6 the object and at .8 the small square.
    assert table.rows["round"]["px_ap"] == pytest.approx(0.25 + 0.75 * 400 / 416, abs=1e-6)
    assert np.isnan(table.rows["long/thin"]["px_ap"])


def test_top_1_asks_for_the_class_and_for_its_box(scene):
    # of the ten located images three are taken for the other class; of the ten others all classes are right
    guesses = {f"{k}": k % 2 if k not in (0, 2, 4) else 1 for k in range(20)} | {"none": 0}
    write_predicted(scene / "predicted.csv", guesses, NAMES)
    table = run(scene, scene / "predicted.csv", rule="fixed", threshold=0.3)
    mean = table.rows["mean"]
    assert (mean["top1"], mean["top1_loc"], mean["box_acc"]) == pytest.approx((17 / 20, 7 / 20, 10 / 20))
    assert np.isnan(table.rows["round"]["top1_loc"])


def test_top_1_of_an_image_of_two_classes_takes_either_and_looks_at_its_map_alone():
    maps = np.stack([one_map(), one_map()[::-1, ::-1]])
    boxes, owners = np.array([[5.0, 5, 25, 25], [5, 5, 25, 25]]), np.array([0, 1])
    rows = [
        localisation_rows(located(maps, [0, 1], boxes, owners, None, 3, guess), 30, [*NAMES, "third"])["mean"]
        for guess in (0, 1, 2)
    ]
    assert [(row["top1"], row["top1_loc"]) for row in rows] == [(1, 1), (1, 0), (0, 0)]


def test_without_a_classifier_there_is_no_top_1(scene):
    assert np.isnan(run(scene, rule="fixed").rows["mean"]["top1_loc"])


def test_predictions_for_other_classes_are_refused(scene):
    write_predicted(scene / "predicted.csv", {"0": 0}, ["cat"])
    with pytest.raises(UserError, match="is not a table of predicted classes"):
        run(scene, scene / "predicted.csv", rule="fixed")


def test_rule_heldout_chooses_on_other_images(scene):
    held = [k for k in range(20) if is_held_out(f"{k}", 0.4)]
    table = run(scene, rule="heldout", heldout_fraction=0.4)
    assert table.header.choosing == len(held) and table.header.images == 20 - len(held)
    assert table.header.cut.rule == "heldout" and table.rows["mean"]["maps"] == 20 - len(held)
    with pytest.raises(UserError, match="heldout_fraction"):
        run(scene, rule="heldout", heldout_fraction=1e-9)


def test_without_a_rule_a_run_leaves_the_step_out():
    for method in METHODS["seeds"].values():
        step = method.steps["localisation"]
        assert not step.asked({"rule": None}) and step.asked({"rule": "heldout"})
        assert method.steps["scores"].asked({})


def test_without_a_rule_the_step_says_so(scene):
    with pytest.raises(UserError, match="name a rule"):
        run(scene)
