"""The perturbations of CCT's features, each against what it says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wsss_core.models.cct import Decoder
from wsss_core.segment.perturbations import (
    adversarial_noise,
    context_masking,
    dropout,
    feature_dropout,
    feature_noise,
    guided_cut_out,
    object_masking,
)


@pytest.fixture
def features() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 40, 6, 5) + 0.1


def test_dropout_takes_whole_channels(features):
    left = dropout(features, 0.5) / features
    torch.testing.assert_close(left, 2 * (left > 0).float())
    assert (left.amin((2, 3)) == left.amax((2, 3))).all()
    assert 0.3 < (left == 0).float().mean() < 0.7


def test_noise_is_in_proportion_and_the_same_for_all_images_of_a_batch(features):
    factors = feature_noise(features, 0.3) / features - 1
    assert factors.abs().max() <= 0.3 + 1e-6
    torch.testing.assert_close(factors[0], factors[1], atol=1e-6, rtol=0)
    assert factors[0].std() == pytest.approx(0.3 / 3**0.5, rel=0.05)


def test_the_most_active_cells_are_dropped():
    cells = torch.tensor([[0.2, 0.5, 1.0], [0.7, 0.8, 0.95]])
    features = torch.stack([cells, 3 * cells])[:, None] * torch.tensor([0.5, 1.5]).view(1, 2, 1, 1)
    kept = feature_dropout(features, 0.75, 0.75)
    expected = cells < 0.75
    torch.testing.assert_close(kept, features * expected)
    drawn = {int((feature_dropout(features[:1], 0.6, 0.9)[0, 0] > 0).sum()) for _ in range(200)}
    assert drawn == {2, 3, 4}  # cells below 0.6..0.7, 0.7..0.8, 0.8..0.9 of the maximum


def test_context_and_object_masking_divide_the_features(features):
    foreground = torch.zeros(2, 24, 20, dtype=torch.bool)
    foreground[0, :8] = True
    foreground[1, :, 12:] = True
    objects, context = context_masking(features, foreground), object_masking(features, foreground)
    assert torch.equal(objects + context, features)
    assert (objects[0, 0] > 0).nonzero()[:, 0].unique().tolist() == [0, 1]
    assert (objects[1, 0] > 0).nonzero()[:, 1].unique().tolist() == [3, 4]


def test_cut_out_takes_a_box_of_a_part_of_every_object():
    foreground = np.zeros((2, 80, 100), np.uint8)
    cv2.ellipse(foreground[0], (30, 40), (20, 30), 0, 0, 360, 1, -1)  # 41 wide, 61 high
    cv2.ellipse(foreground[1], (30, 40), (20, 30), 0, 0, 360, 1, -1)
    foreground[1, 5:9, 90:94] = 1  # a rectangle has four corners
    ones = torch.ones(2, 3, 80, 100)
    places = set()
    for seed in range(20):
        torch.manual_seed(seed)
        gone = guided_cut_out(ones, torch.from_numpy(foreground).bool(), 0.4, 20)[:, 0] == 0
        for image in gone:
            rows, columns = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
            assert (len(rows), len(columns)) == (round(0.4 * 61), round(0.4 * 41))
            assert image.sum() == len(rows) * len(columns)  # a box
            assert rows[0] >= 10 and rows[-1] <= 70 and columns[0] >= 10 and columns[-1] <= 50
            places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 30
    torch.manual_seed(0)
    few = guided_cut_out(ones, torch.from_numpy(foreground).bool(), 0.4, 3)[:, 0] == 0
    assert few[1, 5:9, 90:94].any() and not few[0, 5:9, 90:94].any()
    assert torch.equal(guided_cut_out(ones, torch.from_numpy(foreground).bool(), 0.4, 1000), ones)


def test_cut_out_is_made_on_the_grid_of_the_features():
    foreground = torch.zeros(1, 16, 16, dtype=torch.bool)
    foreground[0, 0:8, 8:16] = True
    cells = guided_cut_out(torch.ones(1, 1, 4, 4), foreground, 1.0, 0)[0, 0]
    assert cells.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


@pytest.fixture
def decoder() -> Decoder:
    """Three labels of 16 channels, and random doublings."""
    torch.manual_seed(0)
    made = Decoder(16, 3, 2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def published_direction(decoder: Decoder, features: torch.Tensor, step: float, dtype: torch.dtype) -> torch.Tensor:
    """The gradient of the divergence at x + step d, divided by its length, as the published code takes it."""
    torch.manual_seed(1)
    start = torch.rand_like(features) - 0.5
    x, network = features.to(dtype), decoder.to(dtype)
    moved = (step * start / start.flatten(1).norm(dim=1).view(2, 1, 1, 1)).to(dtype).requires_grad_()
    target = network(x).softmax(1).detach()
    F.kl_div(network(x + moved).log_softmax(1), target, reduction="batchmean").backward()
    return moved.grad / moved.grad.flatten(1).norm(dim=1).view(2, 1, 1, 1)


def test_adversarial_noise_is_the_limit_of_the_published_difference(decoder):
    features = torch.rand(2, 16, 20, 24)
    torch.manual_seed(1)
    found = adversarial_noise(features, decoder, 2.0) - features
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.tensor([2.0, 2.0]), rtol=1e-4, atol=0)
    exact = published_direction(decoder, features, 1e-4, torch.float64)
    torch.testing.assert_close(found.double() / 2, exact, atol=1e-4, rtol=0)
    rounded = published_direction(decoder, features, 1e-6, torch.float32)
    assert ((rounded * found / 2).flatten(1).sum(1).abs() < 0.5).all()  # what float32 leaves of it


def test_adversarial_noise_changes_the_prediction_more_than_other_noise_of_its_length(decoder):
    features = torch.rand(2, 16, 5, 6)
    target = decoder(features).softmax(1).detach()

    @torch.no_grad()
    def change(perturbed: torch.Tensor) -> float:
        return float(F.kl_div(decoder(perturbed).log_softmax(1), target, reduction="batchmean"))

    noise = torch.randn_like(features)
    noise = 0.5 * noise / noise.flatten(1).norm(dim=1).view(2, 1, 1, 1)
    assert change(adversarial_noise(features, decoder, 0.5).detach()) > 3 * change(features + noise)


def test_no_gradient_flows_through_the_adversarial_direction_or_into_a_decoder(decoder):
    features = torch.rand(1, 16, 4, 4, requires_grad=True)
    adversarial_noise(features, decoder, 2.0).sum().backward()
    assert torch.equal(features.grad, torch.ones_like(features))
    assert all(parameter.grad is None for parameter in decoder.parameters())
