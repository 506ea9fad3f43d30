"""The toy experiment: digits and marks, gradient maps, high gradient ratios, RIB, and the step."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch

from tests.scenes import write_step
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.steps import toy
from wsss_core.toy import data
from wsss_core.toy.data import mark, mnist, toy_images
from wsss_core.toy.experiment import (
    ToyBatches,
    ToySettings,
    adapt,
    chosen_rate,
    first_maximum,
    hgr_table,
    high_gradient_ratio,
    own_maximum,
    scaled,
)
from wsss_core.toy.network import ToyNetwork, gradient_maps

TINY = {"measured": 4, "tried": 2, "iterations": 3, "batch_size": 4, "steps": 2, "rib_batch": 3}

# --- images ---


@pytest.fixture(scope="module")
def images():
    return toy_images(None, measured=20, tried=10, marked=0.1, seed=0)


def test_a_tenth_of_the_training_images_and_all_measured_ones_are_marked(images):
    learned, measured, tried = images
    for label in (0, 1):
        of_class = learned.classes == label
        assert learned.marks[of_class].any((1, 2)).mean() == pytest.approx(0.1, abs=0.01)
        assert (measured.classes == label).sum() == 10
        expected = (data.circle(), data.square())[label].sum()
        assert (measured.marks[measured.classes == label].sum((1, 2)) == expected).all()
    assert len(learned.images) == 351 - 30, "scikit-learn has 177 twos and 174 eights"
    assert len(tried.images) == 10 and tried.marks.any((1, 2)).all()


def test_no_image_is_in_two_parts_and_those_to_measure_are_the_same_without_any_to_try(images):
    drawn = [{image[~mark].tobytes() for image, mark in zip(p.images, p.marks, strict=True)} for p in images]
    assert not drawn[0] & drawn[1] and not drawn[0] & drawn[2] and not drawn[1] & drawn[2]
    without = toy_images(None, measured=20, marked=0.1, seed=0)
    assert np.array_equal(without[1].images, images[1].images) and not len(without[2].images)


def test_regions_part_the_image_and_marks_are_white(images):
    for part in images:
        assert (sum(region.astype(int) for region in part.regions.values()) == 1).all()
        assert (part.images[part.marks] == 1).all()
        assert (part.images[part.digits] > data.INK).all()
        assert part.images.dtype == np.float32 and part.images.min() == 0 and part.images.max() == 1


def test_images_depend_on_the_seed_alone(images):
    again = toy_images(None, measured=20, tried=10, marked=0.1, seed=0)
    other = toy_images(None, measured=20, tried=10, marked=0.1, seed=1)
    assert all(np.array_equal(one.images, two.images) for one, two in zip(images, again, strict=True))
    assert not np.array_equal(images[1].images, other[1].images)


def test_mark_is_placed_where_it_hides_least():
    ink = np.ones((28, 28), bool)
    ink[20:27, 3:10] = False
    assert np.array_equal(mark(ink, 1, np.random.default_rng(0)), ~ink)
    free = np.zeros((28, 28), bool)
    corners = {tuple(np.argwhere(mark(free, 1, np.random.default_rng(k)))[0]) for k in range(200)}
    assert len(corners) > 100
    for label, shape in enumerate((data.circle(), data.square())):
        drawn = np.argwhere(mark(free, label, np.random.default_rng(0)))
        assert len(drawn) == shape.sum()
    assert data.circle().sum() == 37, "the 12 pixels at the corners of 7x7 are left out"


def write_idx(path, values, packed):
    header = b"\x00\x00\x08" + bytes([values.ndim]) + np.array(values.shape, ">i4").tobytes()
    content = header + values.astype(np.uint8).tobytes()
    path.with_name(path.name + ".gz" * packed).write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read(tmp_path, packed):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (5, 28, 28)), np.array([2, 8, 1, 2, 0])
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", pixels, packed)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels, packed)
    images, digits = mnist(tmp_path)
    np.testing.assert_allclose(images, np.concatenate([pixels, pixels]) / 255, atol=1e-7)
    assert digits.tolist() == [*labels, *labels]
    with pytest.raises(UserError, match="leave 0 of the 4 images of the digit 2"):
        toy_images(tmp_path, measured=100, marked=0.1, seed=0)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match="toy.mnist: .* holds no pair"):
        mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x01\x00")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte: cannot be read"):
        mnist(tmp_path)
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.gz: cannot be read"):
        data.read_idx(tmp_path / "t10k-labels-idx1-ubyte.gz")


def test_mnist_has_its_digits(shared):
    images, digits = mnist(shared / "data/mnist")
    assert images.shape == (10000, 28, 28)
    assert (digits == 2).sum() == 1032 and (digits == 8).sum() == 974


# --- gradients and their ratios ---


def test_gradient_maps_are_those_of_each_image_and_layer_alone():
    torch.manual_seed(0)
    network, images = ToyNetwork((2, 3, 3, 4, 4)).double(), torch.rand(3, 1, 12, 12, dtype=torch.float64)
    classes = torch.tensor([0, 1, 1])
    maps = gradient_maps(network, images, classes)
    assert maps.shape == (3, 6, 12, 12)
    step = torch.zeros_like(images)
    step[:, 0, 5, 6] = 1e-6
    for layer in range(6):

        def value(pixels, layer=layer):
            features = network.features(pixels)
            layers = [f.sum((1, 2, 3)) for f in features]
            return (layers + [network(pixels)[torch.arange(3), classes]])[layer]

        expected = (value(images + step) - value(images - step)) / 2e-6
        torch.testing.assert_close(maps[:, layer, 5, 6], expected, rtol=1e-5, atol=1e-7)


def test_ratios_by_hand():
    maps = np.zeros((2, 1, 2, 3))
    maps[0, 0] = [[0.5, 0.2, 0.1], [0.0, 0.16, 0.15]]
    region = np.zeros((2, 2, 3), bool)
    region[0] = [[True, True, False], [False, True, True]]
    assert (
        high_gradient_ratio(scaled(maps, own_maximum(maps)), region, 0.3)[:, 0].tolist()[0] == 3 / 4
    )  # 0.15 / 0.5 is not above 0.3
    assert high_gradient_ratio(maps, region, 0.3)[0, 0] == 1 / 4
    assert np.isnan(high_gradient_ratio(maps, region, 0.3)[1, 0]), "the second image has no such region"
    table = hgr_table(maps, own_maximum(maps), {"some": region}, 0.3, "layer", [1])
    assert table.to_dict("list") == {
        "layer": [1],
        "region": ["some"],
        "hgr": [0.75],
        "deviation": [0.0],
        "hgr_unscaled": [0.25],
    }
    empty = np.zeros((1, 1, 2, 2))
    assert scaled(empty, own_maximum(empty)).tolist() == empty.tolist()


def test_gradients_that_grow_everywhere_count_as_growth():
    first = np.array([[0.1, 0.2], [0.25, 1.0]])
    maps = np.stack([first, 2 * first])[None]
    table = hgr_table(maps, first_maximum(maps), {"all": np.ones((1, 2, 2), bool)}, 0.3, "iteration", [0, 1])
    assert table["hgr"].tolist() == [1 / 4, 3 / 4], "their own maxima would say 1/4 twice"


def test_the_rate_is_chosen_on_the_images_to_try_unless_it_is_given(images, monkeypatch):
    learned, _, tried = images
    seen = []

    def grown(network, of, others, settings, rate, seed):
        assert of is tried and others is learned
        seen.append(rate)
        maps = np.full((len(of.images), 2, 28, 28), 0.1, np.float32)
        maps[:, 0, 0, 0] = 1
        region = of.digits | of.marks if rate == 5e-4 else of.digits if rate < 5e-4 else np.ones_like(of.digits)
        maps[:, 1][region] = 0.9
        return maps

    monkeypatch.setattr("wsss_core.toy.experiment.iteration_maps", grown)
    assert chosen_rate(ToyNetwork(), tried, learned, ToySettings(), 0) == 5e-4 and len(seen) == 4
    assert chosen_rate(ToyNetwork(), tried, learned, ToySettings(rate=0.0), 0) == 0 and len(seen) == 4


# --- training and RIB ---


def test_batches_depend_on_their_step_alone(images):
    batches = ToyBatches(images[0], 5, 8, seed=0)
    pictures, labels = batches[3]
    again = ToyBatches(images[0], 5, 8, seed=0)
    again[0]
    assert torch.equal(pictures, again[3][0]) and torch.equal(labels, again[3][1])
    assert pictures.shape == (8, 1, 28, 28) and (labels.sum(1) == 1).all()
    assert not torch.equal(pictures, ToyBatches(images[0], 5, 8, seed=1)[3][0])


def test_rib_follows_its_equation(images):
    learned, measured, _ = images
    torch.manual_seed(0)
    network = ToyNetwork()
    before = [p.detach().clone() for p in network.parameters()]
    settings = ToySettings(steps=2, rib_batch=1)
    states = [
        [p.detach().clone() for p in state.parameters()]
        for state in adapt(network, measured, 3, learned, settings, 0.1, 0)
    ]
    assert len(states) == 3
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))
    assert all(torch.equal(p, q) for p, q in zip(states[0], before, strict=True))
    image, label = torch.from_numpy(measured.images[3:4])[:, None], int(measured.classes[3])
    for step in range(2):
        logit = network(image)[0, label]
        network.zero_grad()
        (-logit).backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * parameter.grad
        for parameter, found in zip(network.parameters(), states[step + 1], strict=True):
            torch.testing.assert_close(parameter.detach(), found)


def test_rib_stops_at_the_margin_and_draws_others_by_key(images):
    learned, measured, _ = images
    torch.manual_seed(0)
    network = ToyNetwork()

    def last(**changes):
        settings = ToySettings(steps=2, **changes)
        *_, state = adapt(network, measured, 0, learned, settings, 0.1, 0)
        return torch.cat([p.detach().flatten() for p in state.parameters()])

    start = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert torch.equal(last(margin=-100.0), start), "logits above the margin have no gradient"
    assert torch.equal(last(rib_batch=4), last(rib_batch=4))
    assert not torch.equal(last(rib_batch=4), last(rib_batch=5))


# --- the step ---


def test_step_writes_tables_and_figures_and_repeats_its_bytes(tmp_path):
    config = write_step(tmp_path / "toy.json", "toy", "toy", "toy", TINY)
    for name in ("a", "b"):
        toy.run(config=config, folder=tmp_path / name, execution=Execution("cpu"))
    layers, iterations = (pd.read_csv(tmp_path / "a" / f"hgr_{name}.csv") for name in ("layers", "iterations"))
    assert layers["layer"].tolist() == [1, 2, 3, 4, 5, 6] * 3
    assert iterations["iteration"].tolist() == [0, 1, 2] * 3
    assert layers["region"].unique().tolist() == ["discriminative", "non-discriminative", "background"]
    at_start = iterations[iterations["iteration"] == 0]["hgr"].to_numpy()
    np.testing.assert_allclose(at_start, layers[layers["layer"] == 6]["hgr"], atol=1e-6)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["hgr_iterations.csv", "hgr_layers.csv", "iterations.svg", "layers.svg"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert (tmp_path / "a" / "layers.svg").read_text().startswith("<?xml")
