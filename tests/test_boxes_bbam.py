"""BBAM: a detector whose right mask is known, batch against loop, proposals, both objectives, resilience."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.baselines.bbam_loop import bbam_loop
from tests.detectors import NodeDetector, RandomDetector
from wsss_core.boxes import Scene
from wsss_core.boxes.bbam import (
    BbamSettings,
    Subject,
    attributions,
    enlarging,
    optimised,
    positive,
    proposals_around,
    stride_of,
    subjects,
    variation,
)
from wsss_core.boxes.geometry import decoded
from wsss_core.data.boxes import Box
from wsss_core.store import shards
from wsss_core.store.attributions import ATTRIBUTIONS, AttributionStore

SIDE = 33
"""With 8 pixels to a cell, masks have 5x5 cells on the pixels 0, 8, 16, 24 and 32."""
NEAR = BbamSettings(strides=(8.0, 8.0), jitter=0.02, proposals=20, iterations=150)


def scene(corners=(8, 8, 30, 30), image_id="photo", label=0) -> Scene:
    view = torch.ones(3, SIDE, SIDE, dtype=torch.float64)
    return Scene.of(
        image_id, view, (2 * SIDE, SIDE), [Box(label, corners[0], 2 * corners[1], corners[2], 2 * corners[3])]
    )


def nodes(cells: dict[tuple[int, int], float]) -> NodeDetector:
    weights = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for (row, column), weight in cells.items():
        weights[8 * row, 8 * column] = weight
    return NodeDetector(weights)


@pytest.mark.parametrize("variant", ["official", "paper"])
@pytest.mark.parametrize("heads", ["both", "box", "cls"])
def test_the_mask_is_the_patch_that_the_detector_reads(variant, heads):
    patch = {(1, 2): 1.0, (1, 3): 1.0, (2, 2): 1.0, (2, 3): 1.0}
    settings = replace(NEAR, variant=variant, heads=heads, variation_weight=0.0)
    (found,) = attributions(nodes(patch), [scene()], settings, 0, "bbam")
    wanted = np.zeros((5, 5))
    wanted[1:3, 2:4] = 1
    np.testing.assert_allclose(found.maps[0], wanted, atol=0.03)  # Adam swings about the bounds by a step
    assert found.found.all() and found.statistics["positives"] == [20] and found.statistics["without"] == 0


def test_a_larger_lambda_leaves_fewer_cells():
    cells = {(1, 1): 1.0, (1, 2): 2.0, (2, 1): 3.0, (2, 2): 4.0}
    sums = []
    for weight in (0.0, 0.03, 0.06, 0.09, 0.12, 0.2):
        # the box's term weighs 1/8 of four offsets, the class's 1/2: a cell of weight w is worth w / 10
        settings = replace(NEAR, size_weight=weight, variation_weight=0.0)
        (found,) = attributions(nodes({key: value for key, value in cells.items()}), [scene()], settings, 0, "bbam")
        sums.append(round(float(found.maps[0].sum()), 1))
    assert sums == sorted(sums, reverse=True) and len(set(sums)) >= 4
    kept = dict(zip((0.03, 0.12), (sums[1], sums[4]), strict=True))
    assert kept[0.03] >= 3.9 and kept[0.12] <= 3.1


def random_subjects() -> tuple[RandomDetector, list[Subject]]:
    detector = RandomDetector()
    made = torch.Generator().manual_seed(1)
    found = []
    for size in ((40, 56), (48, 40), (40, 56)):
        view = torch.randn(3, *size, generator=made, dtype=torch.float64)
        proposals = torch.tensor([[4, 4, 20, 18], [10, 8, 38, 36], [0, 0, 12, 9]], dtype=torch.float64)
        found += subjects(detector, view, proposals, BbamSettings(strides=(6.0, 20.0)))
    several = found[1]
    proposals = torch.cat([one.proposals for one in found[:2]])
    with torch.no_grad():
        probabilities, offsets = detector(several.view[None], [proposals])
    column = several.column
    found.append(
        replace(several, proposals=proposals, probabilities=probabilities[:, column], offsets=offsets[:, column])
    )
    return detector, found


@pytest.mark.parametrize(
    ("variant", "heads"), [("official", "both"), ("paper", "both"), ("official", "box"), ("paper", "cls")]
)
def test_a_batch_of_objects_is_the_plain_loop_over_them(variant, heads):
    detector, sought = random_subjects()
    settings = BbamSettings(variant=variant, heads=heads, iterations=12, strides=(6.0, 20.0))
    assert len({one.grid for one in sought}) > 2
    masks, curves = optimised(detector, sought, settings)
    for mask, loop in zip(masks, bbam_loop(detector, sought, settings), strict=True):
        torch.testing.assert_close(mask, loop, rtol=0, atol=1e-9)
    alone, alone_curves = optimised(detector, sought, settings, most=1)
    torch.testing.assert_close(masks, alone, rtol=0, atol=1e-9)
    torch.testing.assert_close(curves, alone_curves, rtol=1e-9, atol=1e-9)


def test_no_weight_of_the_detector_has_a_gradient():
    detector, sought = random_subjects()
    optimised(detector, sought[:1], BbamSettings(iterations=1))
    assert all(one.grad is None for one in detector.parameters())


def test_the_first_losses_are_the_objective_of_the_start():
    detector, sought = random_subjects()
    one = sought[-1]
    _, (curve,) = optimised(detector, [one], BbamSettings(iterations=2))
    start = one.start()
    seen = one.view * F.interpolate(start[None, None], one.size, mode="bilinear", align_corners=True)[0]
    with torch.no_grad():
        probabilities, offsets = detector(seen[None], [one.proposals])
    box = (offsets[:, one.column] - one.offsets).abs().sum(1).mean()
    cls = (probabilities[:, one.column] - one.probabilities).abs().mean()
    torch.testing.assert_close(curve[0, :3], torch.stack([box, cls, start.sum()]))


def test_attributions_of_many_images_are_those_of_each_and_do_not_depend_on_order():
    detector = RandomDetector()
    scenes = []
    for number, size in enumerate([(40, 56), (48, 40), (40, 56)]):
        view = torch.randn(3, *size, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        boxes = [Box(0, 4, 4, 20, 18), Box(1, 10, 8, 38, 36, crowd=True), Box(2, 2, 3, 30, 30)]
        scenes.append(Scene.of(f"photo{number}", view, size, boxes))
    probabilities = detector(scenes[0].view[None], [scenes[0].seen_boxes])[0].argmax(1)
    settings = BbamSettings(iterations=4, strides=(6.0, 20.0), proposals=40, jitter=0.05)
    together = attributions(detector, scenes, settings, 7, "stage")
    for one, backwards in zip(
        scenes, reversed(attributions(detector, scenes[::-1], settings, 7, "stage")), strict=True
    ):
        (alone,) = attributions(detector, [one], settings, 7, "stage")
        for other in (backwards, together[scenes.index(one)]):
            assert alone.found.tolist() == other.found.tolist()
            for mine, its in zip(alone.maps, other.maps, strict=True):
                np.testing.assert_allclose(mine, its, atol=1e-6)
    assert [len(one) for one in together] == [2, 2, 2] and len(probabilities) == 2


def test_an_object_that_no_proposal_finds_has_no_attribution():
    (found,) = attributions(nodes({(1, 1): 1.0}), [scene(label=1)], NEAR, 0, "bbam")
    assert not found.found.any() and not found.maps[0].any()
    assert found.statistics["positives"] == [0] and found.statistics["without"] == 1
    assert found.statistics["iou"] == [0.0]


def test_an_image_without_boxes_has_no_attribution():
    view = torch.ones(3, SIDE, SIDE)
    (found,) = attributions(nodes({(1, 1): 1.0}), [Scene.of("empty", view, (10, 10), [])], NEAR, 0, "bbam")
    assert len(found) == 0 and found.maps == ()


def test_positives_are_taken_at_the_highest_iou_that_has_enough():
    settings = BbamSettings(positives=2)
    ious = torch.tensor([0.86, 0.95, 0.81, 0.95, 0.87, 0.95, 0.5])
    right = torch.tensor([True, True, True, True, True, False, True])
    assert [x.tolist() if isinstance(x, torch.Tensor) else x for x in positive(right, ious, settings)] == [[0, 1], 0.85]
    assert positive(right, ious, replace(settings, variant="paper"))[0].tolist() == [0, 1]
    assert positive(right, ious, replace(settings, positives=1))[1] == 0.9
    found, least = positive(right, ious, replace(settings, positives=9))
    assert (found.tolist(), least) == ([0, 1, 2, 3, 4], 0.8)
    assert positive(right & False, ious, settings)[1] == 0.0


def test_proposals_stay_within_the_jitter_and_the_image_and_are_keyed():
    box = torch.tensor([10.0, 20.0, 30.0, 30.0])
    found = proposals_around(box, (40, 31), BbamSettings(), 0, "stage", "photo", 0)
    assert found.shape == (1000, 4) and found.max() <= 36
    assert (found[:, 2] <= 31).all() and (found[:, 2] == 31).any()
    assert ((found - box).abs() <= torch.tensor([6.0, 3.0, 6.0, 3.0]) + 1e-4).all()
    assert (found[:, 1] - box[1]).abs().max() > 2.9
    assert not torch.equal(found, proposals_around(box, (40, 31), BbamSettings(), 0, "stage", "photo", 1))


def test_strides_grow_with_the_root_of_the_area():
    size = (100, 200)
    assert stride_of(torch.tensor([0.0, 0, 200, 100]), size, BbamSettings()) == 64
    assert stride_of(torch.tensor([0.0, 0, 0, 0]), size, BbamSettings()) == 16
    assert stride_of(torch.tensor([0.0, 0, 50, 100]), size, BbamSettings(strides=(24.0, 24.0))) == 24


def test_the_mask_starts_inside_the_boxes_found():
    one = Subject(
        torch.zeros(3, 60, 80),
        1,
        torch.tensor([[16.0, 8, 48, 24], [60, 40, 62, 41]]),
        torch.ones(2),
        torch.zeros(2, 4),
        8.0,
    )
    wanted = torch.zeros(8, 10)
    wanted[1:3, 2:6] = 1
    wanted[5, 7] = 1
    assert torch.equal(one.start(), wanted)


def test_enlarging_is_bilinear_interpolation_between_corner_cells():
    grid = torch.rand(5, 3, dtype=torch.float64)
    plain = F.interpolate(grid[None, None], (37, 20), mode="bilinear", align_corners=True)[0, 0]
    torch.testing.assert_close(enlarging(5, 37, grid) @ grid @ enlarging(3, 20, grid).T, plain)
    assert enlarging(3, 1, grid).tolist() == [[1.0, 0.0, 0.0]]


def test_variation_counts_neighbours_by_hand_and_diagonal_ones_twice():
    mask = torch.tensor([[[1.0, 0.0, 9.0], [0.0, 0.0, 9.0]]])
    cells = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]])
    assert variation(mask, cells).tolist() == [1 + 1 + 2]


def test_boxes_are_decoded_by_hand():
    offsets = torch.tensor([[1.0, -1.0, 5 * math.log(2), 0.0]])
    found = decoded(offsets, torch.tensor([[10.0, 10.0, 20.0, 30.0]]))
    torch.testing.assert_close(found, torch.tensor([[6.0, 8.0, 26.0, 28.0]]))


def test_a_heads_loss_is_recorded_though_it_is_not_optimised():
    detector, sought = random_subjects()
    _, curves = optimised(detector, sought[:2], BbamSettings(heads="cls", iterations=5))
    assert [tuple(curve.shape) for curve in curves] == [(5, 4)] * 2
    assert all((curve[:, 0] > 0).any() for curve in curves)


def test_attributions_survive_their_file(tmp_path: Path):
    (found,) = attributions(nodes({(1, 1): 1.0}), [scene()], replace(NEAR, iterations=3), 0, "bbam")
    shards.build(tmp_path / "a.h5", ATTRIBUTIONS, {"photo": "x"}, lambda _: found, {}, cache=tmp_path / "c.h5")
    again = AttributionStore(tmp_path / "a.h5")["photo"]
    assert again.size == found.size == (66, 33) and again.statistics == found.statistics
    for name in ("classes", "boxes", "found"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    np.testing.assert_array_equal(again.maps[0], found.maps[0])
    assert again.full(0).shape == (66, 33)
