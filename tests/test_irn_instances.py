"""IRN's masks of single objects, on displacement fields made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsss_core.models.backbones import backbone
from wsss_core.models.irn import IrnNetwork
from wsss_core.refine.irn.instances import InstancesSettings, instances, owner_map
from wsss_core.refine.irn.walk import predict_relations

SIZE = (80, 160)
GRID = (20, 40)
SETTINGS = InstancesSettings(log2_steps=4)


def to_centres(*centres: tuple[int, int]) -> torch.Tensor:
    """Displacements of every cell to the nearest of the centres (row, column)."""
    places = np.indices(GRID).astype(np.float32)
    ways = np.stack([np.array(centre, dtype=np.float32)[:, None, None] - places for centre in centres])
    nearest = np.hypot(ways[:, 0], ways[:, 1]).argmin(0)
    return torch.from_numpy(np.take_along_axis(ways, nearest[None, None], 0)[0])


def two_squares() -> torch.Tensor:
    """A map [1, h, w] of two squares that touch at column 20."""
    maps = torch.zeros(1, *GRID)
    maps[0, 5:15, 8:32] = 1.0
    return maps


def test_objects_that_touch_are_told_apart_by_their_displacements():
    boundary = torch.zeros(GRID)
    boundary[[4, 15]], boundary[:, [7, 32]] = 1.0, 1.0  # nothing leaves the squares, nothing stops between them
    found = instances(to_centres((10, 12), (10, 27)), boundary, two_squares(), [5], SIZE, SETTINGS)
    assert found.classes.tolist() == [5, 5]
    assert not found.masks.all(0).any()
    left, right = found.masks
    assert left[30:50, 40:76].all() and right[30:50, 84:120].all()
    assert not left[:, 84:].any() and not right[:, :76].any()
    for mask, box in zip(found.masks, found.boxes, strict=True):
        x0, y0, x1, y1 = box.astype(int)
        assert mask[y0:y1, x0:x1].sum() == mask.sum() and mask[y0].any() and mask[:, x1 - 1].any()
    assert found.scores.max() == pytest.approx(1.0)
    one = instances(to_centres((10, 20)), boundary, two_squares(), [5], SIZE, SETTINGS)
    assert len(one) == 1 and one.masks[0].sum() >= (left | right).sum() - 1


def test_pieces_of_one_class_are_objects_of_their_own_and_small_ones_have_no_score():
    maps = torch.zeros(2, *GRID)
    maps[0, 2:12, 2:12] = 1.0
    maps[0, 16:18, 30:32] = 1.0  # 64 of 12,800 pixels: less than 1 %
    maps[1, 2:12, 22:34] = 1.0
    settings = InstancesSettings(log2_steps=0, beta=1e6)  # nothing moves but what meets no boundary at all
    boundary = torch.full(GRID, 0.5)
    found = instances(torch.zeros(2, *GRID), boundary, maps, [3, 1], SIZE, settings)
    assert found.classes.tolist() == [3, 3, 1]
    assert found.scores[[0, 2]].tolist() == pytest.approx([1.0, 1.0]) and found.scores[1] == 0.0
    assert found.boxes[0].tolist() == pytest.approx([8, 8, 48, 48], abs=2)
    assert found.boxes[2].tolist() == pytest.approx([88, 8, 136, 48], abs=2)


def test_cells_that_end_in_no_still_region_are_one_object_too():
    displacement = np.zeros((2, 3, 12))
    displacement[1, :, 6:] = 3.0  # they run to the right border and are never still
    owners = owner_map(displacement, 300, 2.5)
    assert owners[:, :6].tolist() == [[1] * 6] * 3 and owners[:, 6:].tolist() == [[0] * 6] * 3


def test_cells_move_by_the_displacement_between_cells():
    displacement = np.zeros((2, 1, 6))
    displacement[1, 0] = [0.5, 0.5, 0.5, 0.0, -4.0, -4.0]
    # 0 -> .5 -> 1 -> 1.5 -> 2 -> 2.5 (.25) -> ... -> 3; 4 -> 0, 5 -> 1, and on to 3
    assert owner_map(displacement, 300, 0.4).tolist() == [[0] * 6]
    displacement[1, 0, 0] = 0.0
    # The first cell is still, and what lands on it stays.
    assert owner_map(displacement, 300, 0.4).tolist() == [[0, 1, 1, 1, 0, 1]]


def test_without_classes_there_are_no_objects():
    none = instances(torch.zeros(2, *GRID), torch.zeros(GRID), torch.zeros(0, *GRID), [], SIZE, SETTINGS)
    assert len(none) == 0 and none.size == SIZE


def test_displacements_are_those_of_the_image_itself_without_their_mean():
    torch.manual_seed(0)
    network = IrnNetwork(backbone("small")).eval()
    image = np.random.default_rng(0).integers(0, 255, (33, 50, 3), dtype=np.uint8)
    cpu = torch.device("cpu")
    boundaries, displacements = predict_relations(network, [image], None, cpu)
    assert boundaries.shape == (1, 9, 13) and displacements.shape == (1, 2, 9, 13)
    network.mean_shift.copy_(torch.tensor([1.0, -2.0]))
    shifted = predict_relations(network, [image], None, cpu)[1]
    torch.testing.assert_close(displacements - shifted, torch.tensor([1.0, -2.0])[:, None, None].expand(1, 2, 9, 13))
