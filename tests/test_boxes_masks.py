"""Masks from attributions and from boxes alone: ranks, values, each fallback, fitting to proposals, merging."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.boxes import ObjectMethod, fill, grabcut, masks, sam
from wsss_core.boxes.masks import MasksSettings, inside_box, masks_of, posteriors, ranked, softened
from wsss_core.boxes.merge import MergeSettings, merged
from wsss_core.boxes.proposals import MaskProposals, ProposalsSettings, fitted, read_proposals, refined
from wsss_core.data.boxes import Box
from wsss_core.errors import UserError
from wsss_core.store.attributions import Attributions
from wsss_core.store.instances import Instances

METHODS: tuple[ObjectMethod, ...] = (fill, grabcut, masks, sam)
"""mypy holds each against the protocol."""
CPU = torch.device("cpu")
SIZE = (60, 80)
DISC = ((np.mgrid[:60, :80][0] - 30) ** 2 + (np.mgrid[:60, :80][1] - 40) ** 2) < 15**2
"""A disc of 30 pixels in the middle."""
BOX = (25.0, 15.0, 56.0, 46.0)


def photo(inside=(220, 40, 40)) -> np.ndarray:
    image = np.full((*SIZE, 3), 90, dtype=np.uint8)
    image[DISC] = inside
    return image


def attributed(*maps: np.ndarray, boxes=None) -> Attributions:
    n = len(maps)
    boxes = [BOX] * n if boxes is None else boxes
    return Attributions(
        SIZE,
        np.zeros(n, dtype=np.int64),
        np.asarray(boxes, dtype=np.float32).reshape(n, 4),
        tuple(np.asarray(one, dtype=np.float32) for one in maps),
        np.array([np.any(one) for one in maps], dtype=bool),
    )


def peak() -> np.ndarray:
    """High in the middle of the disc only."""
    grid = np.zeros((7, 9))
    grid[3, 4] = 1
    return grid


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


# --- from a map to a probability


def test_the_rank_is_counted_from_the_highest():
    values = np.zeros((10, 20), dtype=np.float32)
    place = (slice(0, 10), slice(0, 10))
    values[place] = (1 + np.arange(100).reshape(10, 10)) / 100
    # 15 % of the box stay at 1 for q = 0.85, 80 % for q = 0.2: the value at the rank itself included
    assert (ranked(values, place, 0.85) >= 0.9999).sum() == 16
    assert (ranked(values, place, 0.2) >= 0.9999).sum() == 81
    assert ranked(values, place, 0.2)[0, 4] == pytest.approx(0.05 / 0.20)
    assert not ranked(np.zeros_like(values), place, 0.85).any()


def test_a_map_is_set_to_its_range_enlarged_and_cut_to_its_box():
    one = attributed([[2, 2], [2, 6]], boxes=[(40, 30, 80, 60)])
    found = inside_box(one, 0, (slice(30, 60), slice(40, 80)))
    assert found[59, 79] == 1 and not found[:30].any() and not found[:, :40].any()
    assert found[40, 60] == pytest.approx((40 / 59) * (60 / 79), abs=1e-6)
    assert not inside_box(attributed(np.ones((2, 2))), 0, (slice(0, 9), slice(0, 9))).any()


def test_the_blur_widens_with_the_box_and_stays_in_it():
    values = np.zeros((400, 400), dtype=np.float32)
    values[200, 200] = 1
    for half, width in ((5, int(16 + 48 * 11 / 400)), (50, int(16 + 48 * 101 / 400))):
        place = (slice(200 - half, 201 + half),) * 2
        found = softened(values, place)
        assert found.max() == found[200, 200] == 1 and np.count_nonzero(found) == (2 * min(half, width) + 1) ** 2
        assert found[200, 205] == pytest.approx(np.exp(-(5**2) / (2 * width**2)), rel=1e-3)


# --- masks


@pytest.mark.parametrize("threshold", ["rank", "value"])
def test_the_mask_is_the_object_and_better_than_its_box(threshold):
    grid = np.zeros((13, 17))
    grid[4:9, 6:11] = 1  # cells of 5 pixels
    found = masks_of(photo(), attributed(grid), MasksSettings(threshold=threshold))
    box = np.zeros(SIZE, dtype=bool)
    box[15:46, 25:56] = True
    assert iou(found.masks[0] | found.ignored[0], DISC) > 0.95 > iou(box, DISC)
    assert not (found.masks & found.ignored).any() and not (found.masks | found.ignored)[:, ~box].any()
    assert found.statistics == {"priors": [[0.0, 0.0]], "without": 0, "retried": 0, "unsatisfied": 0, "empty": 0}
    np.testing.assert_array_equal(found.boxes[0], BOX)


def test_equal_thresholds_ignore_nothing_and_others_what_only_the_wide_mask_holds():
    image = np.random.default_rng(0).integers(0, 255, (150, 200, 3)).astype(np.uint8)  # no edges to cling to
    grid = np.zeros((10, 14))
    grid[2:8, 1:8] = np.linspace(1, 0.2, 7)
    one = replace(attributed(grid, boxes=[(10, 10, 190, 140)]), size=(150, 200))
    assert not masks_of(image, one, MasksSettings(foreground=0.5, background=0.5)).ignored.any()
    found = masks_of(image, one, MasksSettings())
    narrow, wide = (masks_of(image, one, MasksSettings(foreground=q, background=q)).masks[0] for q in (0.85, 0.2))
    assert narrow.any() and (wide & ~narrow).any()
    np.testing.assert_array_equal(found.masks[0], narrow)
    np.testing.assert_array_equal(found.ignored[0], wide & ~narrow)


def test_values_cut_the_posterior_at_both_thresholds():
    image, one = photo(), attributed(np.random.default_rng(1).random((7, 9)))
    settings = MasksSettings(threshold="value", foreground=0.7, background=0.1, iterations=1)
    found = masks_of(image, one, settings)
    (seen,) = posteriors(image, [inside_box(one, 0, (slice(15, 46), slice(25, 56)))], settings)
    np.testing.assert_array_equal(found.masks[0], seen > 0.7)
    np.testing.assert_array_equal(found.ignored[0], (seen >= 0.1) & (seen <= 0.7))
    assert found.ignored.any()


ALONE = MasksSettings(gaussian=(1.0, 0.0), bilateral=(80.0, 3.0, 0.0))
"""A CRF whose posterior is the probability that it is given."""
WIDE = (200, 300)


def in_wide_image(box: tuple[int, int, int, int]) -> Attributions:
    """A peak in the middle of a box of an image of 200x300 pixels."""
    grid = np.zeros((41, 61))
    grid[(box[1] + box[3]) // 10, (box[0] + box[2]) // 10] = 1
    return replace(attributed(grid, boxes=[box]), size=WIDE)


@pytest.mark.parametrize(("posterior", "prior"), [(0.85, 0.9), (0.93, 0.95), (0.955, 0.96)])
def test_a_small_mask_in_a_small_box_is_tried_again_until_a_third_is_filled(posterior, prior):
    found = masks_of(
        np.zeros((*WIDE, 3), np.uint8), in_wide_image((100, 60, 180, 135)), replace(ALONE, posterior=posterior)
    )
    assert found.statistics["priors"][0][0] == prior and found.statistics["retried"] == 1
    assert found.masks.sum() == found.masks[0, 60:135, 100:180].sum() == 80 * 75
    assert found.statistics["unsatisfied"] == 0


def test_the_mask_before_stays_in_what_is_tried_again():
    image, settings = np.zeros((*WIDE, 3), np.uint8), replace(ALONE, posterior=0.97)
    one = in_wide_image((100, 60, 180, 135))
    found = masks_of(image, one, settings)
    box = (slice(60, 135), slice(100, 180))
    first = softened(ranked(inside_box(one, 0, box), box, 0.85), box) > 0.97
    assert 0 < first.sum() < 80 * 75 / 5
    np.testing.assert_array_equal(found.masks[0], first)  # which no probability adds to, so that the last stands
    assert found.statistics["priors"][0][0] == 0.96 and found.statistics["unsatisfied"] == 1


def test_a_small_mask_in_a_large_box_stays():
    found = masks_of(np.zeros((*WIDE, 3), np.uint8), in_wide_image((50, 50, 200, 150)), replace(ALONE, posterior=0.95))
    assert found.statistics["priors"] == [[0.0, 0.0]] and found.statistics["retried"] == 0
    assert 0 < found.masks.sum() <= 150 * 100 / 5


def test_an_object_without_attribution_is_made_of_its_box_in_both_ways():
    for threshold in ("rank", "value"):
        nothing = attributed(np.zeros((7, 9)))
        found = masks_of(photo(), nothing, MasksSettings(threshold=threshold))
        assert found.statistics["without"] == 1 and found.statistics["retried"] == 0
        ((narrow, wide),) = found.statistics["priors"]
        assert narrow == wide and narrow in masks.ABSENT_PRIORS
        assert found.masks[0].sum() > 31 * 31 / 5 and not found.ignored.any()


def test_the_last_probability_stands_where_none_is_enough_and_no_mask_takes_anothers_place():
    found = masks_of(photo(), attributed(np.zeros((7, 9)), np.zeros((7, 9))), replace(ALONE, posterior=0.99))
    assert found.statistics["priors"] == [[0.95, 0.95]] * 2 and len(found) == 2
    assert found.statistics["unsatisfied"] == found.statistics["empty"] == found.statistics["without"] == 2
    mixed = attributed(np.zeros((7, 9)), peak(), boxes=[BOX, BOX])
    alone = masks_of(photo(), attributed(peak()), MasksSettings())
    np.testing.assert_array_equal(masks_of(photo(), mixed, MasksSettings()).masks[1], alone.masks[0])


def test_an_image_without_objects_has_no_masks_by_any_method():
    for method, settings in (
        (masks, MasksSettings()),
        (fill, fill.FillSettings()),
        (grabcut, grabcut.GrabCutSettings()),
    ):
        found = method.maker(settings, CPU)(photo(), [Box(0, 1, 1, 9, 9, crowd=True)], attributed())
        assert len(found) == 0 and found.size == SIZE


def test_thresholds_in_the_wrong_order_and_missing_attributions_are_refused():
    with pytest.raises(UserError, match=r"background 0\.9 must not exceed foreground 0\.85"):
        masks.maker(MasksSettings(background=0.9), CPU)
    with pytest.raises(ValueError, match="attribution of every box"):
        masks.maker(MasksSettings(), CPU)(photo(), [Box(0, *BOX)], None)


# --- boxes alone


def test_a_filled_box_is_its_pixels():
    boxes = [Box(3, 2.4, 1, 5.4, 4), Box(1, 0, 0, 5, 5, crowd=True), Box(2, 79.9, 59.9, 80, 60)]
    found = fill.maker(fill.FillSettings(), CPU)(photo(), boxes, None)
    assert found.classes.tolist() == [3, 2] and found.masks.sum((1, 2)).tolist() == [9, 1]
    assert found.masks[0, 1:4, 2:5].all() and found.masks[1, 59, 79] and not found.ignored.any()


def test_grabcut_finds_a_disc_by_its_colour_and_fills_boxes_that_leave_it_nothing_to_learn():
    make = grabcut.maker(grabcut.GrabCutSettings(), CPU)
    found = make(photo(), [Box(0, *BOX), Box(1, 0, 0, 80, 60), Box(2, 4, 4, 6, 6)], None)
    assert iou(found.masks[0], DISC) > 0.97
    assert found.masks[1].all() and found.masks[2].sum() == 4 and found.statistics == {"filled": 2}
    again = make(photo(), [Box(0, *BOX)], None)
    np.testing.assert_array_equal(again.masks[0], found.masks[0])


# --- proposals

FIT = ProposalsSettings(folder="", smallest=0)


def rows(*spans: tuple[int, int]) -> np.ndarray:
    """Masks of one row of 20 pixels."""
    found = np.zeros((len(spans), 1, 20), dtype=bool)
    for mask, (first, last) in zip(found, spans, strict=True):
        mask[0, first:last] = True
    return found


def test_counts_of_proposals_are_those_of_their_masks():
    drawn = np.random.default_rng(0).random((19, 6, 7)) > 0.5
    made = MaskProposals.of(drawn)
    mask = np.random.default_rng(1).random((6, 7)) > 0.5
    np.testing.assert_array_equal(made.pixels(mask), (drawn & mask).sum((1, 2)))
    chosen = np.arange(19) % 5 == 0
    np.testing.assert_array_equal(made.union(chosen), drawn[chosen].any(0))
    assert MaskProposals.of(np.zeros((0, 6, 7), dtype=bool)).members.shape[0] == 0


def test_a_mask_becomes_the_proposals_within_it_and_the_most_like_it():
    (mask,) = rows((4, 12))
    # within: 4..8; IoU by hand: 4/8, 7/9 (5..13: 7 common of 9), 8/14 (2..16)
    made = MaskProposals.of(rows((4, 8), (5, 13), (2, 16), (13, 20)))
    place = (slice(0, 1), slice(2, 16))
    np.testing.assert_array_equal(fitted(mask, place, made, FIT), rows((4, 13))[0])
    # a box that ends at 12 holds 7 of the 8 pixels of the second, too few for the best
    np.testing.assert_array_equal(fitted(mask, (slice(0, 1), slice(4, 12)), made, FIT), rows((4, 8))[0])


def test_the_best_counts_pixels_wherever_they_are():
    (mask,) = rows((0, 4))
    made = MaskProposals.of(rows((0, 5), (1, 9)))  # IoU 4/5 and 3/9; sums of indices: 6/10 and 6/36
    np.testing.assert_array_equal(fitted(mask, (slice(0, 1), slice(0, 10)), made, FIT), rows((0, 5))[0])


def test_proposals_with_a_superpixel_beyond_the_enlarged_box_are_dropped():
    superpixels = np.arange(20)[None]
    made = MaskProposals(superpixels, rows((2, 18))[:, 0])
    (mask,) = rows((2, 10))
    wide = replace(FIT, within=0.5)
    assert fitted(mask, (slice(0, 1), slice(0, 12)), made, wide) is None
    found = fitted(mask, (slice(0, 1), slice(0, 13)), made, wide)
    np.testing.assert_array_equal(found, rows((2, 13))[0])


def test_objects_are_refined_with_their_ignored_pixels_and_counted():
    objects = Instances.of(
        (1, 20),
        [0, 1, 2],
        [[0, 0, 14, 1], [0, 0, 3, 1], [16, 0, 20, 1]],
        rows((4, 8), (0, 2), (17, 19)),
        ignored=rows((8, 12), (2, 3), (19, 20)),
        statistics={"before": 1},
    )
    made = MaskProposals.of(rows((4, 9), (4, 13)))
    found = refined(objects, made, replace(FIT, smallest=4))
    np.testing.assert_array_equal(found.masks, rows((4, 9), (0, 2), (17, 19)))
    np.testing.assert_array_equal(found.ignored, rows((9, 13), (2, 3), (19, 20)))
    assert found.statistics == {"before": 1, "small": 1, "unfitted": 1}


def test_proposals_are_read_as_run_lengths_and_as_superpixels(tmp_path: Path):
    (tmp_path / "a%2Fb.json").write_text(json.dumps([{"size": [1, 20], "counts": [4, 5, 11]}]))
    found = read_proposals(tmp_path, "a/b", (1, 20))
    np.testing.assert_array_equal(found.union(np.array([True])), rows((4, 9))[0])
    numbers = np.repeat([[7, 300, 9]], [5, 5, 10], axis=1).astype(np.uint16)
    Image.fromarray(numbers).save(tmp_path / "c.png")
    (tmp_path / "c.json").write_text("[[7, 9], [300]]")
    found = read_proposals(tmp_path, "c", (1, 20))
    np.testing.assert_array_equal(found.union(np.array([False, True])), rows((5, 10))[0])
    np.testing.assert_array_equal(found.pixels(np.ones((1, 20), dtype=bool)), [15, 5])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is missing"),
        ("[", "cannot be read as JSON"),
        ("{}", "must hold a list"),
        ("[[1, 2]]", "no x.png with superpixels"),
        ('[{"size": [2, 20], "counts": [40]}]', "is for"),
        ('[{"size": [1, 20], "counts": [30]}]', "covers 30 pixels"),
    ],
)
def test_wrong_proposals_are_named(tmp_path: Path, content, told):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=told) as error:
        read_proposals(tmp_path, "x", (1, 20))
    assert "x.json" in str(error.value)


@pytest.mark.parametrize(
    ("size", "content", "told"),
    [((1, 3), "[[1]]", "1x20|20x1"), ((1, 20), "[[1, 8]]", "superpixel 8"), ((1, 20), '[["a"]]', "no list")],
)
def test_wrong_superpixels_are_named(tmp_path: Path, size, content, told):
    Image.fromarray(np.ones(size, dtype=np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=told):
        read_proposals(tmp_path, "x", (1, 20))


# --- label maps


def objects(*entries, size=(1, 12), **given) -> Instances:
    """Objects of (class, box columns, mask columns, ignored columns) in one row."""
    planes = np.zeros((2, len(entries), *size), dtype=bool)
    for number, (_, _, mask, ignored) in enumerate(entries):
        planes[0, number, 0, slice(*mask)] = True
        planes[1, number, 0, slice(*ignored)] = True
    boxes = [[first, 0, last, 1] for _, (first, last), _, _ in entries]
    return Instances.of(size, [entry[0] for entry in entries], boxes, planes[0], ignored=planes[1], **given)


NONE = (0, 0)


def test_two_classes_make_a_pixel_undecided_and_one_class_does_not():
    given = objects((0, (0, 6), (0, 6), NONE), (1, (4, 10), (4, 9), NONE), (1, (7, 12), (8, 11), NONE))
    wanted = [1, 1, 1, 1, 255, 255, 2, 2, 2, 2, 2, 0]
    assert merged(given, MergeSettings("ignore"))[0].tolist() == wanted
    assert merged(given, MergeSettings("win"))[0].tolist() == wanted


def test_three_classes_on_a_pixel_are_undecided_too():
    given = objects(*((c, (c, c + 8), (4, 6), NONE) for c in range(3)))
    assert merged(given, MergeSettings())[0, 3:7].tolist() == [0, 255, 255, 0]


def test_contained_objects_win_the_smallest_last_where_that_is_asked():
    given = objects((2, (3, 5), (3, 5), NONE), (0, (0, 12), (0, 12), NONE), (1, (2, 8), (2, 8), NONE))
    assert merged(given, MergeSettings("win"))[0].tolist() == [1, 1, 2, 3, 3, 2, 2, 2, 1, 1, 1, 1]
    assert merged(given, MergeSettings("ignore"))[0].tolist() == [1, 1, *[255] * 6, 1, 1, 1, 1]


def test_an_equal_box_contains_nothing():
    given = objects((0, (2, 8), (2, 6), NONE), (1, (2, 8), (4, 8), NONE))
    assert merged(given, MergeSettings("win"))[0].tolist() == [0, 0, 1, 1, 255, 255, 2, 2, 0, 0, 0, 0]


def test_what_one_object_ignores_is_undecided_also_where_another_claims_it():
    given = objects((0, (0, 12), (0, 6), (6, 10)), (1, (5, 9), (7, 9), (6, 7)))
    assert merged(given, MergeSettings("win"))[0].tolist() == [1] * 6 + [255] * 4 + [0, 0]


def test_crowds_are_undecided_where_no_object_is():
    given = objects((0, (0, 12), (0, 8), NONE), (0, (0, 4), (2, 4), NONE), crowd=[True, False])
    assert merged(given, MergeSettings())[0].tolist() == [255, 255, 1, 1, *[255] * 4, 0, 0, 0, 0]
    assert not merged(Instances.of((1, 3)), MergeSettings()).any()
