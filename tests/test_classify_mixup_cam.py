"""Mixup-CAM: mixed batches, the two regularising terms, the step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.scenes import write_step
from wsss_core.classify import bce, mixup_cam
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.classify.mixup_cam import MixupBatches, MixupCamSettings, class_entropy, concentration, mixed
from wsss_core.config import load
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.classifier import open_classifier
from wsss_core.models.embedded import EmbeddedCamNetwork
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.steps import train as train_step
from wsss_core.training import Inputs

TINY = {"backbone": "small", "epochs": 2, "batch_size": 4, "long_side": (32, 48), "crop": 32, "embedding": 16}


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    rng, records = np.random.default_rng(0), []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
        classes = ((0,), (1,), (0, 1), ())[number % 4]
        records.append(ImageRecord(str(number), str(path), 30, 40, ("train",), classes, digest=str(number)))
    return ImageTable(("cat", "dog"), tuple(records))


def plain_batches(table: ImageTable) -> ClassifierBatches:
    return bce.training_batches(MixupCamSettings(**TINY), Inputs(table, None, 0, "c"))


def test_mixing_known_answer():
    values = torch.tensor([[1.0, 0.0], [1.0, 4.0], [0.0, 8.0]])
    result = mixed(values, torch.tensor([0.25, 1.0, 0.5]))
    assert result.tolist() == [[1.0, 3.0], [1.0, 4.0], [0.5, 4.0]]


def test_batches_are_mixed_and_depend_on_their_step_alone(table):
    plain, batches = plain_batches(table), MixupBatches(plain_batches(table), 0.2)
    assert len(batches) == len(plain) == 4
    images, labels = batches[3]
    shares = batches.shares(3)
    for place, share in enumerate(shares.tolist()):
        for found, (one, two) in zip((images, labels), ((v[place], v[(place + 1) % 4]) for v in plain[3]), strict=True):
            torch.testing.assert_close(found[place], share * one + (1 - share) * two)
    batches[0], batches[1]
    assert torch.equal(images, batches[3][0]) and torch.equal(labels, batches[3][1])
    assert not np.array_equal(shares, batches.shares(2))
    with pytest.raises(IndexError):
        batches[4]


def test_shares_follow_the_beta_distribution(table):
    batches = MixupBatches(plain_batches(table), 0.2)
    shares = np.concatenate([batches.shares(step) for step in range(1000)])
    assert shares.dtype == np.float32 and shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)


def test_entropy_against_a_loop():
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3
    total = 0.0
    for b in range(2):
        for h in range(4):
            for w in range(5):
                scores = [1 / (1 + math.exp(-float(maps[b, c, h, w]))) for c in range(3)]
                exponentials = [math.exp(s / max(scores)) for s in scores]
                shares = [e / sum(exponentials) for e in exponentials]
                total -= sum(p * math.log(p) for p in shares)
    assert float(class_entropy(maps)) == pytest.approx(total / (2 * 4 * 5), rel=1e-5)
    assert float(class_entropy(torch.zeros(1, 4, 2, 2))) == pytest.approx(math.log(4))


def test_entropy_where_all_probabilities_are_too_small_for_a_float():
    maps = torch.full((1, 3, 1, 1), -200.0)
    maps[0, 0] = -199.0  # quotients of the sigmoids: 1, 1/e and 1/e
    maps.requires_grad_(True)
    entropy = class_entropy(maps)
    exponentials = [math.exp(1), math.exp(1 / math.e), math.exp(1 / math.e)]
    shares = [e / sum(exponentials) for e in exponentials]
    assert float(entropy.detach()) == pytest.approx(-sum(p * math.log(p) for p in shares), rel=1e-5)
    entropy.backward()
    assert torch.isfinite(maps.grad).all()


def test_concentration_by_hand():
    maps = torch.full((2, 2, 3, 5), -1.0)
    maps[0, 0, 0, 1] = maps[0, 0, 2, 1] = 6.0  # two equal cells, two rows apart: one square cell
    maps[0, 1, 1, 0], maps[0, 1, 1, 4] = 9.0, 3.0  # shares 3/4 and 1/4, four columns apart: 16 * 3/16
    maps[1, 0, 0, 0] = 5.0  # one cell; its second class has none
    both = torch.tensor([[True, True], [True, True]])
    assert float(concentration(maps, both)) == pytest.approx((1 + 3 + 0 + 0) / 2, rel=1e-4)
    first = torch.tensor([[True, False], [False, False]])
    assert float(concentration(maps, first)) == pytest.approx(1 / 2, rel=1e-4)


def test_terms_have_gradients():
    maps = torch.randn(2, 3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    present = torch.tensor([[True, False, True], [False, True, True]])
    assert torch.autograd.gradcheck(class_entropy, (maps,))
    assert torch.autograd.gradcheck(lambda m: concentration(m, present), (maps,))


def test_loss_is_the_weighted_sum():
    network = EmbeddedCamNetwork(mixup_cam.backbone("small"), 3, 16)
    settings = MixupCamSettings(entropy_weight=0.5, concentration_weight=0.25)
    images, labels = torch.randn(2, 3, 32, 48), torch.tensor([[0.3, 0.0, 1.0], [0.0, 0.7, 0.0]])
    terms = mixup_cam.loss(network, settings)((images, labels))
    maps = network.maps(images)
    expected = {
        "classification": F.binary_cross_entropy_with_logits(network(images), labels),
        "entropy": class_entropy(maps),
        "concentration": concentration(maps, torch.tensor([[True, False, True], [False, True, False]])),
    }
    expected["loss"] = expected["classification"] + 0.5 * expected["entropy"] + 0.25 * expected["concentration"]
    torch.testing.assert_close(terms, expected, check_device=False)
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(("name", "frozen"), [("small", 0), ("mobilenet_v2", 5)])
def test_plan_on_backbones(table, name, frozen):
    settings = MixupCamSettings(**TINY | {"backbone": name, "frozen_stages": frozen})
    plan = mixup_cam.plan(settings, Inputs(table, None, 0, "c"))
    assert isinstance(plan.optimizer, torch.optim.Adam)
    assert plan.loss(plan.batches[0])["loss"].isfinite()
    held = {id(p) for group in plan.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in plan.network.parameters() if p.requires_grad}
    assert plan.rate(0) == 1 and plan.rate(3) == pytest.approx(0.25**0.9)


def test_sgd_is_there_too(table):
    settings = MixupCamSettings(**TINY, optimizer="sgd", learning_rate=0.01, classifier_rate=10.0)
    optimizer = mixup_cam.plan(settings, Inputs(table, None, 0, "c")).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1])
    assert all(group["momentum"] == group["weight_decay"] == 5e-4 for group in optimizer.param_groups)


@pytest.mark.parametrize(("embedding", "width"), [(16, 16), (None, 160)])
def test_embedded_network_is_a_cam_network(embedding, width):
    network = EmbeddedCamNetwork(mixup_cam.backbone("small"), 3, embedding).eval()
    images = torch.randn(2, 3, 33, 48)
    assert network.features(images).shape == (2, width, 3, 3)
    torch.testing.assert_close(network(images), network.maps(images).mean((2, 3)))
    torch.testing.assert_close(network.maps(images, [2]), network.maps(images)[:, 2:])
    torch.testing.assert_close(network.trunk(network.prefix(images)), network.features(images))
    count = len(list(network.backbone.stages[3:].parameters())) + (2 if embedding else 0)
    assert len(list(network.trunk_parameters())) == count


def train(folder: Path, table: ImageTable, name: str, **settings) -> Path:
    write_table(folder / "images.csv", table)
    train_step.run(
        config=write_step(folder / "step.json", "classifiers/mixup", "mixup_cam", "train", TINY | settings),
        table=folder / "images.csv",
        classifier=None,
        labels=(),
        ood=None,
        model=folder / f"{name}.pt",
        state=folder / "state.pt",
        history=folder / f"{name}.csv",
        execution=Execution("cpu"),
    )
    return folder / f"{name}.pt"


def test_step(table, tmp_path):
    one = train(tmp_path, table, "one")
    assert one.read_bytes() == train(tmp_path, table, "two").read_bytes()
    assert one.read_bytes() != train(tmp_path, table, "three", alpha=1.0).read_bytes()
    header = (tmp_path / "one.csv").read_text().splitlines()[0]
    assert header == "step,rate,loss,classification,entropy,concentration"
    network = open_classifier(one, ("cat", "dog"), torch.device("cpu"))
    assert isinstance(network, EmbeddedCamNetwork) and network.features(torch.zeros(1, 3, 32, 32)).shape[1] == 16
    maps = cam_seed(network, np.zeros((40, 48, 3), dtype=np.uint8), [1], CamSettings(scales=(1.0, 0.5)))
    assert maps.maps[1.0].shape == (1, 3, 3)


def test_mistakes_are_named():
    classifier = {"objective": "mixup_cam", "alpha": 0}
    with pytest.raises(UserError, match=r"classifiers.m.alpha: 0.* is not allowed; allowed: number > 0"):
        load({"dataset": {"format": "demo"}, "classifiers": {"m": classifier}})
    with pytest.raises(UserError, match="classifiers.m.colour_jitter"):
        load({"dataset": {"format": "demo"}, "classifiers": {"m": {"objective": "bce", "colour_jitter": [0.3, 0.3]}}})
