"""Scores of single objects: COCO's own evaluation, and cases worked out by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsss_core.evaluate.instances import (
    IOUS,
    Judged,
    Objects,
    average_precision,
    best_overlaps,
    judge,
    judge_boxes,
    judge_masks,
    mask_overlaps,
    object_rows,
    paired_ious,
    pseudo_rows,
)
from wsss_core.store.instances import Instances

SIZE = (150, 170)
N_CLASSES = 3


def rectangles(boxes) -> np.ndarray:
    masks = np.zeros((len(boxes), *SIZE), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return masks


def objects(boxes, classes, scores=None, crowd=None, ignored=None) -> Instances:
    return Instances.of(SIZE, classes, boxes, rectangles(boxes), scores, ignored, crowd)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    sides = rng.choice([8, 20, 32, 50, 96, 120], (count, 2))
    start = (rng.random((count, 2)) * (np.array(SIZE[::-1]) - sides)).astype(int)
    return np.concatenate([start, start + sides], 1)


def random_images(rng: np.random.Generator) -> list[tuple[Instances, Instances]]:
    """Pairs of true and predicted objects with crowds, equal scores and IoUs, and empty images."""
    images = []
    for count, extra in ((4, 6), (0, 3), (3, 0), (0, 0), (6, 130), (5, 9), (7, 12)):
        boxes = random_boxes(rng, count)
        true = objects(boxes, rng.integers(0, 2, count), crowd=rng.random(count) < 0.25)
        near = np.repeat(boxes, 3, 0) + rng.integers(-6, 7, (3 * count, 4))
        near = np.clip(near, 0, [*SIZE[::-1], *SIZE[::-1]])
        near = near[((near[:, 2:] - near[:, :2]) > 0).all(1)]
        found = np.concatenate([near, random_boxes(rng, extra), boxes[:2]])
        classes = np.zeros(len(found)) if extra > 100 else rng.integers(0, N_CLASSES, len(found))
        images.append((true, objects(found, classes, scores=rng.choice(np.linspace(0.05, 0.95, 19), len(found)))))
    return images


def of_coco(images, kind: str) -> np.ndarray:
    """AP [4, 11, C] by pycocotools."""
    annotations, results = [], []
    for number, (true, found) in enumerate(images, 1):
        for one, out in ((true, annotations), (found, results)):
            for label, box, mask, score, crowd in zip(
                one.classes, one.boxes, one.masks, one.scores, one.crowd, strict=True
            ):
                x0, y0, x1, y1 = map(float, box)
                out.append(
                    {
                        "id": len(out) + 1,
                        "image_id": number,
                        "category_id": int(label) + 1,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": float(mask.sum() if kind == "segm" else (x1 - x0) * (y1 - y0)),
                        "segmentation": rle.encode(np.asfortranarray(mask.astype(np.uint8))),
                        "iscrowd": int(crowd),
                    }
                    | ({"score": float(score)} if out is results else {})
                )
    if kind == "bbox":
        for row in results:
            del row["segmentation"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": k + 1, "height": SIZE[0], "width": SIZE[1]} for k in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": k + 1, "name": str(k)} for k in range(N_CLASSES)],
            "info": {},
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.params.iouThrs = IOUS
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # [T, R, C, A] at 100 predictions
    ap = precision.mean(1).transpose(2, 0, 1)
    return np.where(ap < 0, np.nan, ap)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("kind", "judged"), [("segm", judge_masks), ("bbox", judge_boxes)])
def test_average_precision_is_that_of_coco(kind, judged, seed):
    images = random_images(np.random.default_rng(seed))
    ours = average_precision(Judged.together(judged(found, true) for true, found in images), N_CLASSES)
    theirs = of_coco(images, kind)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert np.isfinite(theirs[0, :, :2]).all() and np.isnan(theirs[:, :, 2]).all()


def test_shards_put_together_are_one_set():
    images = random_images(np.random.default_rng(9))
    parts = [judge_masks(found, true) for true, found in images]
    shards = Judged.together([Judged.together(parts[:3]), Judged.together(parts[3:])])
    whole = Judged.together(parts)
    np.testing.assert_array_equal(average_precision(shards, 3), average_precision(whole, 3))


def test_one_right_prediction_after_a_wrong_one_has_half_the_precision():
    true = objects([[0, 0, 40, 40]], [0])
    found = objects([[100, 100, 120, 120], [0, 0, 40, 30]], [0, 0], scores=[0.9, 0.8])  # the second has an IoU of .75
    rows = object_rows(judge_masks(found, true), ["cat", "dog"])
    cat = rows["cat"]
    assert [cat[c] for c in ("ap25", "ap50", "ap70", "ap75", "abo", "objects")] == pytest.approx(
        [0.5, 0.5, 0.5, 0.5, 0.75, 1]
    )
    assert cat["ap"] == pytest.approx(6 / 10 * 0.5)  # right at .5 to .75 of .5 to .95
    assert cat["ap_medium"] == pytest.approx(6 / 10)  # the wrong one is small, so that it does not count here
    assert np.isnan(rows["dog"]["ap"]) and np.isnan(cat["ap_small"])
    assert rows["mean"]["ap50"] == pytest.approx(0.5) and rows["mean"]["objects"] == 1


def test_abo_is_the_best_overlap_of_a_class_over_objects_then_over_classes():
    true = objects([[0, 0, 10, 10], [50, 0, 60, 10], [0, 50, 20, 60]], [0, 0, 1])
    found = objects(
        [[0, 0, 10, 5], [0, 0, 10, 8], [50, 0, 60, 10], [0, 50, 20, 60]], [0, 0, 1, 1], scores=[0.9, 0.01, 0.9, 0.5]
    )
    judged = judge_masks(found, true)
    np.testing.assert_allclose(best_overlaps(judged, 3), [0.4, 1.0, np.nan])  # .8 and 0: the third is of another class
    mean = object_rows(judged, ["cat", "dog", "cow"])["mean"]
    assert mean["abo"] == pytest.approx(0.7) and mean["abo_objects"] == pytest.approx(1.8 / 3)


def test_at_most_100_predictions_of_a_class_count_for_abo():
    true = objects([[0, 0, 10, 10]], [0])
    boxes = [[100, 100, 110, 110]] * 100 + [[0, 0, 10, 10]]
    found = objects(boxes, [0] * 101, scores=[0.9] * 100 + [0.1])
    assert best_overlaps(judge_masks(found, true), 1) == [0.0]


def test_void_pixels_are_left_out_of_both_masks():
    ignored = rectangles([[10, 0, 20, 10]])
    true = objects([[0, 0, 10, 10]], [0], ignored=ignored)
    found = objects([[0, 0, 20, 10], [5, 0, 30, 10], [10, 0, 20, 10]], [0, 0, 0])
    np.testing.assert_allclose(mask_overlaps(found, true), [[1.0], [50 / 200], [0.0]])


def test_a_crowd_is_neither_missed_nor_are_predictions_in_it_wrong():
    true = objects([[0, 0, 60, 60], [100, 100, 120, 120]], [0, 0], crowd=[True, False])
    found = objects([[0, 0, 20, 20], [20, 20, 40, 40], [100, 100, 120, 120]], [0, 0, 0], scores=[0.9, 0.8, 0.7])
    judged = judge_masks(found, true)
    assert judged.outcomes[:, 0, 1].tolist() == [0, 0, 1]
    assert average_precision(judged, 1)[0].ravel() == pytest.approx(1.0) and len(judged.best) == 1


def test_boxes_of_a_detector_are_judged_without_masks():
    found = Objects(np.array([0]), np.array([100.0]), np.array([0.5]), np.array([False]))
    assert judge(found, found, np.array([[1.0]])).outcomes[0, 0].tolist() == [1] * len(IOUS)


def test_masks_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        mask_overlaps(Instances.of((3, 4)), Instances.of((4, 3)))


def test_pseudo_masks_meet_the_object_of_their_box():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 100, 100], [20, 0, 30, 10]]
    true = Instances.of(SIZE, [0, 0, 1, 1], boxes, rectangles(boxes))
    # In another order, one without an object of its own, and the second of two equal boxes half as high.
    made = [[50, 50, 100, 75], [0, 0, 10, 10], [0, 0, 10, 5], [140, 0, 150, 10]]
    theirs = [boxes[2], boxes[0], boxes[1], made[3]]
    pseudo = Instances.of(SIZE, [1, 0, 0, 1], theirs, rectangles(made))
    ious = paired_ious(pseudo, true)
    np.testing.assert_allclose(ious, [1.0, 0.5, 0.5, np.nan])
    rows = pseudo_rows(true.classes, true.masks.sum((1, 2)), ious, ["cat", "dog"])
    assert rows["cat"] == pytest.approx(
        {"iou": 0.75, "iou_small": 0.75, "iou_medium": np.nan, "iou_large": np.nan, "objects": 2}, nan_ok=True
    )
    assert rows["mean"]["iou"] == pytest.approx(0.625) and rows["mean"]["iou_medium"] == pytest.approx(0.5)
