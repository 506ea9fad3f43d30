"""FickleNet: its network against the expanded map and the loop over windows, its training, and its maps."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.scenes import write_step
from wsss_core import keyed
from wsss_core.classify.ficklenet import FickleNetSettings, plan
from wsss_core.config import load
from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.classifier import open_classifier
from wsss_core.models import cam_network
from wsss_core.models.backbones import backbone
from wsss_core.models.ficklenet import FickleNetwork, relevance
from wsss_core.seeds import Inputs as SeedInputs
from wsss_core.seeds import advcam, ficklenet
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.seeds.ficklenet import FickleNetSeedSettings, ficklenet_seed, settle
from wsss_core.seeds.grad_cam import GradCamSettings, grad_cam_seed
from wsss_core.steps import maps as maps_step
from wsss_core.steps import train as train_step
from wsss_core.store.seeds import SeedMaps, SeedStore
from wsss_core.training import Inputs

CLASSES = [2, 0]


def network_of(size=3, dropout=0.6, classes=4) -> FickleNetwork:
    torch.manual_seed(1)
    return FickleNetwork(backbone("small"), classes, size, dropout).eval().requires_grad_(False)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (44, 60, 3), dtype=np.uint8)


def draws_of(scale: float, number: int) -> np.random.Generator:
    return keyed.generator(0, "test", str(scale), number)


def placed(weights: torch.Tensor, size: int) -> torch.Tensor:
    """Weights by cell and place, [s * s, h, w], sorted by window and place: [h, w, s, s]."""
    _, height, width = weights.shape
    windows = torch.zeros(height, width, size, size)
    for y in range(height):
        for x in range(width):
            for i in range(size):
                for j in range(size):
                    row, column = y + i - size // 2, x + j - size // 2
                    if 0 <= row < height and 0 <= column < width:
                        windows[y, x, i, j] = weights[i * size + j, row, column]
    return windows


def expanded_convolution(features: torch.Tensor, kernels: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """The paper's way: windows laid side by side, cells dropped in all channels, convolved with stride s."""
    size, (height, width) = kernels.shape[-1], features.shape[1:]
    padded = F.pad(features, [size // 2] * 4)
    cut = padded.unfold(1, size, 1).unfold(2, size, 1)  # [D, h, w, s, s]
    expanded = (cut * windows).permute(0, 1, 3, 2, 4).reshape(len(features), height * size, width * size)
    return F.conv2d(expanded[None], kernels, stride=size)[0]


@pytest.mark.parametrize("size", [1, 3, 5])
def test_votes_add_up_to_the_expanded_convolution(size):
    network = network_of(size)
    features = torch.randn(network.backbone.out_channels, 4, 6)
    weights = network.weights(torch.rand(1, size**2, 4, 6))
    windows = placed(weights[0], size)
    kernels = network.classifier.weight
    expected = expanded_convolution(features, kernels, windows)
    padded = F.pad(features, [size // 2] * 4)
    for y in range(4):
        for x in range(6):
            cut = padded[:, y : y + size, x : x + size] * windows[y, x]
            torch.testing.assert_close((kernels * cut).sum((1, 2, 3)), expected[:, y, x], rtol=1e-4, atol=1e-5)
    found = relevance(network.votes(features[None]), weights)[0]
    torch.testing.assert_close(found.sum((1, 2)), expected.sum((1, 2)), rtol=1e-4, atol=1e-4)


def test_relevance_is_the_element_wise_grad_cam():
    network = network_of(5)
    features = torch.randn(network.backbone.out_channels, 4, 6, requires_grad=True)
    weights = network.weights(torch.rand(1, 25, 4, 6))
    logits = expanded_convolution(features, network.classifier.weight, placed(weights[0], 5)).sum((1, 2))
    found = relevance(network.votes(features.detach()[None], CLASSES), weights)[0]
    for row, c in zip(found, CLASSES, strict=True):
        (gradient,) = torch.autograd.grad(logits[c], features, retain_graph=True)
        torch.testing.assert_close(row, (features * gradient).sum(0).detach(), rtol=1e-4, atol=1e-5)


def test_weights_of_dropout_keep_the_centre_and_the_mean():
    network = network_of(3, dropout=0.6)
    draws = torch.full((1, 9, 4, 5), 0.59)
    draws[:, 0] = 0.61
    weights = network.weights(draws)[0]
    assert (weights[4] == 1).all(), "the centre is never dropped and not enlarged"
    assert weights[[1, 2, 3, 5, 6, 7, 8]].abs().max() == 0
    inside = torch.zeros(4, 5)
    inside[:3, :4] = 1 / 0.4  # as top left cell of the window centred one row and one column further
    torch.testing.assert_close(weights[0], inside)
    mean = network.weights(torch.rand(20000, 9, 3, 3)).mean(0)[:, 1, 1]
    torch.testing.assert_close(mean, torch.ones(9), atol=0.05, rtol=0)


def test_without_dropout_it_is_the_plain_convolution():
    network = network_of(3, dropout=0.0)
    images = torch.randn(2, 3, 40, 48)
    plain = F.conv2d(network.features(images), network.classifier.weight, padding=1)
    torch.testing.assert_close(network.maps(images), plain)
    torch.testing.assert_close(network.maps(images, [2, 0]), plain[:, [2, 0]])
    for mode in (True, False):
        torch.testing.assert_close(network.train(mode)(images), plain.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_training_drops_cells_of_each_image_and_evaluation_none():
    network = network_of(3, dropout=0.6)
    images = torch.randn(1, 3, 40, 48).repeat(2, 1, 1, 1)
    first, second = network.train()(images)
    assert not torch.allclose(first, second)
    torch.manual_seed(5)
    once = network(images)
    torch.manual_seed(5)
    assert torch.equal(once, network(images))
    network.eval()
    mean = network.maps(images).mean((2, 3))
    torch.testing.assert_close(network(images), mean)
    network.train()
    many = torch.stack([network(images) for _ in range(300)])
    torch.testing.assert_close(many.mean((0, 1)), mean[0], rtol=0, atol=4 * float(many.std()) / 600**0.5)


def test_an_even_window_has_no_centre():
    with pytest.raises(UserError, match="size: a window of 4 x 4 cells has no centre"):
        network_of(4)


def test_the_features_get_the_stride_of_the_settings():
    network = FickleNetwork(backbone("small"), 2, 3, stride=8)
    assert network.features(torch.zeros(1, 3, 64, 64)).shape[2:] == (8, 8)
    assert network.architecture_settings == {"size": 3, "dropout": 0.9, "stride": 8}


def loop(network, image, classes, passes, scale=1.0) -> torch.Tensor:
    """Scores [N, K, h, w] of the passes: one backbone pass and one backward pass each."""
    view = torch.from_numpy(scaled_pair(image, scale))[:1]
    rows = []
    for number in range(passes):
        features = network.features(view)[0].requires_grad_(True)
        shape = (network.size**2, *features.shape[1:])
        weights = network.weights(torch.from_numpy(draws_of(scale, number).random(shape, np.float32))[None])[0]
        windows = placed(weights, network.size)
        logits = expanded_convolution(features, network.classifier.weight, windows).mean((1, 2))
        gradients = [torch.autograd.grad(logits[c], features, retain_graph=True)[0] for c in classes]
        heat = torch.stack([(features.detach() * g).sum(0).relu() for g in gradients])
        rows.append(heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-30))
    return torch.stack(rows)


def test_passes_equal_the_loop_with_a_backward_pass_each(image, monkeypatch):
    network = network_of()
    scores = loop(network, image, CLASSES, 7)
    assert scores.std(0).mean() > 0.01, "passes must differ for this to prove anything"
    for chunk in (1, 3 * 9 * 3 * 4, 2**24):
        monkeypatch.setattr(ficklenet, "CHUNK_VOTES", chunk)
        mean = ficklenet_seed(network, image, CLASSES, FickleNetSeedSettings(7, "mean"), draws_of)
        torch.testing.assert_close(mean.maps[1.0], scores.mean(0), rtol=1e-4, atol=1e-5)
        deviation = scores.std(0, correction=0).mean().item()
        assert mean.statistics["spread"] == pytest.approx(deviation, rel=1e-3)
        one = ficklenet_seed(network, image, CLASSES[:1], FickleNetSeedSettings(7), draws_of)
        torch.testing.assert_close(one.maps[1.0], scores.amax(0)[:1], rtol=1e-4, atol=1e-5)
    small = ficklenet_seed(network, image, CLASSES, FickleNetSeedSettings(3, "mean", scales=(1.0, 0.5)), draws_of)
    torch.testing.assert_close(small.maps[0.5], loop(network, image, CLASSES, 3, 0.5).mean(0), rtol=1e-4, atol=1e-5)


def test_the_backbone_runs_once(image):
    network, calls = network_of(), []
    hook = network.backbone.stages[0].register_forward_hook(lambda *_: calls.append(1))
    ficklenet_seed(network, image, CLASSES, FickleNetSeedSettings(20), draws_of)
    hook.remove()
    assert len(calls) == 1


def paper_labels(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """The paper's rule, cell by cell: -1 where no class exceeds the threshold in any pass."""
    _, classes, height, width = scores.shape
    labels = torch.full((height, width), -1)
    for y in range(height):
        for x in range(width):
            claims = [c for c in range(classes) if any(float(s[c, y, x]) > threshold for s in scores)]
            if claims:
                labels[y, x] = max(claims, key=lambda c: float(scores[:, c, y, x].mean()))
    return labels


def cell_labels(maps: torch.Tensor, threshold: float) -> torch.Tensor:
    maps = maps / (maps.amax((1, 2), keepdim=True) + 1e-5)
    return torch.where(maps.amax(0) > threshold, maps.argmax(0), -1)


def test_thresholded_maps_are_what_the_papers_rule_says():
    draw = torch.Generator().manual_seed(0)
    for trial in range(20):
        scores = torch.rand(5, 3, 6, 7, generator=draw).pow(3 + trial % 4)
        scores = scores / scores.amax((2, 3), keepdim=True)
        maps = ficklenet._any_pass(ficklenet.Summary.of(iter(scores.split(2))), 0.35)
        found, expected = cell_labels(maps, 0.35), paper_labels(scores, 0.35)
        assert (found != expected).sum() <= 3, "at most one cell a class"
        for threshold in (0.2, 0.35, 0.6):
            assert torch.equal(cell_labels(maps, threshold) >= 0, paper_labels(scores, threshold) >= 0)


def test_a_conflict_goes_to_the_larger_mean():
    largest = torch.tensor([[0.9, 0.9, 0.2, 0.5], [0.6, 0.3, 0.3, 0.5], [0.5, 0.1, 0.1, 0.4]])[:, None]
    mean = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, 0.1], [0.3, 0.0, 0.0, 0.3]])[:, None]
    expected = torch.tensor([[0.5, 0.9, 0.2, 0.5], [0.6, 0.3, 0.3, 0.4], [0.9, 0.1, 0.1, 0.5]])[:, None]
    assert torch.equal(settle(largest, mean, 0.35), expected)


def test_a_class_that_always_loses_is_not_blown_up():
    scores = torch.zeros(1, 2, 1, 8)
    scores[0, 0, 0] = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.0, 0.0, 0.0, 0.0])
    scores[0, 1, 0] = torch.tensor([0.9, 1.0, 0.9, 0.8, 0.0, 0.0, 0.0, 0.0])
    maps = ficklenet._any_pass(ficklenet.Summary.of(iter([scores])), 0.35)
    assert maps.amax((1, 2)).tolist() == [1.0, 1.0]
    assert cell_labels(maps, 0.35).tolist() == paper_labels(scores, 0.35).tolist() == [[0, 1, 1, 1, -1, -1, -1, -1]]
    silent = ficklenet._any_pass(ficklenet.Summary.of(iter([torch.zeros(2, 2, 3, 3)])), 0.35)
    assert not silent.any()


