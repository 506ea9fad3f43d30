"""From maps to label masks: thresholds, CRF labels, bands, filling, the walk of one image."""

import numpy as np
import pytest
import torch
from torch import nn

from wsss_core.errors import UserError
from wsss_core.kernels.random_walk import propagate
from wsss_core.refine import cut_at, highest_label, mask_values
from wsss_core.refine.crf import CrfSettings, crf_mask
from wsss_core.refine.irn.labels import LabelsSettings, confident_labels
from wsss_core.refine.irn.walk import WalkSettings, nothing, predict_relations, walk
from wsss_core.refine.threshold import score_mask
from wsss_core.store.cut import Cut
from wsss_core.store.seeds import SeedMaps


def halves():
    """A dark and a light half, and two maps: class 4 high on the left, class 11 on the right, both low at the seam."""
    image = np.full((24, 40, 3), 50, np.uint8)
    image[:, 20:] = 190
    maps = torch.zeros(2, 24, 40)
    maps[0, :, :10] = 0.9
    maps[0, :, 10:17] = 0.25
    maps[1, :, 30:] = 0.8
    maps[1, :, 23:30] = 0.2
    return image, maps


def test_highest_label_is_the_argmax_with_a_constant_in_front():
    maps = torch.tensor([[[0.3, 0.5, 0.2]], [[0.3, 0.6, 0.1]]])
    assert highest_label(maps, 0.3).tolist() == [[0, 2, 0]]
    assert mask_values(highest_label(maps, 0.29), (4, 11)).tolist() == [[5, 12, 0]]


def test_thresholds():
    chosen = {"rule": "heldout", "value": 0.31, "oracle": {"value": 0.22, "miou": 0.5}}
    assert cut_at(0.3, chosen) == Cut("fixed", 0.3)
    assert cut_at("score", chosen) == Cut("heldout", 0.31, from_maps=True)
    assert cut_at("oracle", chosen) == Cut("oracle", 0.22)
    assert cut_at("otsu", chosen) == cut_at("otsu", None) == Cut("otsu")
    assert cut_at("score", {"rule": "otsu", "value": 0.4, "values": {}}) == Cut("otsu", from_maps=True)
    with pytest.raises(UserError, match="no threshold file"):
        cut_at("score", None)
    with pytest.raises(UserError, match="needs masks"):
        cut_at("oracle", {"rule": "fixed", "value": 0.25})


@pytest.mark.parametrize("unary", ["label", "soft"])
def test_crf_spreads_labels_to_the_edge_of_the_colour(unary):
    image, maps = halves()
    settings = CrfSettings(unary=unary, bilateral=(40.0, 10.0, 10.0), confidence=0.9)
    mask = crf_mask(image, maps + 0.08, (4, 11), 0.1, settings)
    assert mask.dtype == np.uint8 and mask.shape == (24, 40)
    assert (mask[:, :20] == 5).mean() > 0.99 and (mask[:, 20:] == 12).mean() > 0.99


def test_crf_with_no_iterations_is_the_threshold():
    image, maps = halves()
    thresholded = mask_values(highest_label(maps, 0.22), (4, 11))
    for unary in ("label", "soft"):
        mask = crf_mask(image, maps, (4, 11), 0.22, CrfSettings(unary=unary, iterations=0))
        assert np.array_equal(mask, thresholded)


def test_images_without_classes_are_background():
    image, _ = halves()
    empty = torch.zeros(0, 24, 40)
    assert not crf_mask(image, empty, (), 0.3, CrfSettings()).any()
    assert not confident_labels(image, empty, (), LabelsSettings()).any()
    assert not score_mask(empty, (), 0.3, None).any()
    assert not score_mask(empty, (), 0.3, (0.2, 0.3)).any()


