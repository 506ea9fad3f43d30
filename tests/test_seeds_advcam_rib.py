"""AdvCAM and RIB together: the sum over RIB's states of AdvCAM's maps."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import write_classifier, write_step
from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.seeds.advcam import AdvCamSettings, advcam_seed
from wsss_core.seeds.advcam_rib import AdvCamRibSettings, advcam_rib_seed
from wsss_core.seeds.rib import RibSettings, gap, rib_seed
from wsss_core.steps import maps as maps_step
from wsss_core.store.seeds import SeedStore

CLASSES = [2, 0]
RIB = {"steps": 3, "learning_rate": 1e-3, "margin": None, "explosion": None}
ADVCAM = AdvCamSettings(iterations=3, scales=(1.0, 0.5))


@pytest.fixture
def network():
    torch.manual_seed(1)
    return cam_network("small", 4).eval().requires_grad_(False)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8)


def pool(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(2, 3, 48, 48, generator=draw), torch.tensor([[0.0, 1, 0, 0], [0, 1, 0, 1]])


@pytest.mark.parametrize("interval", [1, 2])
def test_every_state_of_rib_is_climbed_in(network, image, interval):
    """The paper's plain gradient steps on a twin, and AdvCAM of the image in each state."""
    rib = RibSettings("paper", **RIB, pooling="gap", scales=(1.0,))
    found = advcam_rib_seed(network, image, CLASSES, AdvCamRibSettings(rib, ADVCAM, interval), pool)
    twin = cam_network("small", 4, network.state_dict()).eval()
    parameters = [*twin.trunk_parameters(), twin.classifier.weight]
    view = torch.from_numpy(scaled_pair(image, 1.0))[:1]
    states = []
    for step in range(4):
        states.append(advcam_seed(twin, image, CLASSES, ADVCAM))
        images, labels = pool(step)
        loss = -gap(twin.maps(view, CLASSES), 0).sum() - (gap(twin.maps(images), 0) * labels).sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 1e-3 * gradient
    for scale in ADVCAM.scales:
        total = sum(state.maps[scale] for state in states[::interval])
        torch.testing.assert_close(found.maps[scale], total, rtol=1e-2, atol=1e-3 * float(total.max()))
        change = (states[-1].maps[scale] - states[0].maps[scale]).abs().max() / states[0].maps[scale].max()
        assert change > 0.02, "the weights must have moved for this to prove anything"
    curves = [state.statistics["target"] for state in states[::interval]]
    np.testing.assert_allclose(found.statistics["climb"], [c[-1] - c[0] for c in curves], rtol=1e-2)


def test_the_states_are_those_of_rib_alone(network, image):
    rib = RibSettings(**RIB)
    alone = rib_seed(network, image, CLASSES, rib, pool).statistics
    both = advcam_rib_seed(network, image, CLASSES, AdvCamRibSettings(rib, ADVCAM), pool).statistics
    assert both["stop"] == alone["stop"] and len(both["climb"]) == both["maps"] == 3
    for key in ("target", "losses"):
        np.testing.assert_allclose(both[key], alone[key], rtol=1e-4)


def test_without_a_rate_it_is_advcam(network, image):
    settings = AdvCamRibSettings(RibSettings(**RIB | {"learning_rate": 0.0}), ADVCAM)
    both = advcam_rib_seed(network, image, CLASSES, settings, pool)
    alone = advcam_seed(network, image, CLASSES, ADVCAM)
    for scale, maps in alone.maps.items():
        torch.testing.assert_close(both.maps[scale], 3 * maps)
    torch.testing.assert_close(both.full(), alone.full(), rtol=1e-2, atol=1e-2)


def test_a_state_that_explodes_is_not_climbed_in(network, image):
    settings = AdvCamRibSettings(RibSettings(**RIB | {"explosion": (0.0, 0.0)}), ADVCAM)
    both = advcam_rib_seed(network, image, CLASSES, settings, pool)
    assert both.statistics["stop"] == "explosion" and len(both.statistics["climb"]) == 1
    alone = advcam_seed(network, image, CLASSES, ADVCAM)
    torch.testing.assert_close(both.maps[1.0], alone.maps[1.0])


def test_the_network_is_left_exactly_as_it_was(network, image):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    advcam_rib_seed(network, image, CLASSES, AdvCamRibSettings(RibSettings(**RIB), ADVCAM), pool)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())


def test_scale_one_is_required(network, image):
    settings = AdvCamRibSettings(RibSettings(scales=(0.5,)), ADVCAM)
    with pytest.raises(UserError, match="scales"):
        advcam_rib_seed(network, image, CLASSES, settings, pool)


def test_step_writes_the_maps(tmp_path, image):
    records = []
    for number, classes in enumerate([(0,), (1,)]):
        Image.fromarray(image[:, :: 1 - 2 * number]).save(tmp_path / f"{number}.png")
        records.append(ImageRecord(str(number), str(tmp_path / f"{number}.png"), 44, 60, ("train",), classes))
    table = ImageTable(("red", "blue"), tuple(records))
    write_table(tmp_path / "images.csv", table)
    write_manifest(tmp_path / "shard.json", table.class_names, records[:1])
    torch.manual_seed(0)
    rib = {"steps": 2, "batch_size": 1, "pool_long": [40, 56], "pool_crop": 48, "scales": [1.0]}
    settings = {"rib": rib, "advcam": {"iterations": 2, "scales": [1.0]}}
    maps_step.run(
        health=None,
        config=write_step(tmp_path / "step.json", "seeds/both", "advcam_rib", "maps", settings),
        classifier=write_classifier(tmp_path / "model.pt", cam_network("small", 2), table.class_names),
        manifest=tmp_path / "shard.json",
        table=tmp_path / "images.csv",
        maps=tmp_path / "maps.h5",
        cache=tmp_path / "cache.h5",
        execution=Execution("cpu"),
    )
    stored = SeedStore(tmp_path / "maps.h5")["0"]
    assert stored.maps[1.0].shape == (1, 3, 4) and stored.maps[1.0].max() > 0
    assert set(stored.statistics) == {"stop", "maps", "target", "losses", "climb"}