def test_what_is_drawn_depends_on_image_and_pass_alone(image):
    network = network_of()
    records = [ImageRecord(name, f"{name}.png", 44, 60, ("train",), (0, 2)) for name in "ab"]
    settings = FickleNetSeedSettings(4)
    inputs = SeedInputs(network, tuple(records), 3, "seeds/f")
    make = ficklenet.maker(settings, inputs)
    first = make(records[0], image)
    other = make(records[1], image)
    assert not torch.equal(first.maps[1.0], other.maps[1.0])
    assert torch.equal(make(records[0], image).maps[1.0], first.maps[1.0])
    more = ficklenet.maker(FickleNetSeedSettings(5), inputs)(records[0], image)
    assert (more.maps[1.0].sum(0) >= first.maps[1.0].sum(0) - 1e-5).all(), "the first four passes are the same"


def test_cam_and_grad_cam_read_the_plain_convolution(image):
    network = network_of()
    cam = cam_seed(network, image, CLASSES, CamSettings((1.0,)))
    with torch.no_grad():
        maps = F.conv2d(
            network.features(torch.from_numpy(scaled_pair(image, 1.0))), network.classifier.weight, padding=1
        )
    maps = maps[:, CLASSES].relu()
    torch.testing.assert_close(cam.maps[1.0], maps[0] + maps[1].flip(-1))
    assert grad_cam_seed(network, image, CLASSES, GradCamSettings(scales=(1.0,))).maps[1.0].shape == (2, 3, 4)
    with pytest.raises(UserError, match="the seed method advcam needs a 1x1 convolution"):
        advcam.maker(advcam.AdvCamSettings(), SeedInputs(network, (), 0, "seeds/advcam"))
    with pytest.raises(UserError, match="objective ficklenet, not one of kind cam"):
        ficklenet.maker(FickleNetSeedSettings(), SeedInputs(cam_network("small", 2), (), 0, "seeds/f"))


