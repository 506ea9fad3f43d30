"""SC-CAM: sub-categories by clustering, rounds, the loss of both heads, the step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.scenes import write_step
from wsss_core.classify import bce, sc_cam
from wsss_core.classify.sc_cam import ScCamSettings, subclass_labels
from wsss_core.config import load
from wsss_core.data.augment import multi_hot, normalise
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.classifier import open_classifier
from wsss_core.models import cam_network, restore_classifier
from wsss_core.models.backbones import backbone
from wsss_core.models.cam import pooled_features
from wsss_core.models.sc_cam import ScCamNetwork
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.steps import train as train_step
from wsss_core.training import Inputs, polynomial

TINY = {"backbone": "small", "batch_size": 4, "long_side": (32, 48), "crop": 32, "clusters": 2}


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    rng, records = np.random.default_rng(0), []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        height = 30 + number
        Image.fromarray(rng.integers(0, 256, (height, 40, 3), dtype=np.uint8)).save(path)
        classes = ((0,), (1,), (0, 1), ())[number % 4]
        records.append(ImageRecord(str(number), str(path), height, 40, ("train",), classes, digest=str(number)))
    return ImageTable(("cat", "dog"), tuple(records))


def inputs_of(table: ImageTable, **changes) -> Inputs:
    torch.manual_seed(0)
    return replace(Inputs(table, None, 0, "c", classifier=cam_network("small", 2).eval()), **changes)


def network_of(n_classes: int = 2, **settings) -> ScCamNetwork:
    return ScCamNetwork(backbone("small"), n_classes, **settings)


def test_clusters_of_separate_groups_are_found():
    """Class 0: groups around 0 and 10; class 1: around 0, 10 and -10, sharing an image with class 0."""
    centres = [0, 10, 0, 10, -10, 0, 10]
    classes = [(0,), (0,), (0, 1), (0, 1), (1,), (1,), ()]
    noise = np.random.default_rng(0).normal(0, 0.1, (7, 4))
    features = (np.array(centres)[:, None] + noise).astype(np.float32)
    found = subclass_labels(features, multi_hot(classes, 3), 3, 0, "c").unflatten(1, (3, 3))
    assert found.dtype == torch.float32
    assert torch.equal(found.sum(2), multi_hot(classes, 3))  # one sub-category of every class, none of another
    ofclass = [{tuple(torch.nonzero(found[:, c, k])[:, 0].tolist()) for k in range(3)} - {()} for c in range(3)]
    assert ofclass[1] == {(2, 5), (3,), (4,)}
    assert ofclass[2] == set()
    halves = subclass_labels(features, multi_hot(classes, 3), 2, 0, "c").unflatten(1, (3, 2))
    assert {tuple(torch.nonzero(halves[:, 0, k])[:, 0].tolist()) for k in range(2)} == {(0, 2), (1, 3)}


def test_clusters_never_outnumber_images():
    features = np.array([[0.0], [4.0], [4.0], [9.0]], dtype=np.float32)
    labels = multi_hot([(0,), (0,), (0,), (1,)], 3)
    found = subclass_labels(features, labels, 10, 0, "c").unflatten(1, (3, 10))
    assert found[:, 0].sum(0).tolist() in ([1, 2] + [0] * 8, [2, 1] + [0] * 8)  # equal features stay together
    assert torch.equal(found[1, 0], found[2, 0]) and not torch.equal(found[0, 0], found[1, 0])
    assert found[:, 1].sum() == found[3, 1, 0] == 1
    assert found[:, 2].sum() == 0


def test_clusters_depend_on_their_key_alone():
    features = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    labels = torch.ones(60, 1)
    one = subclass_labels(features, labels, 10, 0, "c")
    assert torch.equal(one, subclass_labels(features, labels, 10, 0, "c"))
    assert not torch.equal(one, subclass_labels(features, labels, 10, 1, "c"))
    assert (one.sum(0) > 0).all()


def test_features_are_those_of_the_whole_image(table):
    network = cam_network("small", 2).eval()
    images = [np.asarray(Image.open(r.path)) for r in table.records]
    found = pooled_features(network, images)
    assert found.shape == (9, 160) and found.dtype == np.float32
    for row, image in zip(found, images, strict=True):
        with torch.no_grad():
            expected = network.features(torch.from_numpy(normalise(image))[None])[0].mean((1, 2))
        np.testing.assert_allclose(row, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_loss_is_the_weighted_sum_of_two_soft_margins():
    network = network_of(3, clusters=4).eval()
    images, labels = torch.randn(2, 3, 32, 48), multi_hot([(0, 2), (1,)], 3)
    sublabels = multi_hot([(1, 11), (4,)], 12)
    terms = sc_cam.loss(network, ScCamSettings())((images, labels, sublabels))
    pooled = network.features(images).mean((2, 3))
    expected = {
        "classes": F.multilabel_soft_margin_loss(pooled @ network.classifier.weight[:, :, 0, 0].T, labels),
        "subclasses": F.multilabel_soft_margin_loss(pooled @ network.subclassifier.weight[:, :, 0, 0].T, sublabels),
    }
    torch.testing.assert_close(terms, expected | {"loss": expected["classes"] + 5 * expected["subclasses"]})
    torch.testing.assert_close(network(images), network.heads(pooled)[0])


def test_dropout_drops_features_in_training_only():
    network = network_of()
    batch = (torch.randn(2, 3, 32, 32), torch.ones(2, 2), torch.ones(2, 20))
    terms = sc_cam.loss(network, ScCamSettings(dropout=0.9))
    without = sc_cam.loss(network, ScCamSettings(dropout=0.0))
    assert terms(batch)["loss"] != without(batch)["loss"]
    network.eval()
    assert terms(batch)["loss"] == without(batch)["loss"]


@pytest.mark.parametrize(("before", "rounds", "epochs"), [(None, 1, 31), (1, 2, 41), (2, 3, 51), (3, 4, 51)])
def test_rounds_have_their_published_epochs(table, before, rounds, epochs):
    classifier = network_of(rounds=before).eval() if before else cam_network("small", 2).eval()
    plan = sc_cam.plan(ScCamSettings(**TINY | {"batch_size": 1}), inputs_of(table, classifier=classifier))
    assert plan.network.rounds == rounds
    assert len(plan.batches) == 9 * epochs
    rate = polynomial(9 * 61)
    assert [plan.rate(k) for k in (0, 1, len(plan.batches) - 1)] == [rate(k) for k in (0, 1, len(plan.batches) - 1)]


def test_few_images_stretch_the_whole_schedule(table):
    plan = sc_cam.plan(ScCamSettings(**TINY), inputs_of(table))
    rate = polynomial(2 * (61 * 50 // 31))
    assert len(plan.batches) == 2 * 50 and plan.rate(99) == rate(99)


def test_a_shorter_training_is_the_beginning_of_a_longer_one(table):
    short, long = (
        sc_cam.plan(ScCamSettings(**TINY, epochs=epochs, schedule_epochs=3), inputs_of(table)) for epochs in (2, 3)
    )
    assert (len(short.batches), len(long.batches)) == (4, 6)
    for step in range(4):
        assert short.rate(step) == long.rate(step)
        for one, two in zip(short.batches[step], long.batches[step], strict=True):
            assert torch.equal(one, two)


def test_sub_categories_go_with_their_images(table):
    plan = sc_cam.plan(ScCamSettings(**TINY, epochs=1), inputs_of(table))
    images, labels, sublabels = plan.batches[1]
    assert images.shape == (4, 3, 32, 32)
    assert torch.equal(sublabels.unflatten(1, (2, 2)).sum(2), labels)
    assert torch.equal(sublabels, plan.batches.sublabels[plan.batches.batches.indices(1)])


def test_variants(table):
    official = sc_cam.plan(ScCamSettings(**TINY), inputs_of(table))
    assert isinstance(official.optimizer, torch.optim.SGD) and official.network.classifier.in_channels == 160
    assert [group["lr"] for group in official.optimizer.param_groups] == pytest.approx([0.01, 0.1])
    assert all(group["momentum"] == group["weight_decay"] == 5e-4 for group in official.optimizer.param_groups)
    paper = sc_cam.plan(ScCamSettings(**TINY, variant="paper"), inputs_of(table))
    assert isinstance(paper.optimizer, torch.optim.Adam) and paper.network.classifier.in_channels == 512
    assert [group["lr"] for group in paper.optimizer.param_groups] == pytest.approx([1e-3, 1e-3])
    for plan in (official, paper):
        held = {id(p) for group in plan.optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in plan.network.parameters()}
    changed = sc_cam.plan(ScCamSettings(**TINY, learning_rate=0.5, classifier_rate=2.0), inputs_of(table))
    assert [group["lr"] for group in changed.optimizer.param_groups] == [0.5, 1.0]


def test_a_round_of_the_paper_goes_on_from_the_network_before_and_one_of_the_code_starts_anew(table):
    def common(network, before):
        mine, theirs = network.state_dict(), before.state_dict()
        return {name.split(".")[0] for name in mine if name in theirs and torch.equal(mine[name], theirs[name])}

    plain = cam_network("small", 2)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.5)
    first = sc_cam.plan(ScCamSettings(**TINY, variant="paper"), inputs_of(table, classifier=plain.eval())).network
    assert common(first, plain) == {"backbone"}, "a plain classifier has no 3x3 convolution for H_p to go with"
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.5)
    second = sc_cam.plan(ScCamSettings(**TINY, variant="paper"), inputs_of(table, classifier=first.eval())).network
    assert common(second, first) == {"backbone", "embedding", "classifier"}, "groups are numbered anew"
    assert all(torch.equal(second.state_dict()[k], v) for k, v in first.state_dict().items() if "sub" not in k)
    official = sc_cam.plan(ScCamSettings(**TINY), inputs_of(table, classifier=plain)).network
    assert not {name for name, p in official.named_parameters() if torch.equal(p, plain.state_dict().get(name, p + 1))}
    other = cam_network("mobilenet_v2", 2).eval()
    with pytest.raises(UserError, match="backbone: small, but `init` names a classifier with mobilenet_v2"):
        sc_cam.plan(ScCamSettings(**TINY, variant="paper"), inputs_of(table, classifier=other))


@pytest.mark.parametrize("embedding", [None, 24])
def test_checkpoints_open_as_the_same_network(embedding):
    network = network_of(3, embedding=embedding, clusters=5, rounds=2)
    again = restore_classifier(network.state_dict(), network.about | {"class_names": ["a", "b", "c"]})
    assert isinstance(again, ScCamNetwork) and again.architecture_settings == network.architecture_settings
    assert (again.clusters, again.rounds, again.n_classes) == (5, 2, 3)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


def train(folder: Path, table: ImageTable, name: str, method: str, classifier: Path | None, **settings) -> Path:
    write_table(folder / "images.csv", table)
    train_step.run(
        config=write_step(folder / "step.json", f"classifiers/{name}", method, "train", settings),
        table=folder / "images.csv",
        classifier=classifier,
        labels=(),
        ood=None,
        model=folder / f"{name}.pt",
        state=folder / "state.pt",
        history=folder / f"{name}.csv",
        execution=Execution("cpu"),
    )
    return folder / f"{name}.pt"


def test_two_rounds_as_stages(table, tmp_path):
    plain = {key: value for key, value in TINY.items() if key != "clusters"}
    first = train(tmp_path, table, "bce", "bce", None, **plain, epochs=1, learning_rate=0.01)
    one = train(tmp_path, table, "sc1", "sc_cam", first, **TINY, epochs=2)
    two = train(tmp_path, table, "sc2", "sc_cam", one, **TINY, epochs=2)
    bytes_before = two.read_bytes()
    assert train(tmp_path, table, "sc2", "sc_cam", one, **TINY, epochs=2).read_bytes() == bytes_before
    assert (tmp_path / "sc2.csv").read_text().startswith("step,rate,loss,classes,subclasses")
    network = open_classifier(two, ("cat", "dog"), torch.device("cpu"))
    assert isinstance(network, ScCamNetwork) and (network.rounds, network.clusters) == (2, 2)
    maps = cam_seed(network, np.zeros((40, 48, 3), dtype=np.uint8), [1], CamSettings(scales=(1.0,)))
    assert maps.maps[1.0].shape == (1, 3, 3)


def test_a_resumed_round_goes_on_with_its_sub_categories(table, tmp_path, monkeypatch):
    """Killed before its first step, and resumed where other features, and so other clusters, would come out."""
    plain = {key: value for key, value in TINY.items() if key != "clusters"}
    first = train(tmp_path, table, "bce", "bce", None, **plain, epochs=1, learning_rate=0.01)
    expected = train(tmp_path, table, "sc", "sc_cam", first, **TINY, epochs=2).read_bytes()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_step.training, "fit", killed)
        train(tmp_path, table, "sc", "sc_cam", first, **TINY, epochs=2)
    other = np.random.default_rng(0).normal(size=(9, 160)).astype(np.float32)
    monkeypatch.setattr(sc_cam, "pooled_features", lambda *_: other)
    assert train(tmp_path, table, "sc", "sc_cam", first, **TINY, epochs=2).read_bytes() == expected
    assert train(tmp_path, table, "sc", "sc_cam", first, **TINY, epochs=2).read_bytes() != expected, "nothing is left"


def test_mistakes_are_named(table, tmp_path):
    with pytest.raises(UserError, match="absent.pt: checkpoint not found"):
        train(tmp_path, table, "sc", "sc_cam", tmp_path / "absent.pt", **TINY)
    with pytest.raises(UserError, match="schedule_epochs: 20, but the training takes 31 epochs"):
        sc_cam.plan(ScCamSettings(**TINY, schedule_epochs=20), inputs_of(table))
    config = {"dataset": {"format": "demo"}, "classifiers": {"sc1": {"objective": "sc_cam"}}}
    with pytest.raises(UserError, match="classifiers.sc1.init: is missing"):
        load(config)
    config["classifiers"] = {
        "bce": {"objective": "bce"},
        "sc1": {"objective": "sc_cam", "init": "bce"},
        "sc2": {"objective": "sc_cam", "init": "sc1"},
    }
    assert load(config).stages["sc2"].upstream == {"init": "sc1"}


def test_defaults_of_the_batches_are_psas(table):
    batches = bce.training_batches(replace(ScCamSettings(**TINY), epochs=1), inputs_of(table))
    assert batches.colour_jitter == (0.3, 0.3, 0.3, 0.1)
    assert bce.BceSettings().colour_jitter is None
    assert (ScCamSettings().crop, ScCamSettings().long_side, ScCamSettings().schedule_epochs) == (224, (256, 512), 61)
    without = replace(ScCamSettings(**TINY), epochs=1, colour_jitter=None)
    assert not torch.equal(batches[0][0], bce.training_batches(without, inputs_of(table))[0][0])
    assert torch.equal(
        batches[0][0],
        bce.training_batches(replace(without, colour_jitter=(0.3, 0.3, 0.3, 0.1)), inputs_of(table))[0][0],
    )
