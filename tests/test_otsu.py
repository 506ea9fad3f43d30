"""Otsu's threshold of an image's own maps: against a loop, where nothing stands out, and in all that is cut at it."""

import json

import numpy as np
import pytest
import torch

from tests.scenes import make_masks, write_scene
from wsss_core.data.table import ImageRecord
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.refine import around_otsu, highest_label
from wsss_core.refine.irn import labels as irn
from wsss_core.refine.psa import labels as psa
from wsss_core.refine.seed_threshold import SeedThresholdSettings
from wsss_core.refine.threshold import ThresholdSettings
from wsss_core.store import shards
from wsss_core.store.cut import Cut, read_about
from wsss_core.store.masks import mask_name, read_mask
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SeedMaps

SIZE = (16, 32)


def step(low: float, high: float) -> torch.Tensor:
    """A map [1, 16, 32], `low` on the left half and `high` on the right."""
    values = torch.full((1, *SIZE), low)
    values[:, :, 16:] = high
    return values


# --- the threshold ---


def by_loop(values: np.ndarray) -> float:
    """The threshold between bins that parts the pixels, each with the centre of its bin, into the best two groups."""
    counts, edges = np.histogram(values, 256, (values.min(), values.max()))
    centres = (edges[:-1] + edges[1:]) / 2
    found, best = 0.0, -1.0
    for k in range(1, 256):
        below, above = counts[:k].sum(), counts[k:].sum()
        means = [(counts[part] * centres[part]).sum() / counts[part].sum() for part in (slice(k), slice(k, None))]
        variance = float(below) * float(above) * (means[0] - means[1]) ** 2
        if variance > best:
            found, best = centres[k - 1], variance
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_that_of_a_loop_over_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    groups = rng.normal(0.2, 0.05, 1500), rng.normal(0.7, 0.1 + 0.02 * seed, 500)
    values = np.concatenate(groups).clip(0, 1).astype(np.float32).reshape(1, 40, 50)
    threshold = otsu_threshold(values)
    assert np.array_equal(values > threshold, values > by_loop(values.astype(np.float64)))
    assert otsu_threshold(torch.from_numpy(values)) == otsu_threshold(values)


def test_it_looks_at_the_highest_class_of_every_pixel():
    maps = torch.cat([step(0.3, 0.0), step(0.1, 0.9)])
    assert otsu_threshold(maps) == otsu_threshold(step(0.3, 0.9)) == pytest.approx(0.6)


def test_bins_narrower_than_the_rounding_of_the_maps_do_no_harm():
    """One part in 256 of what these maps differ by is less than a step of float32."""
    maps = 1 - 2e-5 * torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    share = (maps > otsu_threshold(maps)).float().mean()
    assert maps.dtype == torch.float32 and 0.4 < share < 0.6


@pytest.mark.parametrize("scale", [1, 0.5, 1e-3])
def test_it_follows_the_scale_of_the_maps(scale):
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0)).square()
    assert otsu_threshold(maps * scale) == pytest.approx(scale * otsu_threshold(maps), rel=1e-3)