COLOURS = ((200, 40, 40), (40, 40, 200))
TRAINING = {"backbone": "small", "stride": 16, "size": 3, "epochs": 4, "batch_size": 4, "halve_every": 2}
TRAINING |= {"learning_rate": 2e-3, "dropout": 0.5, "long_side": [40, 56], "crop": 48, "frozen_stages": 0}


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    rng, records = np.random.default_rng(0), []
    for number in range(8):
        pixels = rng.integers(90, 130, (40, 48, 3), dtype=np.uint8)
        classes = ((0,), (1,), (0, 1), ())[number % 4]
        for c in classes:
            pixels[10 + 12 * c : 22 + 12 * c, 8:30] = COLOURS[c]
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        records.append(ImageRecord(str(number), str(path), 40, 48, ("train",), classes, digest=str(number)))
    return ImageTable(("red", "blue"), tuple(records))


def test_the_rate_is_halved_and_frozen_stages_are_left_out(table):
    settings = FickleNetSettings(**TRAINING | {"long_side": (40, 56), "frozen_stages": None})
    made = plan(settings, Inputs(table, None, 0, "classifiers/f"))
    assert [made.rate(step) for step in (0, 3, 4, 7)] == [1, 1, 0.5, 0.5] and len(made.batches) == 8
    assert isinstance(made.optimizer, torch.optim.Adam)
    weights = {n.removeprefix("backbone."): v for n, v in made.network.state_dict().items() if "backbone" in n}
    frozen = plan(FickleNetSettings(**TRAINING | {"frozen_stages": 3}), Inputs(table, weights, 0, "classifiers/f"))
    held = {id(p) for group in frozen.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in [*frozen.network.backbone.stages[3:].parameters(), frozen.network.classifier.weight]}