def test_confident_labels_follow_both_thresholds():
    image, maps = halves()
    labels = confident_labels(image, maps, (4, 11), LabelsSettings(iterations=0))
    assert (labels[:, :10] == 5).all() and (labels[:, 30:] == 12).all()
    assert (labels[:, 10:17] == 255).all() and (labels[:, 23:30] == 255).all()
    assert (labels[:, 17:23] == 0).all()


def test_confident_foreground_wins_over_confident_background():
    """With thresholds in the wrong order the published rule keeps the foreground of the first map."""
    image, maps = halves()
    labels = confident_labels(image, maps, (4, 11), LabelsSettings(foreground=0.22, background=0.5, iterations=0))
    assert (labels[:, :17] == 5).all() and (labels[:, 30:] == 12).all() and (labels[:, 17:30] == 0).all()


def test_band_leaves_pixels_undecided():
    scores = torch.tensor([[[0.1, 0.2, 0.25, 0.3, 0.9, 0.1]], [[0.0, 0.0, 0.0, 0.0, 0.0, 0.7]]])
    assert score_mask(scores, (0, 7), 0.0, (0.2, 0.3)).tolist() == [[0, 255, 255, 255, 1, 8]]
    assert score_mask(scores, (0, 7), 0.27, None).tolist() == [[0, 0, 0, 1, 1, 8]]


class Edges(nn.Module):
    """Stands for the network: the logit is the mean of each 4 x 4 block of the first channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        blocks = nn.functional.avg_pool2d(images[:, :1], 4, ceil_mode=True)
        return blocks, blocks.expand(-1, 2, -1, -1)


def test_boundaries_average_the_logits_of_both_views():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 36, 3), dtype=np.uint8)
    edges = Edges()
    ((boundary,), _) = predict_relations(edges, [image], None, torch.device("cpu"))
    symmetric = torch.from_numpy((image[..., 0] / 255 - 0.485) / 0.229).float()[None, None]
    expected = nn.functional.avg_pool2d(symmetric, 4)[0, 0].sigmoid()
    assert boundary.shape == (8, 9) and torch.allclose(boundary, expected, atol=1e-5)
    ((padded,), _) = predict_relations(edges, [image], 64, torch.device("cpu"))
    assert padded.shape == (8, 9) and torch.allclose(padded, boundary, atol=1e-5)
    assert predict_relations(edges, [image], 20, torch.device("cpu"))[0].shape == (1, 8, 9)
    assert edges.shapes == [(2, 3, 32, 36), (2, 3, 64, 64), (2, 3, 32, 36)]


def test_walk_of_one_image():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 37, 3), dtype=np.uint8)
    maps = SeedMaps((2, 5), {1.0: torch.from_numpy(rng.random((2, 4, 5))).float()}, (30, 37))
    settings = WalkSettings(power=1.5, radius=3, log2_steps=4)
    (walked,) = walk(Edges(), [image], [maps], settings)
    ((boundary,), _) = predict_relations(Edges(), [image], None, torch.device("cpu"))
    expected = propagate(maps.strided() ** 1.5, boundary, radius=3, beta=10.0, log2_steps=4)
    assert walked.classes == (2, 5) and walked.size == (30, 37) and torch.equal(walked.scores, expected)
    assert walked.full().shape == (2, 30, 37) and walked.full().max() == 1
    assert nothing((30, 37)).scores.shape == (0, 8, 10)


def test_images_that_walk_together_have_the_scores_of_each_alone():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 30, 37, 3), dtype=np.uint8)
    classes = [(2, 5), (1,), (0, 3, 4)]
    maps = [SeedMaps(c, {1.0: torch.from_numpy(rng.random((len(c), 4, 5))).float()}, (30, 37)) for c in classes]
    settings = WalkSettings(power=1.5, radius=3, log2_steps=4)
    for k, walked in enumerate(walk(Edges(), images, maps, settings)):
        (alone,) = walk(Edges(), images[k : k + 1], maps[k : k + 1], settings)
        assert walked.classes == classes[k]
        torch.testing.assert_close(walked.scores, alone.scores)
