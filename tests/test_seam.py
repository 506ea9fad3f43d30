"""SEAM: the correlation module against a loop, its losses by hand, what they train, and the steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.scenes import write_step
from wsss_core.classify import bce
from wsss_core.classify import seam as objective
from wsss_core.classify.seam import SeamSettings, View, hardest, in_range, lower_quarter, siamese_terms
from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models import cam_network, restore_classifier, seam
from wsss_core.models.backbones import backbone
from wsss_core.models.seam import PixelCorrelation, SeamNetwork, candidates, resize, spread, strongest
from wsss_core.seeds import Inputs as SeedInputs
from wsss_core.seeds import advcam, rib
from wsss_core.seeds import seam as method
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.seeds.seam import above_minimum, seam_seed
from wsss_core.steps import maps as maps_step
from wsss_core.steps import train as train_step
from wsss_core.store.checkpoints import load_network
from wsss_core.store.seeds import SeedStore
from wsss_core.training import Inputs

COLOURS = ((200, 40, 40), (40, 40, 200))


@pytest.fixture
def network():
    torch.manual_seed(1)
    return SeamNetwork(backbone("small"), 4).eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8)


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    rng, records = np.random.default_rng(0), []
    for number in range(6):
        image = rng.integers(90, 130, (40, 48, 3), dtype=np.uint8)
        classes = ((0,), (1,), (0, 1))[number % 3]
        for c in classes:
            image[6 + 12 * c : 18 + 12 * c, 8:30] = COLOURS[c]
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        records.append(ImageRecord(str(number), str(path), 40, 48, ("train",), classes, digest=str(number)))
    return ImageTable(("red", "blue"), tuple(records))


def views(batch: int = 2, classes: int = 3, sizes: tuple[int, int] = (20, 6), dtype=torch.float64) -> list[View]:
    random = torch.Generator().manual_seed(0)
    return [
        View(
            torch.randn(batch, classes, size, size, generator=random, dtype=dtype).requires_grad_(True),
            torch.rand(batch, classes + 1, size, size, generator=random, dtype=dtype).requires_grad_(True),
        )
        for size in sizes
    ]


def test_every_cell_is_the_mean_of_all_weighted_with_their_likeness():
    torch.manual_seed(0)
    maps, embedding = torch.rand(2, 3, 3, 4).double(), torch.randn(2, 5, 3, 4).double()
    embedding[1, :, 2, 3] = 0
    cells = [(row, column) for row in range(3) for column in range(4)]
    expected = torch.zeros_like(maps)
    for image in range(2):
        for here in cells:
            weights = 0.0
            for there in cells:
                one, other = embedding[image][:, here[0], here[1]], embedding[image][:, there[0], there[1]]
                weight = (one @ other / ((one.norm() + 1e-5) * (other.norm() + 1e-5))).clamp_min(0)
                expected[image, :, here[0], here[1]] += weight * maps[image, :, there[0], there[1]]
                weights += weight
            expected[image, :, here[0], here[1]] /= weights + 1e-5
    torch.testing.assert_close(spread(maps, embedding), expected)
    assert not expected[1, :, 2, 3].any()
    torch.testing.assert_close(spread(maps, 7 * embedding), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cells", [1, 5, 12, 100])
def test_blocks_do_not_change_the_answer(cells, monkeypatch):
    torch.manual_seed(0)
    maps, embedding = torch.rand(2, 3, 3, 4).double(), torch.randn(2, 5, 3, 4).double().requires_grad_(True)
    whole, parts = spread(maps, embedding, 12), spread(maps, embedding, cells)
    torch.testing.assert_close(parts, whole)
    gradients = [torch.autograd.grad(found.square().sum(), embedding)[0] for found in (whole, parts)]
    torch.testing.assert_close(*gradients)
    monkeypatch.setitem(seam.BLOCK_ENTRIES, "cpu", 2 * 12 * cells)
    assert torch.equal(spread(maps, embedding), parts)


def test_the_strongest_class_alone_spreads():
    logits = torch.tensor([[[[4.0, 1.0], [-3.0, 0.0]], [[0.0, 2.0], [-1.0, 0.0]]]])
    found = candidates(logits.requires_grad_(True))
    expected = torch.tensor([[[[0, 0], [1, 1]], [[1, 0], [0, 0]], [[0, 1], [0, 0]]]]).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert not found.requires_grad
    halved = candidates(torch.tensor([[[[4.0, 2.0]], [[-1.0, -1.0]]]]))
    torch.testing.assert_close(halved[0, :, 0], torch.tensor([[0.0, 0.5], [1.0, 0.5], [0, 0]]), rtol=0, atol=2e-5)


def test_taps_and_image_meet_at_the_grid_of_the_maps():
    torch.manual_seed(0)
    correlation = PixelCorrelation([6, 8])
    images, taps = torch.randn(1, 3, 40, 56), [torch.randn(1, 6, 10, 14), torch.randn(1, 8, 5, 7)]
    maps = torch.rand(1, 2, 5, 7)
    low = F.interpolate(
        F.conv2d(taps[0], correlation.reduce[0].weight).relu(), (5, 7), mode="bilinear", align_corners=True
    )
    high = F.conv2d(taps[1], correlation.reduce[1].weight).relu()
    colour = F.interpolate(images, (5, 7), mode="bilinear", align_corners=True)
    embedding = F.conv2d(torch.cat([colour, low, high], 1), correlation.embed.weight)
    torch.testing.assert_close(correlation(images, taps, maps), spread(maps, embedding))
    assert sum(p.numel() for p in PixelCorrelation([512, 1024]).parameters()) == 512 * 64 + 1024 * 128 + 195 * 192


@pytest.mark.parametrize("name", ["resnet38d", "resnet50", "mobilenet_v2", "vgg16", "small"])
def test_every_backbone_has_the_taps(name):
    with FakeTensorMode():  # shapes without arithmetic
        maps, refined = SeamNetwork(backbone(name), 4).activations(torch.zeros(2, 3, 65, 90))
    grid = (9, 12) if name == "resnet38d" else (5, 6)
    assert maps.shape == (2, 4, *grid) and refined.shape == (2, 5, *grid)


def test_it_is_a_classifier_like_any_other(network, image):
    assert network.classifier.bias is None and network.n_classes == 4
    images = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        maps, refined = network.activations(images)
        torch.testing.assert_close(maps, network.maps(images))
        torch.testing.assert_close(network(images), maps.mean((2, 3)))
        dropped, _ = network.train().activations(images)
    assert not torch.allclose(dropped, maps), "channels are dropped in training mode"
    assert refined.min() >= 0 and refined.max() <= 1
    assert network.architecture == "seam"
    again = restore_classifier(network.state_dict(), network.about | {"class_names": list("abcd")}).eval()
    assert isinstance(again, SeamNetwork)
    assert torch.equal(again.activations(images)[1], refined)
    assert cam_seed(network.eval(), image, [1], CamSettings((1.0,))).maps[1.0].shape == (1, 3, 4)


def test_refined_maps_train_the_correlation_module_alone(network):
    maps, refined = network.train().activations(torch.randn(2, 3, 40, 56))
    refined.square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in network.named_parameters() if name.startswith("correlation.")}
    assert all(p.grad.any() for p in network.correlation.parameters())


def test_mixed_precision_keeps_the_differences_that_the_losses_stretch(network):
    """Where all cells look alike refined maps hardly vary; bfloat16 would leave a handful of values of them."""
    maps, embedding = torch.rand(1, 3, 6, 6), torch.rand(1, 5, 6, 6) + 3
    exact = spread(maps, embedding)
    assert (exact.amax((2, 3)) - exact.amin((2, 3))).max() < 0.02
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spread(maps, embedding), exact)
        logits, refined = network.activations(torch.randn(2, 3, 40, 56))
    assert (logits.dtype, refined.dtype) == (torch.float32, torch.float32)


def test_each_term_trains_what_it_should():
    """Which of M1, R1, M2, R2 a term has a gradient for."""
    large, small = views()
    terms = siamese_terms(large, small, torch.tensor([[1.0, 0, 1], [0, 1, 0]]), 0.2)
    for name, wanted in {"classification": "M1 M2", "minimum": "R1 R2", "er": "M1 M2", "ecr": "R1 R2"}.items():
        leaves = {"M1": large.maps, "R1": large.refined, "M2": small.maps, "R2": small.refined}
        found = torch.autograd.grad(terms[name], list(leaves.values()), retain_graph=True, allow_unused=True)
        assert [leaf for leaf, g in zip(leaves, found, strict=True) if g is not None and g.any()] == wanted.split()


def test_maps_are_stretched_to_their_range():
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 2.0]], [[-1.0, -1.0], [-2.0, -1.0]], [[-4.0, 0.0], [1.0, 2.0]]]])
    expected = torch.tensor([[[[0, 0.5], [1, 0.25]], [[0, 0], [0, 0]], [[0, 0], [0.5, 1]]]])
    torch.testing.assert_close(in_range(maps), expected, rtol=0, atol=2e-5)


def test_the_strongest_class_and_the_background_remain():
    maps = torch.tensor([0.2, 0.7, 0.5]).view(1, 3, 1, 1)
    before = maps.clone()
    assert strongest(maps).flatten().tolist() == pytest.approx([0.3, 0, 0.7, 0])
    assert strongest(torch.tensor([0.4, 0.4]).view(1, 2, 1, 1)).flatten().tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert torch.equal(maps, before), "the argument stays as it was"


def test_the_largest_fifth_is_chosen_image_by_image():
    differences = torch.stack([torch.arange(10.0), -10 * torch.arange(10.0)]).view(2, 2, 5, 1)
    assert hardest(differences, 0.2) == pytest.approx((8.5 + 85) / 2)
    assert hardest(differences, 1.0) == pytest.approx((4.5 + 45) / 2)
    assert hardest(torch.full((1, 1, 1, 2), 3.0), 0.2) == 3, "at least one"


def test_the_lower_quarter_of_the_largest_class_is_held_down():
    one = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.8, 0.7, 0.6, 0.5]])
    other = torch.tensor([[0.4, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert lower_quarter(torch.stack([one, other])[None]) == pytest.approx((0.2 + 0.3) / 2)


def test_terms_equal_the_obvious_loop():
    large, small = views()
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    found = siamese_terms(large, small, labels.double(), 0.2)
    er, ecr, minimum = [], [], []
    for image, tags in enumerate(labels.tolist()):
        held = [1.0, *tags]
        stretched = []
        for view in (large, small):
            maps, refined = view.maps[image].detach(), view.refined[image].detach()
            lowest = (refined[1:] * torch.tensor(tags).view(-1, 1, 1)).amax(0).flatten().sort().values
            minimum.append(lowest[: len(lowest) // 4].mean())
            stretched.append([])
            for map_, tag in [*zip(maps, tags, strict=True), *zip(refined, held, strict=True)]:
                map_ = map_.clamp_min(0)
                low, high = map_.min(), map_.max()
                map_ = (map_ - low - 1e-5).clamp_min(0) / (high - low + 1e-5) * tag
                size = {"size": (6, 6), "mode": "bilinear", "align_corners": True}
                stretched[-1].append(F.interpolate(map_[None, None], **size)[0, 0])
        (m1, r1), (m2, r2) = ((torch.stack(s[:3]), torch.stack(s[3:])) for s in stretched)
        er.append((m1 - m2).abs().mean())
        sides = []
        for maps, refined in ((m2, r1), (m1, r2)):
            target = torch.zeros(4, 6, 6)
            for row in range(6):
                for column in range(6):
                    c = int(maps[:, row, column].argmax())
                    target[0, row, column] = 1 - maps[c, row, column]
                    target[c + 1, row, column] = maps[c, row, column]
            differences = (target - refined).abs().flatten().sort(descending=True).values
            sides.append(differences[: int(0.2 * 4 * 36)].mean())
        ecr.append(sum(sides))
    torch.testing.assert_close(found["er"], sum(er) / 2)
    torch.testing.assert_close(found["ecr"], sum(ecr) / 2, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["minimum"], sum(minimum) / 4)
    logits = [view.maps.mean((2, 3)) for view in (large, small)]
    classification = sum(F.multilabel_soft_margin_loss(y, labels) for y in logits) / 2
    torch.testing.assert_close(found["classification"], classification, rtol=1e-6, atol=1e-6)


def test_loss_is_the_weighted_sum_at_two_sizes(network):
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    sizes = []
    network.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    weights = {"minimum_weight": 2.0, "er_weight": 3.0, "ecr_weight": 5.0}
    terms = objective.loss(network, SeamSettings(**weights))((images, labels))
    assert sizes == [(64, 64), (19, 19)]
    total = terms["classification"] + 2 * terms["minimum"] + 3 * terms["er"] + 5 * terms["ecr"]
    torch.testing.assert_close(terms["loss"], total)
    reduced = F.interpolate(images, scale_factor=0.3, mode="bilinear", align_corners=True)
    assert torch.equal(resize(images, (19, 19)), reduced)
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_defaults_are_the_published_ones(table):
    settings = SeamSettings()
    assert (settings.usual_epochs, settings.batch_size, settings.crop, settings.long_side) == (8, 8, 448, (448, 768))
    plan = objective.plan(SeamSettings(backbone="small", batch_size=2), Inputs(table, None, 0, "c"))
    assert len(plan.batches) == 34 * 3 and plan.batches.colour_jitter == (0.3, 0.3, 0.3, 0.1)
    assert [group["lr"] for group in plan.optimizer.param_groups] == [0.01, 0.1]
    assert all(group["momentum"] == group["weight_decay"] == 5e-4 for group in plan.optimizer.param_groups)
    fresh = {id(p) for p in [*plan.network.correlation.parameters(), *plan.network.classifier.parameters()]}
    assert {id(p) for p in plan.optimizer.param_groups[1]["params"]} == fresh
    assert isinstance(plan.network, SeamNetwork) and issubclass(SeamSettings, bce.ClassifierSettings)


def test_seeds_are_refined_maps_of_both_views_above_their_minimum(network, image):
    seeds = seam_seed(network, image, [2, 0], method.SeamSettings((0.5, 1.0)))
    assert seeds.classes == (2, 0) and seeds.size == (44, 60)
    for scale, grid in {0.5: (2, 2), 1.0: (3, 4)}.items():
        with torch.no_grad():
            views = [
                network.activations(torch.from_numpy(view[None].copy()))[1][0] for view in scaled_pair(image, scale)
            ]
        summed = torch.stack([views[0][c + 1] + views[1][c + 1].flip(-1) for c in (2, 0)])
        expected = torch.stack([m - m.min() for m in summed])
        torch.testing.assert_close(seeds.maps[scale], expected)
        assert seeds.maps[scale].shape == (2, *grid)
    mirrored = seam_seed(network, image[:, ::-1].copy(), [2, 0], method.SeamSettings((1.0,)))
    torch.testing.assert_close(mirrored.maps[1.0].flip(-1), seeds.maps[1.0])
    assert above_minimum(torch.tensor([[[2.0, 5.0]], [[1.0, 1.0]]])).flatten().tolist() == [0, 3, 0, 0]


def test_seeds_need_a_classifier_of_seam(table):
    with pytest.raises(UserError, match="objective seam, not one of kind cam"):
        method.maker(method.SeamSettings(), SeedInputs(cam_network("small", 2), table.records, 0, "s"))


@pytest.mark.parametrize(("other", "settings"), [(advcam, advcam.AdvCamSettings()), (rib, rib.RibSettings())])
def test_methods_that_see_the_unrefined_maps_say_so(network, table, caplog, other, settings):
    inputs = SeedInputs(network, table.records, 0, "s")
    other.maker(settings, inputs)
    assert "before SEAM's correlation refines them" in caplog.text and other.__name__.rpartition(".")[2] in caplog.text
    caplog.clear()
    other.maker(settings, SeedInputs(cam_network("small", 2), table.records, 0, "s"))
    assert not caplog.text


def test_steps_train_and_write_the_maps(table, tmp_path):
    write_table(tmp_path / "images.csv", table)
    write_manifest(tmp_path / "shard.json", table.class_names, table.records[:2])
    training = {"backbone": "small", "epochs": 2, "batch_size": 3, "long_side": [56, 64], "crop": 64}
    config = write_step(tmp_path / "train.json", "classifiers/seam", "seam", "train", training)
    inputs = {"config": config, "table": tmp_path / "images.csv", "classifier": None, "labels": (), "ood": None}
    for name in ("model", "again"):
        results = {"model": tmp_path / f"{name}.pt", "state": tmp_path / "state", "history": tmp_path / "history.csv"}
        train_step.run(**inputs, **results, execution=Execution("cpu"))
    assert (tmp_path / "model.pt").read_bytes() == (tmp_path / "again.pt").read_bytes()
    columns = (tmp_path / "history.csv").read_text().splitlines()[0].split(",")
    assert columns == ["step", "rate", "loss", "classification", "minimum", "er", "ecr"]
    state, meta = load_network(tmp_path / "model.pt", "classifier")
    assert meta["architecture"] == "seam" and meta["settings"]["hard_share"] == 0.2
    maps_step.run(
        health=None,
        config=write_step(tmp_path / "seeds.json", "seeds/seam", "seam", "maps", {"scales": [0.5, 1.0]}),
        classifier=tmp_path / "model.pt",
        manifest=tmp_path / "shard.json",
        table=tmp_path / "images.csv",
        maps=tmp_path / "maps.h5",
        cache=tmp_path / "cache.h5",
        execution=Execution("cpu"),
    )
    stored = SeedStore(tmp_path / "maps.h5")["1"]
    network = restore_classifier(state, meta).eval()
    with Image.open(tmp_path / "1.png") as picture:
        expected = seam_seed(network, np.array(picture), [1], method.SeamSettings((0.5, 1.0)))
    for scale in (0.5, 1.0):
        torch.testing.assert_close(stored.maps[scale], expected.maps[scale], rtol=1e-3, atol=1e-5)
    assert stored.full().shape == (1, 40, 48) and stored.full().min() >= 0
