"""RIB: against the published implementation, its variants, stops and auxiliary pool."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference_networks import reference_resnet50
from tests.scenes import write_classifier, write_step
from wsss_core.data.augment import normalise, scaled_pair, training_crop
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.processes import in_processes
from wsss_core.models import cam_network
from wsss_core.models.ficklenet import FickleNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.seeds.pool import AuxiliaryPool, device_crop, device_images
from wsss_core.seeds.rib import (
    Objective,
    RibSettings,
    auxiliary,
    explodes,
    gndrp_official,
    gndrp_paper,
    log_softsign,
    log_tanh,
    maker,
    restored,
    rib_seed,
)
from wsss_core.steps import maps as maps_step
from wsss_core.store.seeds import SeedStore

NO_STOPS = {"margin": None, "explosion": None}


def test_maps_and_losses_equal_the_published_ones(shared):
    vectors = np.load(shared / "reference" / "rib_gndrp.npz")
    network = reference_resnet50(shared, int(vectors["weight_seed"]))
    settings = RibSettings(steps=int(vectors["steps"]), learning_rate=float(vectors["lr"]), **NO_STOPS)

    def pool(step):
        images = np.stack([normalise(image) for image in vectors["pool_images"][step]])
        return torch.from_numpy(images), torch.from_numpy(vectors["pool_labels"][step])

    maps = rib_seed(network, vectors["image"], vectors["classes"].tolist(), settings, pool, last_loss=True)
    np.testing.assert_allclose(maps.statistics["losses"], vectors["losses"], atol=1e-5)
    for scale in settings.scales:
        np.testing.assert_allclose(maps.maps[scale], vectors[f"scale_{scale}"], rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(maps.strided(), vectors["cam"], atol=1e-5)
    np.testing.assert_allclose(maps.full(), vectors["high_res"], atol=1e-5)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return cam_network("small", 4).eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8)


def pool(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(2, 3, 48, 48, generator=draw), torch.tensor([[0.0, 1, 0, 0], [0, 1, 0, 1]])


def test_without_a_rate_the_sum_is_a_multiple_of_cam(network, image):
    cam = cam_seed(network, image, [0, 2], CamSettings())
    official = rib_seed(network, image, [0, 2], RibSettings(steps=5, learning_rate=0.0, **NO_STOPS), pool)
    for scale, maps in cam.maps.items():
        torch.testing.assert_close(official.maps[scale], 5 * maps)
    torch.testing.assert_close(official.full(), cam.full(), atol=1e-4, rtol=1e-4)
    paper = rib_seed(network, image, [0, 2], RibSettings(variant="paper", steps=5, learning_rate=0.0), pool)
    ratios = [paper.maps[scale][0].sum() / maps[0].sum() for scale, maps in cam.maps.items()]
    torch.testing.assert_close(ratios, ratios[:1] * 4)
    assert paper.statistics["maps"] == 6
    torch.testing.assert_close(paper.full(), cam.full(), atol=1e-3, rtol=1e-3)


def test_the_target_logit_grows(network, image):
    for variant in ("official", "paper"):
        settings = RibSettings(variant=variant, steps=4, learning_rate=3e-4, pooling="gap", **NO_STOPS)
        curve = rib_seed(network, image, [0, 2], settings, pool).statistics["target"]
        assert curve == sorted(curve) and curve[-1] > curve[0]


def test_paper_follows_its_equations_step_by_step(network, image):
    """Two steps written out: plain gradient steps on min(m, logit), maps divided by their maximum."""
    settings = RibSettings(variant="paper", steps=2, learning_rate=1e-3, scales=(1.0,), margin=0.05)
    found = rib_seed(network, image, [0, 2], settings, pool)
    twin = cam_network("small", 4, network.state_dict()).eval()
    parameters = [*twin.trunk_parameters(), twin.classifier.weight]
    views = torch.from_numpy(np.stack([normalise(image), normalise(image)[..., ::-1]]))
    total = 0
    for step in range(3):
        maps = twin.maps(views)
        summed = (maps[0].relu() + maps[1].relu().flip(-1))[[0, 2]].detach()
        total = total + summed / summed.amax((1, 2), keepdim=True)
        images, labels = pool(step)
        loss = -gndrp_paper(maps[0, [0, 2]], 0.4).clamp(max=0.05).sum()
        loss = loss - (gndrp_paper(twin.maps(images), 0.4).clamp(max=0.05) * labels).sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 1e-3 * gradient
    torch.testing.assert_close(found.maps[1.0], total, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_cross_entropy_is_that_of_all_classes(network, image, variant):
    """Two steps written out for every activation: all classes of the image's views and of every auxiliary image."""
    activations = {
        "sigmoid": lambda y: 1 / (1 + torch.exp(-y)),
        "tanh": lambda y: (torch.tanh(y) + 1) / 2,
        "softsign": lambda y: (y / (1 + y.abs()) + 1) / 2,
    }
    initial = network.state_dict()
    views = torch.from_numpy(scaled_pair(image, 1.0))
    tags = torch.tensor([1.0, 0, 1, 0])

    def pooled(maps, held):
        if variant == "paper":
            return gndrp_paper(maps, 0.4)
        return torch.stack([gndrp_official(m, 0.4) if t else m.mean() for m, t in zip(maps, held, strict=True)])

    for name, activation in activations.items():
        settings = RibSettings(variant, 2, 1e-3, loss="bce", activation=name, weight_decay=0.0, momentum=0.0,
                               classifier_rate=1.0, scales=(1.0,), **NO_STOPS)  # fmt: skip
        found = rib_seed(network, image, [0, 2], settings, pool, last_loss=True)
        twin = cam_network("small", 4, initial).eval()
        parameters = [*twin.trunk_parameters(), twin.classifier.weight]
        losses = []
        for step in range(2):
            maps = twin.maps(views)[: 1 if variant == "paper" else 2]
            images, labels = pool(step)
            rows = [(m, tags) for m in maps] + list(zip(twin.maps(images), labels, strict=True))
            loss = 0
            for row, held in rows:
                probability = activation(pooled(row, held))
                loss = loss - (held * probability.log() + (1 - held) * (1 - probability).log()).sum()
            losses.append(loss.item())
            rate = 1e-3 * ((1 - step / 2) ** 0.9 if variant == "official" else 1)
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.data -= rate * gradient
        np.testing.assert_allclose(found.statistics["losses"], losses, rtol=1e-4)
        assert abs(losses[1] - losses[0]) > 1e-3, "the weights must have moved for this to prove anything"