def test_steps_train_it_and_write_its_maps(table, tmp_path):
    write_table(tmp_path / "images.csv", table)
    write_manifest(tmp_path / "shard.json", table.class_names, table.records)
    train_step.run(
        config=write_step(tmp_path / "train.json", "classifiers/f", "ficklenet", "train", TRAINING),
        table=tmp_path / "images.csv",
        classifier=None,
        labels=(),
        ood=None,
        model=tmp_path / "model.pt",
        state=tmp_path / "state.pt",
        history=tmp_path / "history.csv",
        execution=Execution("cpu"),
    )
    network = open_classifier(tmp_path / "model.pt", table.class_names, torch.device("cpu"))
    assert isinstance(network, FickleNetwork) and (network.size, network.dropout) == (3, 0.5)
    maps_step.run(
        health=None,
        config=write_step(tmp_path / "maps.json", "seeds/f", "ficklenet", "maps", {"passes": 6}),
        classifier=tmp_path / "model.pt",
        manifest=tmp_path / "shard.json",
        table=tmp_path / "images.csv",
        maps=tmp_path / "maps.h5",
        cache=tmp_path / "cache.h5",
        execution=Execution("cpu"),
    )
    stored: SeedMaps = SeedStore(tmp_path / "maps.h5")["2"]
    assert stored.maps[1.0].shape == (2, 3, 3) and 0 < stored.maps[1.0].max() <= 1
    assert set(stored.statistics) == {"conflicts", "spread"}


def test_maps_are_scored_where_the_papers_rule_holds():
    """At another threshold the labels are not the rule's, so the default of the scores is that of the rule."""
    settings = {"run": "f", "dataset": {"format": "demo"}, "classifiers": {"f": {"objective": "ficklenet"}}}
    stages = load(settings | {"seeds": {"s": {"method": "ficklenet", "classifier": "f"}}}).stages.values()
    seed = next(stage for stage in stages if stage.section == "seeds").settings
    assert seed["scores"]["threshold"] == seed["maps"]["threshold"] == 0.35
