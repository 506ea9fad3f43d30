"""The RIB engine gives the numbers of the straightforward loop, saving by saving."""

import numpy as np
import pytest
import torch

from benchmarks.baselines.rib_loop import rib_loop
from wsss_core.data.augment import scaled_pair
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.seeds import rib
from wsss_core.seeds.rib import Objective, RibSettings, Target, auxiliary, gndrp_official, restored, rib_seed

CLASSES = (2, 0)
STEPS = {"steps": 4, "learning_rate": 3e-4, "scales": (1.0, 0.5, 1.5), "margin": None, "explosion": None}


@pytest.fixture
def network():
    torch.manual_seed(1)
    return cam_network("small", 4).eval().requires_grad_(False)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8)


class Pool:
    """Auxiliary batches of which the second image has no class; remembers the steps it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, step):
        self.asked.append(step)
        draw = torch.Generator().manual_seed(step)
        labels = torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]])
        return torch.randn(3, 3, 48, 48, generator=draw), labels


def both(network, image, **changes):
    settings = RibSettings(**STEPS | changes)
    pool = Pool()
    seed = rib_seed(network, image, CLASSES, settings, pool)
    return seed, rib_loop(network, image, CLASSES, settings, Pool()), pool


def assert_same_maps(seed, loop):
    assert set(seed.maps) == set(loop["maps"])
    for scale, maps in loop["maps"].items():
        torch.testing.assert_close(seed.maps[scale], maps, rtol=1e-4, atol=1e-5)


def test_all_savings_together(network, image):
    seed, loop, _ = both(network, image)
    assert_same_maps(seed, loop)
    first = rib_seed(network, image, CLASSES, RibSettings(**STEPS | {"steps": 1}), Pool())
    change = (seed.maps[1.0] / 4 - first.maps[1.0]).abs().max() / first.maps[1.0].max()
    assert change > 0.05, "the weights must have moved for this to prove anything"


@pytest.mark.parametrize(
    "changes", [{"pooling": "gap"}, {"threshold": 0.9}, {"classifier_rate": 1.0}, {"momentum": 0.9}]
)
def test_every_setting_means_the_same(network, image, changes):
    seed, loop, _ = both(network, image, **changes)
    assert_same_maps(seed, loop)


def test_unchanging_stages_are_run_once_a_scale(network, image, monkeypatch):
    calls = []
    prefix = type(network).prefix
    monkeypatch.setattr(type(network), "prefix", lambda self, x: calls.append(tuple(x.shape)) or prefix(self, x))
    target = Target.of(network, image, CLASSES, (1.0, 0.5))
    assert calls == [(2, 3, 44, 60), (2, 3, 22, 30)]
    views = torch.from_numpy(scaled_pair(image, 0.5))
    torch.testing.assert_close(target.maps(network, 0.5), network.maps(views)[:, list(CLASSES)])


def test_the_last_step_needs_no_auxiliary_images(network, image):
    seed, loop, pool = both(network, image)
    assert pool.asked == [0, 1, 2]
    np.testing.assert_allclose(seed.statistics["losses"], loop["losses"][:-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seed.statistics["target"], loop["target"], rtol=1e-4, atol=1e-5)
    assert seed.statistics["stop"] == loop["stop"] == "steps"
    full = rib_seed(network, image, CLASSES, RibSettings(**STEPS), Pool(), last_loss=True)
    np.testing.assert_allclose(full.statistics["losses"], loop["losses"], rtol=1e-4, atol=1e-5)


def test_a_step_over_the_margin_needs_no_auxiliary_images(network, image):
    targets = [abs(value) for value in both(network, image, pooling="gap")[1]["target"]]
    assert max(targets[:2]) < targets[2], "the test needs a margin between the second and the third"
    seed, loop, pool = both(network, image, pooling="gap", margin=(max(targets[:2]) + targets[2]) / 2)
    assert seed.statistics["stop"] == loop["stop"] == "margin"
    assert pool.asked == [0, 1]
    assert_same_maps(seed, loop)


def test_an_explosion_stops_after_the_first_scale(network, image):
    seed, loop, pool = both(network, image, explosion=(0.0, 0.0))
    assert seed.statistics["stop"] == loop["stop"] == "explosion"
    assert pool.asked == [0]
    assert_same_maps(seed, loop)
    once, _, _ = both(network, image, steps=1)
    torch.testing.assert_close(seed.maps[0.5], once.maps[0.5])
    assert not torch.equal(seed.maps[1.0], once.maps[1.0])


def test_vectorised_pooling_equals_the_loop():
    maps = torch.randn(5, 7, 6, 8, generator=torch.Generator().manual_seed(0))
    maps[0, 0] = -maps[0, 0].abs()  # maximum below zero: nothing is pooled
    maps[0, 1] = 0.0  # 0 / 0
    expected = torch.zeros(5, 7)
    for row in range(5):
        for c in range(7):
            normalised = maps[row, c] / maps[row, c].max()
            expected[row, c] = (maps[row, c] * (normalised < 0.4)).sum() / maps[row, c].numel()
    torch.testing.assert_close(gndrp_official(maps, 0.4), expected)
    assert expected[0, 0] == 0 and expected[0, 1] == 0


@pytest.mark.parametrize("chunk_pixels", [1, 2 * 48 * 48, 10**9])
def test_auxiliary_gradients_do_not_depend_on_the_chunks(network, monkeypatch, chunk_pixels):
    objective = Objective.of(RibSettings())
    images, labels = Pool()(0)
    with restored(network):
        maps = network.maps(images)
        loss = -(gndrp_official(maps, 0.4) * labels).sum()
        loss.backward()
        expected = [p.grad.clone() for p in network.trunk_parameters()]
        network.zero_grad()
        monkeypatch.setattr(rib, "CHUNK_PIXELS", chunk_pixels)
        assert auxiliary(network, (images, labels), objective) == pytest.approx(loss.item(), rel=1e-4)
        for parameter, gradient in zip(network.trunk_parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_auxiliary_images_without_classes_cost_nothing(network):
    with restored(network):
        batch = torch.randn(2, 3, 48, 48), torch.zeros(2, 4)
        assert auxiliary(network, batch, Objective.of(RibSettings())) == 0.0
        assert all(p.grad is None for p in network.parameters())


def test_bfloat16_follows_the_weights_and_differs_by_its_rounding(network, image):
    expected = rib_seed(network, image, CLASSES, RibSettings(**STEPS), Pool())
    still = rib_seed(network, image, CLASSES, RibSettings(**STEPS | {"learning_rate": 0.0}), Pool())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with Execution("cpu", precision="mixed").autocast("cpu", weights_change=True):
        found = rib_seed(network, image, CLASSES, RibSettings(**STEPS), Pool())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for scale, maps in expected.maps.items():
        assert found.maps[scale].dtype == torch.float32
        error = (found.maps[scale] - maps).abs().max()
        assert 0 < error < 0.05 * maps.max()
        assert error < 0.5 * (still.maps[scale] - maps).abs().max(), "as if the weights had not moved"


def test_the_network_is_left_exactly_as_it_was(network, image):
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def unchanged():
        same = all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        return same and not any(p.requires_grad or p.grad is not None for p in network.parameters())

    for variant in ("official", "paper"):
        rib_seed(network, image, CLASSES, RibSettings(**STEPS, variant=variant), Pool())
        assert unchanged()

    def broken(step):
        if step == 2:
            raise RuntimeError("disk gone")
        return Pool()(step)

    with pytest.raises(RuntimeError, match="disk gone"):
        rib_seed(network, image, CLASSES, RibSettings(**STEPS), broken)
    assert unchanged()