def test_bounded_activations_are_exact_far_from_zero():
    logits = torch.tensor([-1e8, -3.0, 0.0, 3.0, 1e8])
    softsign = np.array([1 / (2 * (1 + 1e8)), 1 / 8, 1 / 2, 7 / 8, 1.0])
    np.testing.assert_allclose(log_softsign(logits), np.log(softsign), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_tanh(logits[1:4]).exp(), (np.tanh([-3, 0, 3]) + 1) / 2, rtol=1e-5)


def test_cross_entropy_needs_images_without_classes_too(network):
    """An image that holds nothing lowers all logits under the cross-entropy, and does nothing under RIB's loss."""
    batch = pool(0)[0], torch.zeros(2, 4)
    with restored(network):
        assert auxiliary(network, batch, Objective.of(RibSettings(loss="bce"))) > 0
        assert network.classifier.weight.grad.abs().max() > 0


def test_without_a_class_beside_the_targets_cross_entropy_has_nothing_absent(network, image):
    settings = RibSettings(steps=2, loss="bce", **NO_STOPS)
    assert rib_seed(network, image, [0, 1, 2, 3], settings, pool).statistics["maps"] == 2


def test_poolings_on_paper():
    maps = torch.tensor([[10.0, 4.0], [1.0, -3.0]])
    assert gndrp_official(maps, 0.4).item() == pytest.approx((1 - 3) / 4)
    assert gndrp_paper(maps, 0.4).item() == pytest.approx((4 + 1 - 3) / 3)
    assert gndrp_paper(-maps.abs(), 0.4).item() == pytest.approx(-18 / 4)


