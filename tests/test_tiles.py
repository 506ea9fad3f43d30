"""Prediction in tiles: against the prediction of the whole photo."""

import numpy as np
import pytest
import torch

from wsss_core.data.augment import normalise
from wsss_core.errors import UserError
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.segment import tiles
from wsss_core.segment.predict import CrfSettings, PredictSettings, predict_labels, predict_probabilities
from wsss_core.segment.tiles import Tiling, predict_labels_in_tiles, probability_bands

OVERLAP = 288
"""Pixels; no cell of the network below sees further at the stride 8: 261, by the gradient of a cell."""


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def network_of(scales=(), variant="paper", name="mobilenet_v2"):
    torch.manual_seed(0)
    network = deeplab_v2(name, 3, rates=(1, 2), scales=scales, variant=variant).eval()
    with torch.no_grad():
        spread = network(torch.from_numpy(normalise(photo(75, 118)))[None]).std()
        for convolution in network.aspp:
            convolution.weight.mul_(2 / spread)
    return network


def in_tiles(network, image, settings, tiling) -> np.ndarray:
    bands = list(probability_bands(network, image, settings, tiling))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    return torch.cat([part for _, part in bands], 1).numpy()


@pytest.mark.parametrize(
    ("scales", "settings", "size"),
    [((), PredictSettings(), (301, 700)), ((0.5,), PredictSettings(flip=True, scales=(0.75, 1.0)), (85, 651))],
)
def test_tiles_equal_the_whole_where_the_overlap_covers_what_a_cell_sees(scales, settings, size, monkeypatch):
    monkeypatch.setattr(tiles, "BAND_VALUES", 3 * size[1] * 50)
    network, image = network_of(scales), photo(*size)
    expected = predict_probabilities(network, image, settings)
    found = in_tiles(network, image, settings, Tiling(250, OVERLAP))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert expected.std() > 0.05
    labels = predict_labels_in_tiles(network, image, settings, Tiling(250, OVERLAP))
    assert (labels != predict_labels(network, image, settings)).mean() < 1e-4, "ties to rounding"


def test_tiles_of_the_caffe_variant_equal_the_whole():
    # one tile of the whole: its reduced input and its grid must be those of `forward`
    network, image = network_of((0.5, 0.75), "official", "resnet50"), photo(75, 118)
    found = in_tiles(network, image, PredictSettings(), Tiling(128, 64))
    np.testing.assert_allclose(found, predict_probabilities(network, image), atol=2e-5)


def test_without_overlap_tiles_differ_at_their_seams_alone():
    network, image = network_of(), photo(64, 700)
    whole = predict_probabilities(network, image)
    found = in_tiles(network, image, PredictSettings(), Tiling(384, 0))
    differs = np.abs(found - whole).max((0, 1)) > 1e-4
    assert differs[376:392].all() and not differs[:80].any()


def test_photos_of_more_than_a_tile_are_divided():
    assert [Tiling(100, 10).divides(size) for size in [(120, 120), (20, 121), (121, 20)]] == [False, True, True]


def test_the_crf_goes_with_no_tiles():
    with pytest.raises(UserError, match="CRF needs the whole photo"):
        next(probability_bands(network_of(), photo(20, 20), PredictSettings(crf=CrfSettings()), Tiling()))
