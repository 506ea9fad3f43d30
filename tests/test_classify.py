"""Classifier training: batches, loss, optimiser, the step."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.scenes import write_step
from wsss_core import training
from wsss_core.classify import bce
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.data.augment import multi_hot, normalise, training_crop
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.kept import kept
from wsss_core.models import cam_network
from wsss_core.steps import train as train_step
from wsss_core.store.checkpoints import load_network
from wsss_core.training import Inputs

COLOURS = ((200, 40, 40), (40, 40, 200))


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    rng, records = np.random.default_rng(0), []
    for number in range(10):
        image = rng.integers(90, 130, (40, 48, 3), dtype=np.uint8)
        classes = ((0,), (1,), (0, 1), ())[number % 4]
        for c in classes:
            image[10 + 12 * c : 22 + 12 * c, 8:30] = COLOURS[c]
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        records.append(ImageRecord(str(number), str(path), 40, 48, ("train",), classes, digest=str(number)))
    return ImageTable(("red", "blue"), tuple(records))


def batches_of(table: ImageTable, **changes) -> ClassifierBatches:
    settings = {"epochs": 3, "batch_size": 4, "long_side": (40, 60), "crop": 48, "seed": 0, "stage": "c"} | changes
    return ClassifierBatches(table.records, 2, **settings)


def test_batches_depend_on_their_step_alone(table):
    one, two = batches_of(table), batches_of(table)
    images, labels = one[5]
    assert images.shape == (4, 3, 48, 48) and images.dtype == torch.float32 and labels.shape == (4, 2)
    two[0], two[3]
    assert torch.equal(images, two[5][0]) and torch.equal(labels, two[5][1])
    assert not torch.equal(images, batches_of(table, seed=1)[5][0])
    with pytest.raises(IndexError):
        one[6]


def test_an_epoch_drops_the_incomplete_batch_and_repeats_nothing(table):
    batches = batches_of(table)
    assert len(batches) == 6
    epochs = [[i for step in (2 * e, 2 * e + 1) for i in batches.indices(step)] for e in range(3)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_data_takes_all_of_it_and_says_so(table, caplog):
    batches = batches_of(table, batch_size=11)
    assert len(batches) == 3 and sorted(batches.indices(0)) == list(range(len(table.records)))
    assert "batch_size: 11 images a step, but there are only" in caplog.text


def test_crop_shows_the_resized_image_or_the_mean_colour():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    crop = training_crop(image, (30, 30), 40, np.random.default_rng(1))
    shown = np.argwhere((crop != 0).any(0))
    (top, left), (bottom, right) = shown.min(0), shown.max(0) + 1
    inside = crop[:, top:bottom, left:right]
    assert inside.shape == (3, 20, 30)
    assert np.array_equal(inside, normalise(image)) or np.array_equal(inside[..., ::-1], normalise(image))
    assert crop[:, :, :left].any() == 0 and crop[:, bottom:].any() == 0


def test_an_unreadable_image_is_named(table, tmp_path):
    (tmp_path / "3.png").write_bytes(b"nothing")
    batches = batches_of(table)
    with pytest.raises(UserError, match="image '3': .*3.png"):
        for step in range(len(batches)):
            batches[step]


def test_loss_is_the_multilabel_soft_margin():
    network = cam_network("small", 3)
    images, labels = torch.randn(4, 3, 40, 40), multi_hot([(0,), (1, 2), (), (2,)], 3)
    loss = bce.loss(network)((images, labels))["loss"]
    torch.testing.assert_close(loss, F.multilabel_soft_margin_loss(network(images), labels))


def test_dropout_is_that_of_pooled_features_in_training_only():
    torch.manual_seed(0)
    network = cam_network("small", 3)
    images, labels = torch.randn(4, 3, 40, 40), multi_hot([(0,), (1, 2), (), (2,)], 3)
    terms = bce.loss(network, 0.5)
    torch.manual_seed(1)
    found = terms((images, labels))["loss"]
    torch.manual_seed(1)
    pooled = F.dropout(network.features(images).mean((2, 3)), 0.5)
    expected = F.multilabel_soft_margin_loss(pooled @ network.classifier.weight[:, :, 0, 0].T, labels)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, terms((images, labels))["loss"])
    network.eval()
    torch.testing.assert_close(terms((images, labels))["loss"], bce.loss(network)((images, labels))["loss"])


def test_optimiser_is_the_published_one():
    """One step on a frozen-prefix network: SGD whose momentum is the weight decay, classifier at ten times."""
    published = bce.BceSettings(frozen_stages=3, learning_rate=0.1, classifier_rate=10.0, momentum=1e-4)
    network = cam_network("mobilenet_v2", 2)
    bce.prepare(network, published, None)
    optimizer = bce.optimizer(network, published)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    assert all(group["momentum"] == group["weight_decay"] == 1e-4 for group in optimizer.param_groups)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in [*network.backbone.stages[3:].parameters(), *network.classifier.parameters()]}
    legacy = torch.nn.Parameter(torch.tensor(2.0))
    ours = torch.nn.Parameter(torch.tensor(2.0))
    one = torch.optim.SGD([legacy], 0.1, 1e-4, weight_decay=1e-4)  # the third positional argument is the momentum
    two = torch.optim.SGD([ours], lr=0.1, momentum=published.momentum, weight_decay=1e-4)
    for _ in range(3):
        for parameter, optimizer in ((legacy, one), (ours, two)):
            optimizer.zero_grad()
            parameter.square().backward()
            optimizer.step()
    assert torch.equal(legacy, ours)


def test_frozen_stages_follow_the_weights(table):
    random = bce.plan(bce.BceSettings(backbone="mobilenet_v2", batch_size=2), Inputs(table, None, 0, "c")).network
    assert all(p.requires_grad for p in random.parameters())
    weights = random_state("mobilenet_v2")
    few = bce.plan(bce.BceSettings(backbone="mobilenet_v2", batch_size=2), Inputs(table, weights, 0, "c")).network
    assert [name for name, p in few.named_parameters() if p.requires_grad] == ["classifier.weight"]
    some = bce.BceSettings(backbone="mobilenet_v2", batch_size=2, frozen_stages=4)
    stages = bce.plan(some, Inputs(table, weights, 0, "c")).network.backbone.stages
    assert [all(p.requires_grad for p in stage.parameters()) for stage in stages] == [False] * 4 + [True]


def test_many_images_train_the_last_stages_of_the_backbone(table, monkeypatch):
    monkeypatch.setattr(bce, "FEW", len(table.records))
    settings = bce.BceSettings(backbone="mobilenet_v2", batch_size=2)
    stages = bce.plan(settings, Inputs(table, random_state("mobilenet_v2"), 0, "c")).network.backbone.stages
    assert [all(p.requires_grad for p in stage.parameters()) for stage in stages] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("name", "rates"),
    [("resnet50", [0.01, 0.1]), ("mobilenet_v2", [0.01, 0.1]), ("vgg16", [0.001, 0.1]), ("small", [0.05, 0.1])],
)
def test_rates_are_the_backbones_own_unless_given(name, rates):
    network = cam_network(name, 2)
    assert [group["lr"] for group in bce.parameter_groups(network, bce.BceSettings())] == pytest.approx(rates)
    for multiple, expected in ((3.0, 0.6), (None, 2.0)):
        given = bce.BceSettings(learning_rate=0.2, classifier_rate=multiple)
        assert [group["lr"] for group in bce.parameter_groups(network, given)] == pytest.approx([0.2, expected])


def test_few_images_take_enough_steps_unless_the_epochs_are_given(table):
    def steps(**settings):
        return len(
            bce.plan(bce.BceSettings(backbone="small", batch_size=2, **settings), Inputs(table, None, 0, "c")).batches
        )

    per_epoch = len(table.records) // 2
    assert 100 <= steps() < 100 + per_epoch and steps(epochs=3) == 3 * per_epoch


def test_what_was_computed_of_the_images_is_kept_for_the_same_inputs(tmp_path):
    first = kept(tmp_path / "a.pt", "one", lambda: {"x": torch.arange(3)})
    again = kept(tmp_path / "a.pt", "one", lambda: {"x": torch.zeros(3)})
    assert torch.equal(first["x"], again["x"]) and again["x"].tolist() == [0, 1, 2]
    assert kept(tmp_path / "a.pt", "two", lambda: {"x": torch.ones(2)})["x"].tolist() == [1, 1]
    assert kept(tmp_path / "a.pt", "two", lambda: {})["x"].tolist() == [1, 1]


def random_state(name: str) -> dict:
    return cam_network(name, 2).backbone.state_dict()


def step_file(folder: Path, stage: str = "classifiers/bce", **settings) -> Path:
    content = {"backbone": "small", "epochs": 8, "batch_size": 5, "learning_rate": 0.05, "long_side": [40, 56]}
    content |= {"crop": 48, "classifier_rate": 1.0, "momentum": 0.9} | settings
    return write_step(folder / "step.json", stage, "bce", "train", content, key=stage.partition("@")[0])


def train(folder: Path, table: ImageTable, name: str, **settings) -> Path:
    write_table(folder / "images.csv", table)
    train_step.run(
        config=step_file(folder, **settings),
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


def test_variants_of_a_sweep_draw_alike(table, tmp_path):
    """With the same settings they would be the same network; a stage with another name is not."""
    stages = ("classifiers/bce@momentum=0.9", "classifiers/bce@momentum=0.5", "classifiers/other")
    networks = [
        load_network(train(tmp_path, table, str(k), stage=stage, epochs=1), "classifier")[0]
        for k, stage in enumerate(stages)
    ]
    one, two, other = (torch.cat([weights.flatten().double() for weights in n.values()]) for n in networks)
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_step_learns_and_repeats_itself(table, tmp_path):
    one = train(tmp_path, table, "one", epochs=30)
    state, meta = load_network(one, "classifier")
    assert meta["backbone"] == "small" and meta["class_names"] == ["red", "blue"]
    network = cam_network("small", 2, state).eval()
    with torch.no_grad():
        images = [normalise(np.asarray(Image.open(r.path))) for r in table.records]
        found = network(torch.from_numpy(np.stack(images))) > 0
    assert torch.equal(found.float(), multi_hot([r.classes for r in table.records], 2))
    assert (tmp_path / "one.csv").read_text().startswith("step,rate,loss")
    assert (
        train(tmp_path, table, "two", epochs=2).read_bytes() == train(tmp_path, table, "three", epochs=2).read_bytes()
    )


def test_what_a_training_is_resumed_from_stays_until_its_files_are_written(table, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", partial(training.fit, save_seconds=0.0))
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(train_step, "save_network", killed)
        train(tmp_path, table, "a", epochs=2)
    assert (tmp_path / "state.pt").exists()
    train(tmp_path, table, "b", epochs=2)
    assert not (tmp_path / "state.pt").exists()


def test_step_names_what_is_wrong(table, tmp_path):
    with pytest.raises(UserError, match="absent.pth: weight file not found"):
        train(tmp_path, table, "a", weights=str(tmp_path / "absent.pth"))
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="do not fit the backbone small"):
        train(tmp_path, table, "a", weights=str(tmp_path / "other.pth"))
    empty = ImageTable(table.class_names, ())
    with pytest.raises(UserError, match="no image plays the role 'train'"):
        train(tmp_path, empty, "a")
    untagged = ImageTable(table.class_names, tuple(r for r in table.records if not r.classes) * 3)
    with pytest.raises(UserError, match="has a class"):
        train(tmp_path, untagged, "a")