def test_explosion_measures_the_union_of_the_classes():
    maps = torch.zeros(2, 4, 5)
    maps[0, :2], maps[1, 2:] = 1.0, 3.0
    assert explodes(maps, (0.3, 0.7)) and not explodes(maps[:1], (0.3, 0.7)) and not explodes(maps, None)


def test_scale_one_is_required(network, image):
    with pytest.raises(UserError, match="scales"):
        rib_seed(network, image, [0], RibSettings(scales=(0.5, 2.0)), pool)


@pytest.fixture
def images(tmp_path: Path) -> ImageTable:
    rng, records = np.random.default_rng(0), []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
        classes = ((0,), (1,), (0, 1), (2,), ())[number % 5]
        records.append(ImageRecord(str(number), str(path), 40, 48, ("train",), classes, digest=str(number)))
    return ImageTable(("a", "b", "c"), tuple(records))


def pool_of(images: ImageTable, **changes) -> AuxiliaryPool:
    settings = {"eligible": "disjoint", "batch_size": 2, "long_side": (40, 60), "crop": 48, "seed": 0, "stage": "s"}
    return AuxiliaryPool(images.records, 3, **settings | changes)


def test_pool_shares_no_class_with_the_target_and_repeats_nobody(images):
    pool = pool_of(images)
    order = pool.order("0", (0,))
    assert sorted(order.tolist()) == [1, 3, 4, 6, 8]
    labels = torch.cat([pool.batches("0", (0,))(step)[1] for step in range(3)])
    assert not labels[:, 0].any()
    assert torch.equal(labels[:5], pool.labels[order])
    assert torch.equal(labels[5], pool.labels[order[0]]), "after the last the first comes again"
    assert sorted(pool_of(images, eligible="any").order("0", (0,)).tolist()) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_pool_depends_on_its_key_alone(images):
    one, two = pool_of(images), pool_of(images, threads=3)
    two.batches("1", (1,))(0)
    batch = one.batches("0", (0,))(1)
    assert batch[0].shape == (2, 3, 48, 48)
    assert torch.equal(batch[0], two.batches("0", (0,))(1)[0])
    for other in (pool_of(images, seed=1).batches("0", (0,))(1), one.batches("5", (0,))(1), one.batches("0", (0,))(0)):
        assert not torch.equal(batch[0], other[0])


@pytest.mark.parametrize("long_side", [(30, 60), (48, 48), (70, 140)])
def test_crops_on_a_device_are_those_of_pillow_to_the_bit(long_side):
    rng = np.random.default_rng(0)
    for number in range(8):
        coarse = rng.integers(0, 256, (8, 6 + number, 3), dtype=np.uint8)
        image = np.array(Image.fromarray(coarse).resize((40 + 2 * number, 48)))
        one, other = np.random.default_rng(number), np.random.default_rng(number)
        expected = torch.from_numpy(training_crop(image, long_side, 48, one))
        found = device_crop(torch.from_numpy(image).permute(2, 0, 1), long_side, 48, other)
        assert torch.equal(found, expected) and one.random() == other.random()


def test_pool_on_a_device_has_the_same_images_and_keeps_as_many_as_fit(images, monkeypatch):
    expected, labels = pool_of(images).batches("0", (0,))(1)
    pool = pool_of(images, device=torch.device("cpu"))
    found, found_labels = pool.batches("0", (0,))(1)
    assert torch.equal(labels, found_labels) and torch.equal(found, expected)
    monkeypatch.setattr("wsss_core.seeds.pool.DEVICE_BYTES", 2 * 2 * 3 * 40 * 48)
    few = device_images(images.records, torch.device("cpu"), processes=2)
    assert few[0] is few[0] and few[1] is few[1] and few[2] is not few[2]


def test_pool_without_images_is_reported(images):
    with pytest.raises(UserError, match="image '2': no other training image shares no class with it"):
        pool_of(ImageTable(images.class_names, images.records[:3])).order("2", (0, 1))


