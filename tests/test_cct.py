"""CCT and its baseline: which masks reach which decoder, what a step sees, and the steps on files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.scenes import kill_segmentation_at, write_step
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.evaluate import confusion, metrics
from wsss_core.execution import Execution
from wsss_core.models.backbones import backbone
from wsss_core.models.cct import CctNetwork, Decoder
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.segment import pseudo_label
from wsss_core.segment.cct import (
    CctSettings,
    DecoderSettings,
    auxiliary_losses,
    loss_terms,
    optimizer,
    sigmoid_ramp,
    supervised_loss,
)
from wsss_core.segment.predict import load_segmenter, predict_probabilities
from wsss_core.segment.samples import Sample
from wsss_core.segment.semi_supervised import PairedBatches, divided
from wsss_core.settings import from_mapping
from wsss_core.steps import predictions
from wsss_core.steps import train as train_step
from wsss_core.store.checkpoints import load_network
from wsss_core.store.masks import mask_name, read_mask, write_mask
from wsss_core.training import Inputs

CPU = Execution("cpu")
ONE = dict.fromkeys(vars(DecoderSettings()), 1)
TINY = {
    "backbone": "small",
    "channels": 16,
    "decoders": ONE,
    "iterations": 6,
    "batch_size": 2,
    "crop": 48,
    "scales": [1.0],
    "cut_out_points": 5,
    "learning_rate": 0.05,
    "backbone_rate": 1.0,
}
SETTINGS = from_mapping(CctSettings, TINY)
LABELLED = ("s/0", "s/3", "s/5")


# --- network ---


@pytest.mark.parametrize("name", ["small", "mobilenet_v2", "vgg16"])
@pytest.mark.parametrize("stride", [8, 16])
def test_logits_lie_on_the_pixels_of_the_image(name, stride):
    network = CctNetwork(backbone(name, output_stride=stride), 3, 8, {}).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 67, 50)).shape == (1, 3, 67, 50)


def test_a_decoder_without_training_enlarges_the_rectified_labels():
    torch.manual_seed(0)
    decoder, features = Decoder(6, 4, 3), torch.randn(1, 6, 3, 2)
    expected = F.interpolate(decoder[0](features).relu(), scale_factor=8, mode="nearest")
    assert torch.equal(decoder(features), expected) and expected.any()


def test_published_decoders_are_thirty():
    network = CctNetwork(backbone("small"), 21, 8, vars(DecoderSettings()))
    assert len(network.auxiliary) == len(network.kinds) == 30
    assert [network.kinds.count(kind) for kind in dict.fromkeys(network.kinds)] == [6, 6, 6, 6, 2, 2, 2]


# --- losses ---


def crops(labels: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    images = torch.randint(256, (len(labels), 48, 48, 3), generator=torch.Generator().manual_seed(seed)).byte()
    inside, unknown = torch.tensor([[0, 48, 0, 48]] * len(labels)), torch.zeros(len(labels), 3, dtype=torch.bool)
    return {"images": images, "inside": inside, "labels": labels.byte(), "unknown": unknown}


@pytest.fixture
def batch() -> dict:
    labels = torch.zeros(2, 48, 48)
    labels[:, 10:30, 10:40] = torch.tensor([1, 2]).view(2, 1, 1)
    labels[:, :5] = 255
    return {"labelled": crops(labels, 0), "unlabelled": crops(labels.flip(0), 1), "step": 6}


@pytest.fixture
def network() -> CctNetwork:
    torch.manual_seed(0)
    return CctNetwork(backbone("small", output_stride=8), 3, 16, ONE).train()


def gradients(network: CctNetwork, part: str) -> torch.Tensor:
    module = getattr(network, part)
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
    return torch.cat([gradient.flatten() for gradient in found])


def backward(network: CctNetwork, batch: dict, **changes) -> dict[str, torch.Tensor]:
    network.zero_grad()
    torch.manual_seed(5)
    terms = loss_terms(network, batch, replace(SETTINGS, **changes))
    terms["loss"].backward()
    return terms


def test_pseudo_masks_and_consistency_never_reach_the_main_decoder(network, batch):
    """Its gradient is that of the true masks alone, to the bit, whatever the pseudo-masks and the weights are."""
    alone = backward(network, {name: part for name, part in batch.items() if name != "unlabelled"})
    expected = {part: gradients(network, part) for part in ("decoder", "pyramid", "auxiliary")}
    assert expected["decoder"].any() and not expected["auxiliary"].any()
    other = {**batch, "unlabelled": crops(torch.randint(3, (2, 48, 48)), 1)}
    for given in (batch, other):
        both = backward(network, given)
        assert torch.equal(gradients(network, "decoder"), expected["decoder"])
        assert not torch.equal(gradients(network, "pyramid"), expected["pyramid"])  # the encoder learns from both
        assert gradients(network, "auxiliary").any()
        assert both["supervised"] == alone["loss"] and both["weak"] > 0 and both["consistency"] > 0


def test_the_main_decoder_gets_no_gradient_as_the_target(network, batch):
    features = torch.rand(2, 16, 6, 6, requires_grad=True)
    consistency, weak = auxiliary_losses(network, features, batch["unlabelled"], SETTINGS)
    (consistency + weak).backward()
    assert all(parameter.grad is None for parameter in network.decoder.parameters())
    assert features.grad.any()


def test_auxiliary_losses_are_means_over_the_decoders(network, batch):
    """With one kind that changes nothing, against the formulas."""
    network.kinds, network.auxiliary = ("feature_noise", "feature_noise"), network.auxiliary[:2]
    settings, features = replace(SETTINGS, noise=0.0), torch.rand(2, 16, 6, 6)
    labels = batch["unlabelled"]["labels"].long()
    consistency, weak = auxiliary_losses(network, features, batch["unlabelled"], settings)
    target = network.decoder(features).softmax(1)
    outputs = [decoder(features) for decoder in network.auxiliary]
    expected = sum(((logits.softmax(1) - target) ** 2).mean() for logits in outputs) / 2
    torch.testing.assert_close(consistency, expected)
    expected = sum(F.cross_entropy(logits, labels, ignore_index=255) for logits in outputs) / 2
    torch.testing.assert_close(weak, expected)


def test_loss_is_the_sum_with_both_weights_on_one_ramp(network, batch):
    for step, ramp in ((0, np.exp(-5)), (3, np.exp(-5 / 4)), (6, 1.0), (50, 1.0)):
        terms = backward(network, {**batch, "step": step}, iterations=60, ramp=0.1)
        expected = terms["supervised"] + ramp * (30 * terms["consistency"] + 0.4 * terms["weak"])
        torch.testing.assert_close(terms["loss"], expected)
    assert sigmoid_ramp(0.5) == pytest.approx(0.2865, abs=1e-4)


def test_undecided_pseudo_masks_cost_nothing(network, batch):
    undecided = {**batch, "unlabelled": crops(torch.full((2, 48, 48), 255), 1)}
    assert backward(network, undecided)["weak"] == 0
    assert backward(network, batch, weak_weight=0.0)["weak"] == 0


def test_bootstrapped_cross_entropy_takes_pixels_below_a_rising_bound():
    probabilities = torch.tensor([0.2, 0.45, 0.6, 0.95])
    logits = torch.stack([probabilities.log(), (1 - probabilities).log()])[None, :, None]  # [1, 2, 1, 4]
    labels = torch.tensor([[[0, 0, 0, 0]]])
    settings = replace(SETTINGS, bootstrapped=True)
    costs = -probabilities.log()

    def loss(time: float, given: torch.Tensor = labels) -> float:
        return float(supervised_loss(logits, given, time, settings))

    assert loss(0.0) == pytest.approx(float(costs[:2].mean()))  # below 1/2
    assert loss(0.4) == loss(1.0) == pytest.approx(float(costs[:3].mean()))  # below 0.897
    late = 0.5 + 0.4 * (1 - np.exp(-1))  # 0.753 after a fifth of the ramp
    assert 0.6 < late < 0.9 and loss(0.08) == pytest.approx(float(costs[:3].mean()))
    assert loss(0.4, torch.tensor([[[255, 0, 0, 0]]])) == pytest.approx(float(costs[1:3].mean()))
    assert loss(0.4, torch.full((1, 1, 4), 255)) == 0
    plain = float(supervised_loss(logits, labels, 0.0, SETTINGS))
    assert plain == pytest.approx(float(costs.mean()))


def test_the_backbone_learns_at_a_tenth_of_the_rate(network):
    groups = optimizer(network, CctSettings()).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.001, 0.01])
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert len(groups[0]["params"]) == len(list(network.backbone.parameters()))


def test_baseline_weighs_pseudo_masks(batch):
    torch.manual_seed(0)
    network = deeplab_v2("small", 3, rates=(1,), scales=(0.5,)).train()
    terms = pseudo_label.loss_terms(network, batch, 0.25)
    torch.testing.assert_close(terms["loss"], terms["labelled"] + 0.25 * terms["pseudo"])
    swapped = {"labelled": batch["unlabelled"], "unlabelled": batch["labelled"]}
    torch.testing.assert_close(pseudo_label.loss_terms(network, swapped, 0.25)["pseudo"], terms["labelled"])


# --- files ---


@pytest.fixture
def scenes(tmp_path) -> tuple[Path, list[ImageRecord]]:
    """Eight small images of one disc each: true masks of three, pseudo-masks of all."""
    rng = np.random.default_rng(5)
    records = []
    for index in range(8):
        height, width = 40 + 3 * index, 64 - 2 * index
        rows, columns = np.mgrid[:height, :width]
        truth = np.where(np.hypot(rows - height / 2, columns - width / 2) < 15, 1 + index % 2, 0)
        colours = np.array([[60, 120, 60], [200, 60, 60], [60, 60, 200]])[truth]
        image = np.clip(colours + rng.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)
        name = f"s/{index}"
        path, mask = tmp_path / f"{index}.png", tmp_path / "masks" / mask_name(name)
        Image.fromarray(image).save(path)
        write_mask(mask, truth)
        write_mask(tmp_path / "truth" / mask_name(name), truth if name in LABELLED else np.full(truth.shape, 255))
        write_mask(tmp_path / "pseudo" / mask_name(name), np.where(rows < 4, 255, truth))
        records.append(
            ImageRecord(name, str(path), height, width, ("train", "val"), (index % 2,), str(mask), (), f"d{index}")
        )
    write_table(tmp_path / "images.csv", ImageTable(("red", "blue"), tuple(records)))
    write_manifest(tmp_path / "manifest.json", ("red", "blue"), records)
    return tmp_path, records


def train(folder, name="a", method="cct", settings=None, labels="pseudo", truth="truth", seed=0):
    given = {**(TINY if method == "cct" else DEEPLAB), **(settings or {})}
    train_step.run(
        config=write_step(folder / f"{name}.json", "segmentations/net", method, "train", given, seed=seed),
        table=folder / "images.csv",
        classifier=None,
        labels=[folder / labels],
        truth=[folder / truth],
        ood=None,
        model=folder / f"{name}.pt",
        state=folder / f"{name}.state",
        history=folder / f"{name}.csv",
        execution=CPU,
    )
    return load_segmenter(folder / f"{name}.pt")


DEEPLAB = {
    "backbone": "small",
    "rates": [1, 2],
    "msc_scales": [],
    "iterations": 6,
    "batch_size": 2,
    "crop": 48,
    "scales": [1.0],
    "learning_rate": 0.01,
}


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_images_are_divided_by_their_true_masks(scenes):
    folder, records = scenes
    table = ImageTable(("red", "blue"), tuple(records))
    inputs = Inputs(table, None, 0, "s", labels=[folder / "pseudo"], truth=[folder / "truth"])
    images = divided(inputs)
    assert [sample.image.stem for sample in images.labelled] == ["0", "3", "5"]
    assert [sample.image.stem for sample in images.unlabelled] == ["1", "2", "4", "6", "7"]
    assert {sample.mask.parent.name for sample in images.labelled} == {"truth"}
    assert {sample.mask.parent.name for sample in images.unlabelled} == {"pseudo"}
    with pytest.raises(UserError, match=r"all 8 images have true masks.*images: 0.1"):
        divided(replace(inputs, truth=[folder / "masks"]))


def test_a_step_sees_both_kinds_each_once_an_epoch(scenes):
    folder, records = scenes
    samples = [Sample(Path(r.path), Path(r.mask), r.size, r.classes) for r in records]
    given = {"iterations": 12, "batch_size": 2, "crop": 40, "scales": [1.0], "seed": 3, "stage": "s"}
    batches = PairedBatches(samples[:3], samples[3:], 3, **given)
    assert len(batches) == 12
    names = [batches.batch_names(step) for step in range(12)]
    labelled = [name for pair in names for name in pair[:2]]
    unlabelled = [name for pair in names for name in pair[2:]]
    assert all(set(labelled[k : k + 3]) == {"0.png", "1.png", "2.png"} for k in range(0, 24, 3))
    assert all(len(set(unlabelled[k : k + 5])) == 5 for k in range(0, 20, 5))
    assert set(unlabelled).isdisjoint(labelled)
    batch = batches[7]
    assert batch["step"] == 7
    assert batch["labelled"]["images"].shape == batch["unlabelled"]["images"].shape == (2, 40, 40, 3)
    assert torch.equal(
        batch["unlabelled"]["labels"], PairedBatches(samples[:3], samples[3:], 3, **given)[7]["unlabelled"]["labels"]
    )


@pytest.mark.parametrize("method", ["cct", "pseudo_label"])
def test_training_is_deterministic_and_resumes_to_the_same_weights(method, scenes, monkeypatch):
    folder, _ = scenes
    whole = train(folder, method=method)
    assert torch.equal(weights(whole), weights(train(folder, method=method)))
    (folder / "a.pt").unlink()
    steps = kill_segmentation_at(4, monkeypatch, lambda: train(folder, method=method))
    assert torch.equal(weights(whole), weights(train(folder, method=method)))
    assert steps == [4, 4, 5, 5]  # of both kinds of images


def test_training_begun_with_other_labelled_images_is_not_resumed(scenes, monkeypatch):
    folder, records = scenes
    steps = kill_segmentation_at(2, monkeypatch, lambda: train(folder, settings={"iterations": 3}))
    write_mask(folder / "truth" / mask_name("s/2"), read_mask(Path(records[2].mask)))
    train(folder, settings={"iterations": 3})
    assert steps == [0, 0, 1, 1, 2, 2]


def test_what_is_written_is_the_encoder_and_the_main_decoder(scenes):
    folder, _ = scenes
    network = train(folder, settings={"iterations": 1})
    state, meta = load_network(folder / "a.pt", "segmentation")
    assert {name.partition(".")[0] for name in state} == {"backbone", "pyramid", "decoder"}
    assert meta["architecture"] == "cct" and network.class_names == ("red", "blue")
    image = np.zeros((37, 51, 3), np.uint8)
    assert predict_probabilities(network, image).shape == (3, 37, 51)


@pytest.mark.parametrize("method", ["cct", "pseudo_label"])
def test_network_learns_and_predicts_through_the_steps(method, scenes):
    folder, records = scenes
    train(folder, method=method, settings={"iterations": 100})
    columns = {"cct": "supervised,consistency,weak", "pseudo_label": "labelled,pseudo"}[method]
    assert (folder / "a.csv").read_text().splitlines()[0] == f"step,rate,loss,{columns}"
    predictions.run(
        config=write_step(folder / "p.json", "segmentations/net", method, "predictions", {"crf": None}),
        manifest=folder / "manifest.json",
        model=folder / "a.pt",
        predictions=folder / "out",
        execution=CPU,
    )
    total = sum(
        confusion(read_mask(folder / "out" / mask_name(r.id), r.size, 3), read_mask(Path(r.mask)), 3) for r in records
    )
    assert metrics(total).mean("iou") > 0.6


@pytest.mark.parametrize("method", ["cct", "pseudo_label"])
def test_without_weights_labelled_images_alone_are_learned_and_may_be_all(method, scenes):
    folder, _ = scenes
    weights = {"cct": {"consistency_weight": 0.0, "weak_weight": 0.0}, "pseudo_label": {"pseudo_weight": 0.0}}
    train(folder, method=method, truth="masks", settings={"iterations": 2, **weights[method]})
    assert (folder / "a.csv").read_text().splitlines()[0] == "step,rate,loss"


def test_without_weak_labels_their_masks_may_be_those_of_the_truth(scenes):
    """Semi-supervised without any tags: `masks` names the stage of true masks, whose other images are undecided."""
    folder, _ = scenes
    train(folder, labels="truth", settings={"iterations": 1, "weak_weight": 0.0})
    with pytest.raises(UserError, match="ignore"):
        train(folder, labels="truth", settings={"iterations": 1})
