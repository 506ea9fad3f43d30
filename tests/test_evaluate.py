"""Confusion matrices, sweeps, metrics, thresholds, tables and the scoring steps."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from benchmarks.baselines.sweep_naive import sweep as sweep_naive
from tests.scenes import write_step
from wsss_core.data.missing import true_labels
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.errors import UserError
from wsss_core.evaluate import confusion, metrics, sweep
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.evaluate.sweep import ScoresSettings, is_held_out
from wsss_core.evaluate.tables import read_evaluation, write_evaluation
from wsss_core.evaluate.thresholds import divided, score_thresholds
from wsss_core.execution import Execution
from wsss_core.steps import evaluation as evaluation_step
from wsss_core.steps import scores as scores_step
from wsss_core.store.cut import Cut, write_about
from wsss_core.store.masks import mask_name, write_mask
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build


class Maps:
    """Maps at full resolution, as given."""

    def __init__(self, classes, values):
        self.classes, self.values = classes, values

    def full(self):
        return self.values


TARGET = np.array([[0, 0, 1], [1, 2, 255]])
PREDICTION = np.array([[0, 1, 1], [1, 0, 7]])
MATRIX = [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_confusion_by_hand(dtype):
    matrix = confusion(PREDICTION.astype(dtype), TARGET.astype(dtype), 3)
    assert isinstance(matrix, np.ndarray)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == MATRIX


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_confusion_keeps_tensors(dtype):
    matrix = confusion(torch.as_tensor(PREDICTION, dtype=dtype), torch.as_tensor(TARGET, dtype=dtype), 3)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == MATRIX


def test_confusion_does_not_overflow_small_integers():
    labels = np.full((1, 3), 80, dtype=np.uint8)
    assert confusion(labels, labels, 81)[80, 80] == 3


def test_confusion_of_nothing_but_ignored_is_zero():
    target = np.full((2, 2), 255, dtype=np.uint8)
    assert not confusion(target, target, 3).any()


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([[3]], [[0]], "prediction holds the label 3"),
        ([[255]], [[0]], "prediction holds the label 255"),
        ([[0]], [[4]], "target holds the label 4"),
        ([[0]], [[-1]], "target holds the label -1"),
        ([[0, 0]], [[0]], "prediction is"),
    ],
)
def test_confusion_refuses_wrong_labels(prediction, target, message):
    with pytest.raises(ValueError, match=message):
        confusion(np.array(prediction), np.array(target), 3)


def test_metrics_by_hand():
    scores = metrics(np.array([[6, 2, 0, 0], [1, 3, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_allclose(scores.iou, [6 / 13, 3 / 6, 0, np.nan])
    np.testing.assert_allclose(scores.precision, [6 / 11, 3 / 5, np.nan, np.nan])
    np.testing.assert_allclose(scores.recall, [6 / 8, 3 / 4, 0, np.nan])
    np.testing.assert_allclose(scores.f1, [12 / 19, 6 / 9, 0, np.nan])
    assert scores.pixels.tolist() == [8, 4, 4, 0]
    assert scores.mean("iou") == pytest.approx((6 / 13 + 1 / 2) / 3)
    assert scores.mean("precision") == pytest.approx((6 / 11 + 3 / 5) / 2)


def test_metrics_leave_out_labels_that_are_only_predicted():
    scores = metrics(np.array([[5, 5], [0, 0]]))
    assert np.isnan(scores.iou[1])
    assert scores.mean("iou") == 0.5


def random_images(count, n_classes, quantised):
    rng = np.random.default_rng(7)
    images = []
    for index in range(count):
        k, size = index % 4, (17 + index, 23)
        classes = tuple(sorted(rng.choice(n_classes, k, replace=False).tolist()))
        values = rng.random((k, *size)).astype(np.float32)
        if quantised:  # many exact ties, of classes and with thresholds
            values = (np.round(values * 20) / 20).astype(np.float32)
        target = rng.integers(0, n_classes + 1, size).astype(np.uint8)
        target[rng.random(size) < 0.1] = 255
        images.append((Maps(classes, values), target))
    return images


THRESHOLDS = [
    np.round(np.arange(0.05, 1, 0.05), 10),
    [0.1, 0.1000001, 1 / 3, 0.35, 0.7, 0.99, 1.0, 1.5],
    [-0.5, 0.0, 0.0, 0.25],
    [0.3],
]


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("thresholds", THRESHOLDS)
def test_sweep_equals_the_naive_one(thresholds, quantised):
    images = random_images(12, 5, quantised)
    matrices = sweep(iter(images), thresholds, 6)
    assert matrices.dtype == np.int64
    np.testing.assert_array_equal(matrices, sweep_naive(images, thresholds, 6))


def test_sweep_ties_go_to_the_background_and_the_first_class():
    threshold = np.float32(0.3)
    values = np.array([[[0.3, np.nextafter(threshold, np.float32(1)), 0.5]], [[0.3, 0.0, 0.5]]], dtype=np.float32)
    matrix = sweep([(Maps((1, 3), values), np.zeros((1, 3), dtype=np.uint8))], [0.3], 5)[0]
    assert matrix[0].tolist() == [1, 0, 2, 0, 0]


def test_sweep_of_images_without_classes_is_background():
    target = np.array([[0, 2, 255]], dtype=np.uint8)
    matrices = sweep([(Maps((), torch.zeros(0, 1, 3)), target)], [-1.0, 0.5], 3)
    assert matrices.tolist() == [[[1, 0, 0], [0, 0, 0], [1, 0, 0]]] * 2


def test_sweep_returns_tensors_for_tensors():
    images = random_images(3, 4, False)
    tensors = [(Maps(m.classes, torch.from_numpy(m.values)), torch.from_numpy(t)) for m, t in images]
    matrices = sweep(tensors, [0.2, 0.4], 5)
    assert isinstance(matrices, torch.Tensor)
    np.testing.assert_array_equal(matrices.numpy(), sweep(images, [0.2, 0.4], 5))


@pytest.mark.parametrize(
    ("maps", "thresholds", "message"),
    [
        (Maps((0,), np.zeros((1, 2, 2), np.float32)), [0.3, 0.2], "ascending"),
        (Maps((0,), np.zeros((1, 2, 3), np.float32)), [0.3], "expected"),
        (Maps((2,), np.zeros((1, 2, 2), np.float32)), [0.3], "allowed are 0..1"),
    ],
)
def test_sweep_refuses_wrong_input(maps, thresholds, message):
    with pytest.raises(ValueError, match=message):
        sweep([(maps, np.zeros((2, 2), np.uint8))], thresholds, 3)


def test_threshold_grid_holds_its_ends_and_the_fixed_value():
    levels = ScoresSettings(sweep_from=0.2, sweep_to=0.49, sweep_step=0.01, threshold=0.305).thresholds()
    assert (levels[0], levels[-1], len(levels)) == (0.2, 0.49, 31)
    assert 0.305 in levels
    assert 0.29 in levels


# --- the choice of a threshold ---

TRUTH = np.array([[0, 0, 1, 1]], dtype=np.uint8)
MAPS = {
    name: Maps((0,), np.array([[values]], dtype=np.float32))
    for name, values in {
        "low": [0.1, 0.3, 0.5, 0.9],  # right between 0.3 and 0.5
        "high": [0.1, 0.5, 0.7, 0.9],  # right between 0.5 and 0.7
        "clear": [0.1, 0.1, 0.9, 0.9],  # right at every threshold
        "faint": [0.1, 0.1, 0.3, 0.3],  # right at 0.2
        "strong": [0.5, 0.5, 0.9, 0.9],  # right from 0.6 on
    }.items()
}
LEVELS = (0.2, 0.4, 0.6, 0.8)


def chosen_by(rule, choosing, scored, threshold=0.2, reads=1):
    """What the rule finds on these images, which are those that it reads, so many times."""
    read = []

    def pairs(names):
        for name in names:
            read.append(name)
            yield MAPS[name], TRUTH

    settings = ScoresSettings(rule=rule, threshold=threshold, sweep_from=0.2, sweep_to=0.8, sweep_step=0.2)
    found = score_thresholds(pairs, choosing, scored, settings, 2)
    assert sorted(read) == sorted([*choosing, *scored] * reads)
    return found


# At 0.2 the image "low" is cut to 0111: one of two background pixels is hit, and three pixels are called foreground,
# of which two are. At 0.6 and 0.8 it is cut to 0001. "high" is 0111 at 0.2 and 0.4, and 0001 at 0.8.


@pytest.mark.parametrize(
    ("rule", "choosing", "chosen", "ious"),
    [
        ("fixed", [], 0.2, [1 / 2, 2 / 3]),
        ("oracle", [], 0.4, [1, 1]),
        ("heldout", ["high"], 0.6, [2 / 3, 1 / 2]),
        ("heldout", ["clear"], 0.2, [1 / 2, 2 / 3]),  # of equally good thresholds the lowest
    ],
)
def test_rules_by_hand(rule, choosing, chosen, ious):
    found = chosen_by(rule, choosing, ["low"])
    assert (found.levels, found.chosen, found.best) == (LEVELS, chosen, 1)
    np.testing.assert_allclose(found.scores.mean("iou"), [7 / 12, 1, 7 / 12, 7 / 12])
    np.testing.assert_allclose(found.at_chosen.iou, ious)
    assert [found.miou(place) for place in range(4)] == [0.583333, 1, 0.583333, 0.583333]


def test_pixels_of_all_images_are_counted_together():
    """At 0.4 they are cut to 0011 and 0111: IoU 3/4 and 4/5. The mean of the two images would be 19/24."""
    found = chosen_by("oracle", [], ["low", "high"])
    np.testing.assert_allclose(found.scores.mean("iou"), [7 / 12, 31 / 40, 31 / 40, 7 / 12])
    np.testing.assert_allclose(found.at_chosen.iou, [3 / 4, 4 / 5])
    assert (found.chosen, found.miou(found.best)) == (0.4, 0.775)


def test_by_otsu_every_image_is_cut_at_its_own_threshold():
    """No one threshold is right for both: at 0.2 they are cut to 0011 and 1111, from 0.6 on to 0000 and 0011."""
    found = chosen_by("otsu", [], ["faint", "strong"], reads=2)
    assert found.chosen is None and found.miou(found.best) == 0.583333
    assert found.at_chosen.iou.tolist() == [1, 1]


def test_a_fixed_threshold_beside_the_grid_is_scored_in_its_place():
    found = chosen_by("fixed", [], ["low"], threshold=0.45)
    assert found.levels == (0.2, 0.4, 0.45, 0.6, 0.8)
    assert (found.chosen, found.best) == (0.45, 1)
    assert found.at_chosen.iou.tolist() == [1, 1]


def test_images_that_choose_are_divided_from_those_that_are_scored():
    """The hashes of a to d are 0.853, 0.066, 0.823 and 0.198 of the whole range."""
    held = ScoresSettings(rule="heldout", heldout_fraction=0.2)
    assert divided(["a", "b", "c", "d"], held) == (["b", "d"], ["a", "c"])
    assert divided(["d", "c", "b", "a"], replace(held, heldout_fraction=0.1)) == (["b"], ["d", "c", "a"])
    for rule in ("fixed", "otsu", "oracle"):
        assert divided(["a", "b"], replace(held, rule=rule)) == ([], ["a", "b"])
    with pytest.raises(UserError, match=r"0\.2 of 2 images .* leaves 0 to choose the threshold on and 2 to evaluate"):
        divided(["a", "c"], held)
    with pytest.raises(UserError, match="leaves 2 to choose the threshold on and 0 to evaluate; change heldout_frac"):
        divided(["b", "d"], held)


# --- tables ---


def test_evaluation_table_round_trip(tmp_path):
    scores = metrics(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    header = ScoreHeader("val", 3, cut=Cut("none", notes=("a, b (c)",)))
    write_evaluation(tmp_path / "e.csv", header, ["background", "a,b", "c"], scores)
    lines = (tmp_path / "e.csv").read_text().splitlines()
    named = {line.partition(": ")[0] for line in lines if line.startswith("#")}
    assert {"# split", "# crf", "# threshold rule"} <= named
    assert lines[len(header.lines())] == "class,iou,precision,recall,f1,pixels"
    assert lines[-1].startswith("mean,")
    read = read_evaluation(tmp_path / "e.csv")
    assert read.header == header
    assert list(read.rows) == ["background", "a,b", "c", "mean"]
    assert read.rows["a,b"]["iou"] == 0.5
    assert np.isnan(read.rows["c"]["iou"])
    assert read.rows["mean"]["pixels"] == 12


def test_class_names_that_look_like_formulas_stay_names(tmp_path):
    names = ["background", "=HYPERLINK(1)", "-2", "'+x", "'quoted'", "@a", "plain = b"]
    write_evaluation(tmp_path / "e.csv", ScoreHeader("val", 3), names, metrics(np.eye(7, dtype=int)))
    with open(tmp_path / "e.csv", encoding="utf-8", newline="") as handle:
        cells = [row[0] for row in csv.reader(line for line in handle if not line.startswith("#"))][1:]
    assert not any(text.startswith(("=", "-", "+", "@")) for text in cells)
    assert list(read_evaluation(tmp_path / "e.csv").rows) == [*names, "mean"]


# --- the steps ---


@pytest.fixture
def images(tmp_path):
    """Eight images of two classes with masks and maps; one more without a mask."""
    rng = np.random.default_rng(3)
    records, maps = [], {}
    for index in range(9):
        size = (12, 16 + index)
        target = np.zeros(size, np.uint8)
        target[3:9, 4:12] = 1 + index % 2
        target[0] = 255
        record = ImageRecord(
            f"im/{index}", "x.jpg", *size, ("train", "score"), (index % 2,), str(tmp_path / f"true{index}.png")
        )
        write_mask(tmp_path / f"true{index}.png", target)
        values = np.where(target == record.classes[0] + 1, 0.6, 0.1) + 0.35 * rng.random(size)
        maps[record.id] = torch.from_numpy(values[None].astype(np.float32))
        records.append(record if index < 8 else replace(record, mask=""))
    write_manifest(tmp_path / "manifest.json", ("cat", "dog"), records)
    return tmp_path, records, maps


def seed_shard(path, records, maps, class_names=("cat", "dog")):
    seeds = {r.id: SeedMaps(r.classes, {1.0: maps[r.id]}, r.size) for r in records}
    attrs = {"class_names": list(class_names)}
    build(path, SEEDS, dict.fromkeys(seeds, ""), seeds.get, attrs, cache=path.parent / "c")
    return seeds


def score(folder, maps, **settings):
    scores_step.run(
        config=write_step(folder / "step.json", "seeds/cam", "cam", "scores", settings),
        manifests=[folder / "manifest.json"],
        maps=maps,
        curve=folder / "curve.csv",
        evaluation=folder / "evaluation.csv",
        threshold=folder / "threshold.json",
        execution=Execution("cpu"),
    )
    return json.loads((folder / "threshold.json").read_text()), read_evaluation(folder / "evaluation.csv")


def test_seeds_are_scored_at_the_fixed_threshold(images):
    folder, records, maps = images
    seeds = seed_shard(folder / "a.h5", records, maps)
    threshold, evaluation = score(folder, [folder / "a.h5"], threshold=0.333)
    pairs = [(seeds[r.id], np.array(_read(r.mask))) for r in records[:8]]
    expected = metrics(sweep_naive(pairs, [0.333], 3)[0]).mean("iou")
    assert threshold["rule"] == "fixed"
    assert threshold["value"] == 0.333
    assert threshold["miou"] == pytest.approx(expected, abs=1e-6)
    assert threshold["oracle"]["miou"] >= threshold["miou"]
    assert evaluation.header == ScoreHeader("score", 8, cut=Cut("fixed", 0.333))
    assert list(evaluation.rows) == ["background", "cat", "dog", "mean"]
    assert evaluation.rows["mean"]["iou"] == pytest.approx(expected, abs=1e-6)
    curve = (folder / "curve.csv").read_text()
    assert "reporting only" in curve
    head = [line for line in curve.splitlines() if line.startswith("#")]
    assert ScoreHeader.read(head) == ScoreHeader("score", 8, cut=Cut("all"))
    assert "\nthreshold,miou,precision,recall,f1\n" in curve
    assert "\n0.333," in curve


def test_the_oracle_is_labelled(images):
    folder, records, maps = images
    seed_shard(folder / "a.h5", records, maps)
    threshold, evaluation = score(folder, [folder / "a.h5"], rule="oracle")
    assert threshold["value"] == threshold["oracle"]["value"]
    assert evaluation.header.cut == Cut("oracle", threshold["value"]) and evaluation.header.cut.leaks


def test_by_otsu_the_threshold_of_every_image_is_told(images):
    folder, records, maps = images
    records[1] = replace(records[1], classes=())
    maps[records[1].id] = maps[records[1].id][:0]
    write_manifest(folder / "manifest.json", ("cat", "dog"), records)
    seeds = seed_shard(folder / "a.h5", records, maps)
    threshold, evaluation = score(folder, [folder / "a.h5"], rule="otsu")
    own = {r.id: otsu_threshold(seeds[r.id].full()) for r in records if r.classes}
    assert threshold["values"] == pytest.approx(own, abs=1e-6) and len(own) == 8 and records[8].id in own
    assert (threshold["rule"], threshold["value"]) == ("otsu", np.median(list(threshold["values"].values())))
    total = sum(sweep_naive([(seeds[r.id], np.array(_read(r.mask)))], [own.get(r.id, 0.0)], 3)[0] for r in records[:8])
    assert threshold["miou"] == pytest.approx(metrics(total).mean("iou"), abs=1e-6)
    assert evaluation.rows["mean"]["iou"] == threshold["miou"]
    assert evaluation.header == ScoreHeader("score", 8, cut=Cut("otsu")) and not evaluation.header.cut.leaks
    fixed, _ = score(folder, [folder / "a.h5"], rule="fixed")
    assert threshold["oracle"] == fixed["oracle"]


def test_otsu_needs_no_masks(images):
    folder, records, maps = images
    bare = [replace(record, mask="") for record in records]
    write_manifest(folder / "manifest.json", ("cat", "dog"), bare)
    seed_shard(folder / "a.h5", bare, maps)
    threshold, evaluation = score(folder, [folder / "a.h5"], rule="otsu")
    assert set(threshold) == {"rule", "value", "values"} and len(threshold["values"]) == 9
    assert evaluation.header.images == 0 and not evaluation.rows
    assert score(folder, [], rule="otsu")[0] == {"rule": "otsu", "value": 0.0}


def test_held_out_images_choose_and_the_others_are_evaluated(images):
    folder, records, maps = images
    seeds = seed_shard(folder / "a.h5", records, maps)
    threshold, evaluation = score(folder, [folder / "a.h5"], rule="heldout", heldout_fraction=0.5)
    held = [r for r in records[:8] if is_held_out(r.id, 0.5)]
    assert 0 < len(held) < 8
    levels = ScoresSettings().thresholds()
    curve = metrics(sweep([(seeds[r.id], np.array(_read(r.mask))) for r in held], levels, 3)).mean("iou")
    assert threshold["value"] == levels[int(curve.argmax())]
    assert evaluation.header == ScoreHeader("score", 8 - len(held), len(held), cut=Cut("heldout", threshold["value"]))


def test_score_shards_are_read_too(images):
    folder, records, maps = images
    scores = {r.id: ScoreMaps(r.classes, maps[r.id][:, ::4, ::4], r.size) for r in records}
    attrs = {"class_names": ["cat", "dog"]}
    build(folder / "s.h5", SCORES, dict.fromkeys(scores, ""), scores.get, attrs, cache=folder / "c")
    threshold, _ = score(folder, [folder / "s.h5"])
    pairs = [(scores[r.id], np.array(_read(r.mask))) for r in records[:8]]
    assert threshold["miou"] == pytest.approx(metrics(sweep_naive(pairs, [0.25], 3)[0]).mean("iou"), abs=1e-6)


def open_files():
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


def test_one_shard_is_open_at_a_time(images, monkeypatch):
    """COCO has hundreds of them, and a process may have no more than some thousand files open."""
    folder, records, maps = images
    shards = [folder / f"{r.id[-1]}.h5" for r in records]
    for record, path in zip(records, shards, strict=True):
        seed_shard(path, [record], maps)
    before, opened = open_files(), []

    def counting(*arguments):
        opened.append(open_files())
        return true_labels(*arguments)

    monkeypatch.setattr(scores_step, "true_labels", counting)
    together, _ = score(folder, shards)
    assert len(opened) == 8 and max(opened) <= before + 1
    seed_shard(folder / "all.h5", records, maps)
    assert score(folder, [folder / "all.h5"])[0] == together


def test_without_masks_the_fixed_threshold_stands_and_other_rules_are_refused(images):
    folder, records, maps = images
    write_manifest(folder / "manifest.json", ("cat", "dog"), records[8:])
    threshold, evaluation = score(folder, [], threshold=0.4)
    assert threshold == {"rule": "fixed", "value": 0.4}
    assert evaluation.header.images == 0 and "no masks to score" in (folder / "evaluation.csv").read_text()
    assert not evaluation.rows
    for rule in ("heldout", "oracle"):
        with pytest.raises(UserError, match=f"score.rule is {rule}"):
            score(folder, [], rule=rule)


def test_scoring_names_what_is_missing(images):
    folder, records, maps = images
    seed_shard(folder / "a.h5", records[1:], maps)
    with pytest.raises(UserError, match="'im/0' has a mask to score but no maps"):
        score(folder, [folder / "a.h5"])
    seed_shard(folder / "b.h5", records, maps, class_names=("dog", "cat"))
    with pytest.raises(UserError, match="another order"):
        score(folder, [folder / "b.h5"])
    with pytest.raises(UserError, match="heldout_fraction"):
        score(folder, [folder / "a.h5"], rule="heldout", heldout_fraction=0.001)


@pytest.mark.parametrize("ignored", ["background", "skip"])
def test_masks_are_scored(images, ignored):
    folder, records, _ = images
    total, undecided = np.zeros((3, 3), np.int64), 0
    for record in records:
        target = np.array(_read(folder / f"true{record.id[-1]}.png"))
        prediction = np.where(target == 255, 0, target)
        prediction[4:6] = 255
        prediction[7:] = 2
        write_mask(folder / "masks" / mask_name(record.id), prediction)
        undecided += bool(record.mask) * int(((prediction == 255) & (target != 255)).sum())
        if record.mask:
            counted = target if ignored == "background" else np.where(prediction == 255, 255, target)
            total += confusion(np.where(prediction == 255, 0, prediction), counted, 3)
    cut = Cut("fixed", 0.3, crf="10 iterations")
    write_about(folder / "masks", cut)
    run_masks(folder, "refinements/x", "crf", {"ignored": ignored})
    evaluation = read_evaluation(folder / "evaluation.csv")
    assert evaluation.rows["mean"]["iou"] == pytest.approx(metrics(total).mean("iou"), abs=1e-6)
    assert evaluation.header == ScoreHeader("score", 8, 0, "skip", ignored, undecided, cut) and undecided
    run_masks(folder, "segmentations/x", "deeplab_v2", {"ignored": ignored})
    assert "no masks to score" in (folder / "evaluation.csv").read_text()


def test_masks_of_images_that_chose_the_threshold_are_not_scored(images):
    folder, records, _ = images
    for record in records:
        write_mask(folder / "masks" / mask_name(record.id), np.array(_read(folder / f"true{record.id[-1]}.png")))
    chose = [r.id for r in records if r.mask and is_held_out(r.id, 0.5)]
    assert 0 < len(chose) < 8
    for image_id in chose:
        (folder / "masks" / mask_name(image_id)).unlink()
    write_about(folder / "masks", Cut("heldout", 0.3, from_maps=True))
    run_masks(folder, "refinements/x", "crf", {}, held_out=0.5)
    evaluation = read_evaluation(folder / "evaluation.csv")
    assert (evaluation.header.images, evaluation.header.choosing) == (8 - len(chose), len(chose))
    assert not evaluation.header.cut.leaks
    assert evaluation.rows["mean"]["iou"] == 1


def test_images_for_evaluation_that_chose_a_threshold_score_no_network(images):
    """Masks for training may be cut at a threshold that images for evaluation chose: a network saw that choice."""
    folder, records, _ = images
    masked = [record for record in records if record.mask]
    chose = {r.id for r in masked if is_held_out(r.id, 0.5)}
    for record in records:
        write_mask(folder / "masks" / mask_name(record.id), np.array(_read(folder / f"true{record.id[-1]}.png")))
    write_about(folder / "masks", Cut("none"))
    for splits, images_scored in ((("score", "val"), 8 - len(chose)), (("val",), 8)):
        moved = [replace(record, splits=splits) for record in masked]
        write_manifest(folder / "manifest.json", ("cat", "dog"), moved)
        run_masks(folder, "segmentations/x", "deeplab_v2", {}, held_out=0.5)
        assert read_evaluation(folder / "evaluation.csv").header.images == images_scored
    assert 0 < len(chose) < 8


def test_maps_and_masks_of_images_for_evaluation_say_so_and_true_masks_are_scored_nowhere(images):
    folder, records, maps = images
    moved = [replace(record, splits=("score", "val")) for record in records if record.mask]
    write_manifest(folder / "manifest.json", ("cat", "dog"), moved)
    seed_shard(folder / "a.h5", moved, maps)
    assert score(folder, [folder / "a.h5"])[1].header.split == "val"
    for record in moved:
        write_mask(folder / "masks" / mask_name(record.id), np.array(_read(folder / f"true{record.id[-1]}.png")))
    write_about(folder / "masks", Cut("fixed", 0.3))
    for labelled, counts in (([], (8, 0)), ([[1.0, 0]], (0, 8))):  # masks of `truth` are true on these images too
        run_masks(folder, "refinements/x", "mixed", {}, labelled=labelled)
        header = read_evaluation(folder / "evaluation.csv").header
        assert (header.split, header.images, header.learned) == ("val", *counts)


def test_a_split_without_shards_has_nothing_to_score(tmp_path):
    evaluation_step.run(
        config=write_step(tmp_path / "step.json", "segmentations/x", "deeplab_v2", "evaluation", {}),
        manifests=[],
        masks=[],
        evaluation=tmp_path / "evaluation.csv",
        domains=tmp_path / "domains.csv",
        execution=Execution("cpu"),
    )
    assert not read_evaluation(tmp_path / "evaluation.csv").rows


def test_missing_and_wrong_masks_are_named(images):
    folder, records, _ = images
    with pytest.raises(UserError, match="does not say how the masks were cut"):
        run_masks(folder, "refinements/x", "crf", {})
    write_about(folder / "masks", Cut("fixed", 0.3))
    with pytest.raises(UserError, match="'im/0'"):
        run_masks(folder, "refinements/x", "crf", {})
    for record in records:
        write_mask(folder / "masks" / mask_name(record.id), np.full(record.size, 9))
    with pytest.raises(UserError, match=r"im%2F0.png: mask holds \[9\]"):
        run_masks(folder, "refinements/x", "crf", {})


def test_masks_that_were_not_made_alike_are_not_scored_together(images):
    folder, records, _ = images
    for name, cut in {"masks": Cut("fixed", 0.3), "others": Cut("oracle", 0.3)}.items():
        write_about(folder / name, cut)
    with pytest.raises(UserError, match="masks and .*others were not made alike"):
        evaluation_step.run(
            config=write_step(folder / "step.json", "refinements/x", "crf", "evaluation", {}),
            manifests=[folder / "manifest.json"],
            masks=[folder / "masks", folder / "others"],
            evaluation=folder / "evaluation.csv",
            domains=folder / "domains.csv",
            execution=Execution("cpu"),
        )


def run_masks(folder, stage, method, settings, **content):
    evaluation_step.run(
        config=write_step(folder / "step.json", stage, method, "evaluation", settings, **content),
        manifests=[folder / "manifest.json"],
        masks=[folder / "masks"],
        evaluation=folder / "evaluation.csv",
        domains=folder / "domains.csv",
        execution=Execution("cpu"),
    )


def _read(path):
    from PIL import Image

    return Image.open(Path(path))