def run_step(folder: Path, images: ImageTable, records, **settings) -> SeedStore:
    settings = {"steps": 2, "batch_size": 2, "scales": [1.0], "learning_rate": 1e-4, **settings}
    settings |= {"pool_long": [40, 56], "pool_crop": 48}
    write_table(folder / "images.csv", images)
    write_manifest(folder / "shard.json", images.class_names, records)
    torch.manual_seed(0)
    maps_step.run(
        health=None,
        config=write_step(folder / "step.json", "seeds/rib", "rib", "maps", settings),
        classifier=write_classifier(folder / "model.pt", cam_network("small", 3), images.class_names),
        manifest=folder / "shard.json",
        table=folder / "images.csv",
        maps=folder / "maps.h5",
        cache=folder / "cache.h5",
        execution=Execution("cpu"),
    )
    return SeedStore(folder / "maps.h5")


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_step_gives_an_image_the_same_maps_in_any_company(images, tmp_path, variant):
    together = run_step(tmp_path, images, images.records, variant=variant)
    maps = {i: together[i] for i in together}
    assert maps["4"].classes == ()
    assert maps["0"].statistics["maps"] == (2 if variant == "official" else 3)
    (tmp_path / "cache.h5").unlink()
    alone = run_step(tmp_path, images, images.records[2:3], variant=variant)
    assert torch.equal(alone["2"].maps[1.0], maps["2"].maps[1.0])


def test_images_at_once_are_for_gpus():
    assert maps_step.images_at_once(Execution("cuda", images_at_once=4)) == 4
    assert maps_step.images_at_once(Execution("cpu", images_at_once=4)) == 1


def test_images_at_once_in_processes_of_their_own_have_the_same_maps(images, tmp_path, monkeypatch):
    """What a GPU would do, on the CPU."""
    run_step(tmp_path, images, images.records)
    expected = (tmp_path / "maps.h5").read_bytes()
    (tmp_path / "cache.h5").unlink()
    counts = []
    monkeypatch.setattr(maps_step, "images_at_once", lambda execution: 2)
    monkeypatch.setattr(
        maps_step, "in_processes", lambda n, *rest, **more: counts.append(n) or in_processes(n, *rest, **more)
    )
    run_step(tmp_path, images, images.records)
    assert counts == [2] and (tmp_path / "maps.h5").read_bytes() == expected


def test_an_image_that_a_process_cannot_read_is_named(images, tmp_path, monkeypatch):
    monkeypatch.setattr(maps_step, "images_at_once", lambda execution: 2)
    Path(images.records[2].path).write_bytes(b"no image")
    with pytest.raises(UserError, match=f"image '{images.records[2].id}'"):
        run_step(tmp_path, images, images.records)


def test_the_target_can_be_adapted_to_alone(images, tmp_path):
    for variant, batch_size in (("official", 0), ("paper", 1)):
        alone = run_step(tmp_path, images, images.records[:1], variant=variant, batch_size=batch_size)["0"]
        assert len(alone.statistics["losses"]) == (1 if variant == "official" else 2)
    with pytest.raises(UserError, match="batch_size: the target is one of the batch"):
        run_step(tmp_path, images, images.records, variant="paper", batch_size=0)


def test_step_keeps_why_an_image_stopped_and_its_logits(images, tmp_path):
    statistics = run_step(tmp_path, images, images.records[:1], margin=None, explosion=None)["0"].statistics
    assert set(statistics) == {"stop", "maps", "target", "losses"}
    assert statistics["stop"] == "steps" and statistics["maps"] == len(statistics["target"]) == 2


def test_a_classifier_of_windows_is_refused(images):
    network = FickleNetwork(cam_network("small", 3).backbone, 3, size=3)
    with pytest.raises(UserError, match="the seed method rib needs a 1x1 convolution .* ficklenet is 3x3"):
        maker(RibSettings(), Inputs(network, images.records, 0, "seeds/rib"))
