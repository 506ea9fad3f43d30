"""AdvCAM: against the published implementation, against the obvious loop, its variants and what it costs."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baselines.advcam_loop import advcam_loop
from tests.reference_networks import reference_resnet50
from tests.scenes import write_classifier, write_step
from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.seeds import advcam
from wsss_core.seeds.advcam import AdvCamSettings, advcam_seed, grad_cam
from wsss_core.seeds.cam import CamSettings, cam_seed, view_pair
from wsss_core.steps import maps as maps_step
from wsss_core.store.seeds import SeedStore

CLASSES = [2, 0]


@pytest.fixture
def network():
    torch.manual_seed(1)
    return cam_network("small", 4).eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8)


@pytest.fixture
def double(network, monkeypatch):
    """The network in float64, and views that fit it."""
    monkeypatch.setattr(advcam, "view_pair", lambda *arguments: view_pair(*arguments).double())
    return network.double()


@pytest.fixture(scope="module")
def trained():
    """A classifier of red and blue discs on grey, trained for some seconds, and pictures of either."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]

    def picture(colour: int) -> np.ndarray:
        grain = rng.integers(50, 180, (96, 96, 3))
        middle, radius = rng.integers(30, 66, 2), rng.integers(18, 34)
        disc = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
        grain[disc, colour] += 60
        return grain.astype(np.uint8)

    pictures = [picture(2 * (number % 2)) for number in range(48)]
    views = torch.from_numpy(np.stack([scaled_pair(each, 1.0)[0] for each in pictures]))
    labels = torch.eye(2)[[number % 2 for number in range(48)]]
    torch.manual_seed(0)
    network = cam_network("small", 2).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    for step in range(20):
        part = slice(8 * (step % 6), 8 * (step % 6) + 8)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(views[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False), pictures[:8]


def test_maps_equal_the_published_ones(shared):
    """Rounding decides which side of `R0` a held cell lies on, and so grows: two float32 runs differ by 3e-3."""
    vectors = np.load(shared / "reference" / "advcam.npz")
    network = reference_resnet50(shared, int(vectors["weight_seed"])).requires_grad_(False)
    settings = AdvCamSettings(
        iterations=int(vectors["iterations"]),
        step_size=float(vectors["step_size"]),
        mask_weight=float(vectors["mask_weight"]),
        mask_threshold=float(vectors["mask_threshold"]),
    )
    maps = advcam_seed(network, vectors["image"], vectors["classes"].tolist(), settings)
    np.testing.assert_allclose(maps.strided(), vectors["cam"], atol=6e-3)
    np.testing.assert_allclose(maps.full(), vectors["high_res"], atol=6e-3)
    assert np.abs(maps.strided().numpy() - vectors["cam"]).mean() < 1.5e-3


@pytest.mark.parametrize(
    "changes", [{}, {"mask_weight": 0.0}, {"mask_weight": 70.0, "mask_threshold": 0.2}, {"step_size": 0.5}]
)
def test_maps_equal_the_obvious_loop(double, image, changes):
    settings = AdvCamSettings(iterations=6, scales=(0.5, 1.0, 1.5), **{"step_size": 0.08, **changes})
    seeds = advcam_seed(double, image, CLASSES, settings)
    loop = advcam_loop(double, image, CLASSES, settings)
    for scale in settings.scales:
        torch.testing.assert_close(seeds.maps[scale], loop[scale], rtol=1e-9, atol=1e-12)
    still = advcam_seed(double, image, CLASSES, AdvCamSettings(iterations=6, step_size=0.0))
    change = (seeds.maps[1.0] - still.maps[1.0]).abs().max() / still.maps[1.0].max()
    assert change > 0.01, "the image must have moved for this to prove anything"


def test_the_published_step_is_the_default(network, image):
    for variant, step_size in (("official", 0.08), ("paper", 0.008)):
        one, other = (
            advcam_seed(network, image, [0], AdvCamSettings(variant, iterations=3, step_size=size, scales=(1.0,)))
            for size in (None, step_size)
        )
        assert torch.equal(one.maps[1.0], other.maps[1.0])


@contextmanager
def counted(network):
    """The batch size of every forward pass."""
    sizes = []
    hook = network.backbone.stages[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


def test_it_takes_a_fraction_of_the_work(network, image):
    settings = AdvCamSettings(iterations=12, step_size=0.08, scales=(0.5, 1.0))
    runs = {}
    for name, run in (("ours", advcam_seed), ("loop", advcam_loop)):
        passes = []
        hook = network.backbone.stages[0].register_forward_pre_hook(
            lambda _, x, passes=passes: passes.append(len(x[0]))
        )
        with FlopCounterMode(display=False) as counter:
            run(network, image, CLASSES, settings)
        hook.remove()
        runs[name] = passes, counter.get_total_flops()
    assert runs["loop"][0] == [2] * (2 * (6 + 12)), "one class at a time"
    assert runs["ours"][0] == [4] * (6 + 12), "both classes together"
    ratio = runs["loop"][1] / runs["ours"][1]
    assert 2.3 < ratio < 2.7, "(1 + 2 * 2) T of forward passes' work against 2 T - 1"


def test_classes_pass_in_parts_where_memory_is_short(double, image, monkeypatch):
    settings = AdvCamSettings(iterations=4, scales=(1.0,))
    together = advcam_seed(double, image, CLASSES, settings)
    monkeypatch.setitem(advcam.CHUNK_PIXELS, "cpu", 1)
    apart = advcam_seed(double, image, CLASSES, settings)
    torch.testing.assert_close(apart.maps[1.0], together.maps[1.0])
    np.testing.assert_allclose(apart.statistics["target"], together.statistics["target"])


def test_without_a_step_scales_weigh_13_and_27(network, image):
    still = advcam_seed(network, image, CLASSES, AdvCamSettings(step_size=0.0))
    for scale, weight in {0.5: 13, 1.0: 27, 1.5: 27, 2.0: 27}.items():
        with torch.no_grad():
            maps = network.maps(torch.from_numpy(scaled_pair(image, scale)), CLASSES).relu().transpose(0, 1)
        once = grad_cam(maps, network.classifier.weight[CLASSES].flatten(1))
        torch.testing.assert_close(still.maps[scale], 2 * weight * once)
    curve = still.statistics["target"]
    assert len(curve) == 27 and curve == pytest.approx(curve[:1] * 27)


def test_without_a_step_the_paper_sums_28_normalised_maps(network, image):
    still = advcam_seed(network, image, CLASSES, AdvCamSettings("paper", step_size=0.0, scales=(1.0,)))
    with torch.no_grad():
        maps = network.maps(torch.from_numpy(scaled_pair(image, 1.0)), CLASSES).relu()
    maps = maps / maps.amax((2, 3), keepdim=True)
    torch.testing.assert_close(still.maps[1.0], 28 * (maps[0] + maps[1].flip(-1)), rtol=1e-3, atol=1e-3)
    assert len(still.statistics["target"]) == 28


def test_grad_cam_in_closed_form_equals_autograd():
    torch.manual_seed(0)
    features = torch.rand(2, 7, 5, 6, requires_grad=True)
    weights = torch.randn(7)
    maps = torch.einsum("bdhw,d->bhw", features, weights)
    (gradient,) = torch.autograd.grad(maps.relu().sum(), features)
    channel = gradient.sum((2, 3), keepdim=True) / ((gradient > 0).sum() + 1e-12)
    heat = (channel * features).sum(1).relu().detach()
    closed = grad_cam(maps.detach().relu()[None], weights[None])
    torch.testing.assert_close(closed[0], heat[0] + heat[1].flip(-1))
    assert heat.max() > 0
    assert not grad_cam(torch.zeros(1, 2, 3, 3), -weights.abs()[None]).any(), "no positive logit, no map"


def test_paper_follows_its_equations_step_by_step(double, image):
    """Two steps written out for one class: y_c - sum of the others - 7 |M (CAM - CAM_0)|, CAM = A / max A_0."""
    settings = AdvCamSettings("paper", iterations=2, step_size=0.5, scales=(1.0,))
    found = advcam_seed(double, image, [2], settings)
    views = torch.from_numpy(scaled_pair(image, 1.0)).double()
    total, first, peaks = 0, None, None
    for _ in range(3):
        views = views.detach().requires_grad_(True)
        logits = double.maps(views)
        peaks = peaks or [m.max().detach() + 1e-5 for m in logits[:, 2].relu()]
        cams = [m / peak for m, peak in zip(logits[:, 2].relu(), peaks, strict=True)]
        first = first or [cam.detach() for cam in cams]
        total = total + cams[0].detach() + cams[1].detach().flip(-1)
        y = logits.mean((2, 3))
        loss = y[:, 2].sum() - y[:, [0, 1, 3]].sum()
        for cam, start in zip(cams, first, strict=True):
            loss = loss - 7 * (cam - start).abs()[cam.detach() > 0.5].sum()
        (slope,) = torch.autograd.grad(loss, views)
        views = views + 0.5 * slope / slope.abs().amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(found.maps[1.0][0], total, rtol=1e-4, atol=1e-4)


def test_growth_is_the_ratio_in_the_two_regions_of_the_first_map():
    first = torch.tensor([[[[1.0, 0.6, 0.3, 0.2, 0.05, 0.0]], [[2.0, 0.0, 0.0, 0.0, 0.0, 0.0]]]])
    maps = torch.tensor([[[[2.0, 0.6, 0.9, 0.2, 0.50, 1.0]], [[2.0, 5.0, 0.0, 0.0, 0.0, 0.0]]]])
    discriminative, other = advcam.growth(maps, first).tolist()
    assert discriminative == pytest.approx((2 + 1) / 2 + 1) and other == pytest.approx((3 + 1) / 2 + 1)


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_the_third_term_holds_what_is_discriminative_and_lets_the_rest_grow(trained, variant):
    """Fig. 3.3 of the dissertation: without it both regions grow, with it only the other one does."""
    network, images = trained
    grown = {}
    for weight in (0.0, 7.0):
        settings = AdvCamSettings(variant, iterations=12, mask_weight=weight, step_size=0.08, scales=(1.0,))
        seeds = [advcam_seed(network, image, [number % 2], settings) for number, image in enumerate(images)]
        grown[weight] = [
            float(np.mean([seed.statistics[name][-1] for seed in seeds])) for name in ("discriminative", "other")
        ]
    free, held = grown[0.0], grown[7.0]
    assert free[0] > 1.2 and free[1] > free[0], "non-discriminative cells grow more"
    assert abs(held[0] - 1) < 0.5 * (free[0] - 1), "discriminative ones stay nearly as they were"
    assert held[1] > held[0] + 0.1, "and the others still grow"


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_the_logit_climbs_and_the_network_stays(network, image, variant):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = AdvCamSettings(variant, iterations=6, mask_weight=0.0, step_size=0.05)
    curve = advcam_seed(network, image, CLASSES, settings).statistics["target"]
    assert curve == sorted(curve) and curve[-1] > curve[0]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_step_writes_the_maps(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "0.png")
    records = (ImageRecord("0", str(tmp_path / "0.png"), 44, 60, ("train",), (0, 1), digest="0"),)
    table = ImageTable(("red", "blue"), records)
    write_table(tmp_path / "images.csv", table)
    write_manifest(tmp_path / "shard.json", table.class_names, records)
    torch.manual_seed(0)
    network = cam_network("small", 2).eval()
    settings = {"iterations": 3, "step_size": None, "scales": [1.0, 0.5]}
    maps_step.run(
        health=None,
        config=write_step(tmp_path / "step.json", "seeds/advcam", "advcam", "maps", settings),
        classifier=write_classifier(tmp_path / "model.pt", network, table.class_names),
        manifest=tmp_path / "shard.json",
        table=tmp_path / "images.csv",
        maps=tmp_path / "maps.h5",
        cache=tmp_path / "cache.h5",
        execution=Execution("cpu"),
    )
    stored = SeedStore(tmp_path / "maps.h5")["0"]
    expected = advcam_seed(network, image, [0, 1], AdvCamSettings(iterations=3, scales=(1.0, 0.5)))
    for scale in (1.0, 0.5):
        torch.testing.assert_close(stored.maps[scale], expected.maps[scale], rtol=1e-3, atol=1e-6)
    cam = cam_seed(network, image, [0, 1], CamSettings((1.0,)))
    assert stored.maps[1.0].shape == cam.maps[1.0].shape and len(stored.statistics["target"]) == 3