@pytest.mark.parametrize(
    "maps",
    [
        torch.zeros(0, *SIZE),
        torch.zeros(2, *SIZE),
        torch.full((1, *SIZE), 0.7),
        0.7 + 1e-6 * torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["no class", "no map", "the same everywhere", "the same but for rounding"],
)
def test_where_nothing_stands_out_all_is_background(maps):
    threshold = otsu_threshold(maps)
    assert 0 <= threshold <= 1 and not highest_label(maps, threshold).any()


# --- masks ---

MAPS = {"faint": step(0.1, 0.3), "strong": step(0.5, 0.9), "even": step(0.6, 0.6), "empty": step(0.0, 0.0)}


@pytest.fixture
def scene(tmp_path):
    """Images of class 1 whose right half is the object, at values that no one threshold parts; and one of no class."""
    grids = {name: torch.cat([values, values / 2]) for name, values in MAPS.items()}
    scores = {name: ScoreMaps((1,), grid[:1, ::4, ::4], SIZE, 4, 1 - grid[0, ::4, ::4]) for name, grid in grids.items()}
    maps = {name: SeedMaps((1,), {1.0: grid[:1]}, SIZE) for name, grid in grids.items()}
    maps["none"], scores["none"] = SeedMaps((), {}, SIZE), ScoreMaps((), torch.zeros(0, 4, 8), SIZE)
    classes = {name: one.classes for name, one in maps.items()}
    records = [ImageRecord(name, f"{name}.png", *SIZE, ("train",), classes[name]) for name in maps]
    write_scene(tmp_path, ("round", "long"), records, maps)
    attrs = {"class_names": ["round", "long"]}
    given = (dict.fromkeys(scores, "f"), scores.__getitem__, attrs)
    shards.build(tmp_path / "scores.h5", SCORES, *given, cache=tmp_path / "cache.h5")
    (tmp_path / "threshold.json").write_text(json.dumps({"rule": "otsu", "value": 0.4, "values": {"faint": 0.2}}))
    return tmp_path


@pytest.mark.parametrize(
    ("method", "settings", "given", "cut"),
    [
        ("seed_threshold", SeedThresholdSettings(threshold="otsu"), ("seeds", ""), Cut("otsu")),
        ("seed_threshold", SeedThresholdSettings(), ("seeds", "threshold"), Cut("otsu", from_maps=True)),
        ("threshold", ThresholdSettings(threshold="otsu"), ("scores", ""), Cut("otsu")),
        ("threshold", ThresholdSettings(threshold="score"), ("scores", "threshold"), Cut("otsu", from_maps=True)),
    ],
)
def test_masks_are_cut_at_the_threshold_of_each_image(scene, method, settings, given, cut):
    source, chosen = given
    paths = {"maps" if source == "seeds" else "scores": scene / f"{source}.h5"}
    made = make_masks(scene, method, settings, **paths | ({"threshold": scene / "threshold.json"} if chosen else {}))
    assert read_about(made) == cut
    for name in ("faint", "strong"):
        mask = read_mask(made / mask_name(name), SIZE, 3)
        assert not mask[:, :14].any() and (mask[:, 18:] == 2).all()
    for name in ("even", "empty", "none"):
        assert not read_mask(made / mask_name(name), SIZE, 3).any()


# --- confident labels ---


def test_labels_of_irn_are_those_of_two_thresholds_around_otsu():
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0)).square()
    middle = otsu_threshold(maps)
    by_hand = irn.LabelsSettings(foreground=middle + 0.1, background=middle - 0.1, iterations=2)
    around = irn.LabelsSettings(around_otsu=0.1, iterations=2)
    labels = irn.confident_labels(image, maps, (4, 7), around)
    assert np.array_equal(labels, irn.confident_labels(image, maps, (4, 7), by_hand))
    assert set(np.unique(labels)) == {0, 5, 8, 255}


def test_the_exponents_of_psa_stand_for_two_thresholds_around_otsu():
    """Without iterations a pixel is foreground above the higher threshold, and background below the lower."""
    image = np.zeros((*SIZE, 3), np.uint8)
    maps = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)).square()
    found = psa.crf_posteriors(image, maps, (4,), psa.LabelsSettings(around_otsu=0.1, iterations=0))
    background, foreground = around_otsu(maps, 0.1)
    labels = psa.confident_labels(found.values, (4,), 1)
    decided = (maps[0] - torch.tensor([foreground, background])[:, None, None]).abs().amin(0) > 0.01  # else rounding
    expected = np.select([maps[0] > foreground, maps[0] < background], [5, 0], 255)
    assert np.array_equal(labels[decided], expected[decided]) and set(np.unique(labels)) == {0, 5, 255}


@pytest.mark.parametrize("level", [0.01, 0.2755, 0.5, 0.9])
def test_at_its_exponent_background_and_map_are_level(level):
    maps = torch.tensor([[[level - 0.005, level + 0.005]]])
    wins = psa.background_score(maps, psa.exponent_at(level)) > maps
    assert wins.flatten().tolist() == [True, False]
    assert psa.exponent_at(0.2755) == pytest.approx(4, rel=1e-3)


def confident(method, maps: torch.Tensor) -> set[int]:
    """The labels that images with these maps have by a method, around Otsu's threshold and without CRF iterations."""
    image = np.zeros((*SIZE, 3), np.uint8)
    if method is irn:
        return set(
            np.unique(irn.confident_labels(image, maps, (4,), irn.LabelsSettings(around_otsu=0.1, iterations=0)))
        )
    found = psa.crf_posteriors(image, maps, (4,), psa.LabelsSettings(around_otsu=0.1, iterations=0))
    return set(np.unique(psa.confident_labels(found.values, (4,), 1)))


@pytest.mark.parametrize("method", [irn, psa])
@pytest.mark.parametrize(
    ("maps", "labels"),
    [
        (step(0.0, 0.0), {0}),  # the class was not found: background, as with the published thresholds
        (step(0.6, 0.6), {255}),  # nothing stands out: nothing is sure
        (step(1.0, 1.0), {255}),
        (step(0.0, 1.0), {0, 5}),
        (step(0.05, 0.95), {0, 5}),
        (step(0.45, 0.55), {255}),  # what stands out does so by less than the width
    ],
)
def test_labels_where_maps_are_even(method, maps, labels):
    assert confident(method, maps) == labels
