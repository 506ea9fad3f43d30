"""DeepLab-v2: network, loss, optimiser, batches, training and prediction."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image

from tests.scenes import kill_segmentation_at, write_classifier, write_step
from wsss_core import training
from wsss_core.data.augment import normalise
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.evaluate import confusion, metrics
from wsss_core.execution import Execution
from wsss_core.kernels.dense_crf import dense_crf
from wsss_core.models import cam_network
from wsss_core.models.backbones import FixedBatchNorm, backbone
from wsss_core.models.deeplab import Aspp, deeplab_v2, torchvision_names
from wsss_core.segment.batches import SegmentationBatches, network_input, random_crop, rescale
from wsss_core.segment.deeplab import DeepLabSettings, build_network, optimizer
from wsss_core.segment.deeplab_v2 import cross_entropy, loss_terms
from wsss_core.segment.predict import (
    CrfSettings,
    Predictor,
    PredictSettings,
    load_segmenter,
    predict_labels,
    predict_probabilities,
    wrapped,
)
from wsss_core.segment.samples import Sample
from wsss_core.steps import predictions
from wsss_core.steps import train as train_step
from wsss_core.store.checkpoints import save_network
from wsss_core.store.cut import read_about
from wsss_core.store.masks import mask_name, read_mask, write_mask

CPU = Execution("cpu")
TINY = {
    "backbone": "small",
    "rates": [1, 2],
    "msc_scales": [0.5],
    "iterations": 6,
    "batch_size": 3,
    "crop": 49,
    "learning_rate": 0.01,
}


# --- network ---


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_grids_of_resnet_at_321_are_41_21_31(variant):
    network = deeplab_v2("resnet50", 3, variant=variant).train()
    with torch.no_grad():
        grids = network(torch.zeros(1, 3, 321, 321))
    assert [tuple(g.shape) for g in grids] == [(1, 3, n, n) for n in (41, 21, 31, 41)]


def test_stride_16_halves_the_grid():
    network = deeplab_v2("resnet50", 2, output_stride=16, scales=()).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 97, 65)).shape == (1, 2, 7, 5)


def test_official_variant_has_the_layout_of_caffe():
    network = deeplab_v2("resnet50", 2, variant="official").backbone
    first = network.stages[2][0]
    assert (first.conv1.stride, first.conv2.stride, first.downsample[0].stride) == ((2, 2), (1, 1), (2, 2))
    assert network.stages[0].maxpool.ceil_mode
    assert {block.conv2.dilation for block in network.stages[3]} == {(2, 2)}
    assert {block.conv2.dilation for block in network.stages[4]} == {(4, 4)}
    with pytest.raises(UserError, match="not for small"):
        deeplab_v2("small", 2, variant="official")


def test_official_input_is_bgr_minus_the_mean():
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    network = deeplab_v2("resnet50", 2, variant="official")
    expected = (image.astype(np.float32) - np.float32((122.675, 116.669, 104.008)))[..., ::-1].transpose(2, 0, 1)
    result = network.preprocess(torch.from_numpy(normalise(image))[None])
    np.testing.assert_allclose(result[0], expected, atol=1e-3)


def test_deeplab_pytorch_names_are_understood():
    network = backbone("resnet50")
    parts = {"conv1.": "reduce.conv.", "bn1.": "reduce.bn.", "conv2.": "conv3x3.conv.", "bn2.": "conv3x3.bn."}
    parts |= {"conv3.": "increase.conv.", "bn3.": "increase.bn."}
    parts |= {"downsample.0.": "shortcut.conv.", "downsample.1.": "shortcut.bn."}
    published, own = {}, {}
    for name, value in torchvision.models.resnet50().state_dict().items():
        layer, _, rest = name.partition(".")
        own[name] = value = torch.randn(value.shape)
        if layer in ("conv1", "bn1"):
            published[f"base.layer1.conv1.{layer[:-1]}.{rest}"] = value
        elif layer != "fc":
            number, _, rest = rest.partition(".")
            start = next(part for part in parts if rest.startswith(part))
            there = f"layer{int(layer[-1]) + 1}.block{int(number) + 1}.{parts[start]}{rest.removeprefix(start)}"
            published[f"base.{there}"] = value
    published["base.aspp.c0.bias"] = torch.zeros(21)
    network.load(own)
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    network.load(torchvision_names(published))
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_pyramid_is_the_sum_of_its_dilated_convolutions():
    torch.manual_seed(0)
    pyramid = Aspp(4, 3, (1, 3))
    features = torch.randn(2, 4, 9, 7)
    expected = sum(
        F.conv2d(features, c.weight, c.bias, padding=rate, dilation=rate)
        for c, rate in zip(pyramid, (1, 3), strict=True)
    )
    torch.testing.assert_close(pyramid(features), expected)
    assert 0.008 < torch.cat([c.weight.flatten() for c in Aspp(64, 21, (6, 12))]).std() < 0.012


def test_prediction_is_the_maximum_over_scales():
    network = deeplab_v2("small", 3, rates=(1,), scales=(0.5, 0.75))
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        *grids, highest = network.train()(images)
        enlarged = [F.interpolate(g, grids[0].shape[2:], mode="bilinear", align_corners=False) for g in grids]
        torch.testing.assert_close(highest, torch.stack(enlarged).amax(0))
        torch.testing.assert_close(network.eval()(images), highest)
    assert len(grids) == 3


def test_one_scale_has_one_grid():
    network = deeplab_v2("small", 3, rates=(1,), scales=())
    assert len(network.train()(torch.zeros(1, 3, 33, 33))) == 1
    assert network.eval()(torch.zeros(1, 3, 33, 33)).ndim == 4


# --- loss ---


def cross_entropy_by_hand(logits, labels, balanced):
    losses = {"background": [], "foreground": []}
    batch, _, height, width = logits.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                label = int(labels[b, y, x])
                if label != 255:
                    p = torch.softmax(logits[b, :, y, x].double(), 0)[label]
                    losses["foreground" if label else "background"].append(-float(torch.log(p)))
    if balanced:
        return np.mean([np.mean(values) for values in losses.values() if values])
    return np.mean(losses["background"] + losses["foreground"])


@pytest.mark.parametrize("balanced", [False, True])
def test_loss_equals_a_loop_over_pixels(balanced):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, 33, 33)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.3] = 255
    torch.manual_seed(0)
    grids = [torch.randn(2, 4, n, n) for n in (5, 3, 4, 5)]
    expected = 0.0
    for logits in grids:
        n = logits.shape[-1]
        small = np.stack([np.array(Image.fromarray(mask).resize((n, n), Image.NEAREST)) for mask in labels])
        expected += cross_entropy_by_hand(logits, small, balanced)
    terms = loss_terms(grids, torch.from_numpy(labels), balanced)
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["full"]) < float(terms["loss"])


@pytest.mark.parametrize("balanced", [False, True])
def test_a_batch_without_labels_costs_nothing(balanced):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4, 4), 255), balanced)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_balanced_loss_of_one_side_is_its_mean():
    logits = torch.randn(1, 3, 4, 4)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    torch.testing.assert_close(cross_entropy(logits, labels, True), cross_entropy(logits, labels))


# --- optimiser ---


def test_learning_rates_at_iterations_1_10_11_20():
    settings = DeepLabSettings(backbone="small", iterations=20000, learning_rate=2.5e-4)
    rate = training.polynomial(settings.iterations, settings.power, settings.decay_every)
    groups = optimizer(build_network(settings, 3), settings).param_groups
    for iteration, factor in [(1, 1), (10, 1), (11, (1 - 10 / 20000) ** 0.9), (20, (1 - 10 / 20000) ** 0.9)]:
        rates = [group["lr"] * rate(iteration - 1) for group in groups]
        np.testing.assert_allclose(rates, [2.5e-4 * factor, 2.5e-3 * factor, 5e-3 * factor], rtol=1e-12)


def test_optimiser_groups_hold_all_but_batch_norm():
    settings = DeepLabSettings(backbone="mobilenet_v2")
    network = build_network(settings, 3)
    groups = optimizer(network, settings).param_groups
    assert [group["weight_decay"] for group in groups] == [5e-4, 5e-4, 0.0]
    assert all(group["momentum"] == 0.9 for group in groups)
    held = {id(p) for group in groups for p in group["params"]}
    norms = {id(p) for m in network.modules() if isinstance(m, FixedBatchNorm)
             for p in m.parameters()}  # fmt: skip
    assert norms
    assert not held & norms
    assert held | norms == {id(p) for p in network.parameters()}
    assert {id(p) for p in network.parameters() if p.requires_grad} == held


def test_group_norm_of_the_small_network_is_trained():
    network = build_network(DeepLabSettings(backbone="small"), 3)
    held = {id(p) for group in optimizer(network, DeepLabSettings(backbone="small")).param_groups
            for p in group["params"]}  # fmt: skip
    assert held == {id(p) for p in network.parameters()}


def test_batch_norm_stays_fixed_in_training():
    settings = DeepLabSettings(backbone="mobilenet_v2", rates=(1,), msc_scales=(), learning_rate=0.1)
    network = build_network(settings, 2).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    step = optimizer(network, settings)
    loss_terms(network(torch.randn(2, 3, 33, 33)), torch.ones(2, 33, 33, dtype=torch.uint8))["loss"].backward()
    step.step()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    norms = {f"{name}." for name, m in network.named_modules() if hasattr(m, "running_mean")}
    assert changed
    assert not [k for k in changed if any(k.startswith(n) for n in norms)]


# --- batches ---


@pytest.fixture
def scenes(tmp_path):
    """Seven small images of one disc a piece, with masks of three labels."""
    rng = np.random.default_rng(5)
    records = []
    for index in range(7):
        height, width = 40 + 3 * index, 64 - 2 * index
        rows, columns = np.mgrid[:height, :width]
        disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < 15**2
        labels = np.where(disc, 1 + index % 2, 0)
        colours = np.array([[60, 120, 60], [200, 60, 60], [60, 60, 200]])[labels]
        image = np.clip(colours + rng.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)
        path = tmp_path / f"{index}.png"
        Image.fromarray(image).save(path)
        write_mask(tmp_path / "masks" / mask_name(f"s/{index}"), labels)
        mask = str(tmp_path / "masks" / mask_name(f"s/{index}"))
        records.append(
            ImageRecord(f"s/{index}", str(path), height, width, ("train", "val"), (index % 2,), mask, (), f"d{index}")
        )
    write_table(tmp_path / "images.csv", ImageTable(("red", "blue"), tuple(records)))
    write_manifest(tmp_path / "manifest.json", ("red", "blue"), records)
    return tmp_path, records


def make_batches(records, **changes):
    samples = [Sample(Path(r.path), Path(r.mask), r.size, r.classes) for r in records]
    settings = {"iterations": 9, "batch_size": 3, "crop": 49, "scales": (0.5, 1.0, 1.5), "seed": 0, "stage": "s/x"}
    return SegmentationBatches(samples, 3, **{**settings, **changes})


def test_a_batch_depends_on_its_step_alone(scenes):
    _, records = scenes
    batch = make_batches(records)[5]
    other = make_batches(records)
    other[0], other[3]
    again = other[5]
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert batch["images"].shape == (3, 49, 49, 3)
    assert batch["labels"].dtype == torch.uint8
    present = [[True, records[i].classes == (0,), records[i].classes == (1,)] for i in other.indices(5)]
    assert batch["present"].tolist() == present
    assert not torch.equal(batch["images"], make_batches(records, seed=1)[5]["images"])
    assert not torch.equal(batch["images"], make_batches(records, stage="s/y")[5]["images"])


def test_every_image_is_seen_once_an_epoch(scenes):
    _, records = scenes
    batches = make_batches(records, iterations=14)
    seen = [index for step in range(14) for index in batches.indices(step)]
    epochs = [seen[k : k + 7] for k in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_batches_load_in_other_processes(scenes):
    _, records = scenes
    batches = make_batches(records)
    loaded = list(torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1))
    assert all(torch.equal(loaded[k][key], batches[k][key]) for k in range(9) for key in loaded[k])


def test_crop_pads_below_and_right_and_flips_whole():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    labels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    seen = set()
    for seed in range(20):
        pixels, (top, bottom, left, right), targets = random_crop(image, labels, 6, np.random.default_rng(seed))
        assert (top, bottom) == (0, 4)
        assert (left, right) in {(0, 5), (1, 6)}
        step = -1 if left else 1
        np.testing.assert_array_equal(pixels[:4, left:right], image[:, ::step])
        np.testing.assert_array_equal(targets[:4, left:right], labels[:, ::step])
        assert (targets == 255).sum() == 16
        seen.add(left)
    assert seen == {0, 1}


def test_crop_keeps_image_and_labels_together():
    labels = np.random.default_rng(0).integers(0, 200, (30, 40)).astype(np.uint8)
    image = np.stack([labels] * 3, -1)
    for seed in range(10):
        pixels, inside, targets = random_crop(image, labels, 16, np.random.default_rng(seed))
        assert inside == (0, 16, 0, 16)
        np.testing.assert_array_equal(pixels[..., 1], targets)


def test_rescale_rounds_sides_down():
    image, labels = rescale(np.zeros((33, 47, 3), np.uint8), np.zeros((33, 47), np.uint8), 0.75)
    assert image.shape == (24, 35, 3)
    assert labels.shape == (24, 35)


def test_network_input_is_normalised_and_padded_with_zero(scenes):
    _, records = scenes
    image = np.asarray(Image.open(records[0].path))[:49, :49]
    canvas = np.full((1, 49, 49, 3), 77, np.uint8)
    canvas[0, :40] = image[:40]
    batch = {"images": torch.from_numpy(canvas), "inside": torch.tensor([[0, 40, 3, 49]])}
    result = network_input(batch)
    assert result.shape == (1, 3, 49, 49)
    np.testing.assert_allclose(result[0, :, :40, 3:], normalise(canvas[0])[:, :40, 3:], rtol=1e-5, atol=1e-5)
    assert not result[0, :, 40:].any()
    assert not result[0, :, :, :3].any()


# --- training ---


def train(folder, name="a", settings=None, classifier=None, masks="masks", seed=0):
    settings = {**TINY, **(settings or {})}
    train_step.run(
        config=write_step(folder / f"{name}.json", "segmentations/net", "deeplab_v2", "train", settings, seed=seed),
        table=folder / "images.csv",
        classifier=classifier,
        labels=[folder / masks],
        ood=None,
        model=folder / f"{name}.pt",
        state=folder / f"{name}.state",
        history=folder / f"{name}.csv",
        execution=CPU,
    )
    return load_segmenter(folder / f"{name}.pt")


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_training_is_deterministic_and_resumes_to_the_same_weights(scenes, monkeypatch):
    folder, _ = scenes
    whole = train(folder, "a")
    assert torch.equal(weights(whole), weights(train(folder, "a")))

    (folder / "a.pt").unlink()
    steps = kill_segmentation_at(4, monkeypatch, lambda: train(folder, "a"))
    assert (folder / "a.state").exists()
    assert torch.equal(weights(whole), weights(train(folder, "a")))
    assert steps == [4, 5]
    assert not (folder / "a.state").exists()


def test_training_begun_with_other_masks_is_not_resumed(scenes, monkeypatch):
    folder, records = scenes
    steps = kill_segmentation_at(4, monkeypatch, lambda: train(folder))
    write_mask(folder / "masks" / mask_name("s/2"), np.ones(records[2].size))
    train(folder)
    assert steps == [0, 1, 2, 3, 4, 5]


def test_another_seed_gives_other_weights(scenes):
    folder, _ = scenes
    first, other = (train(folder, f"{seed}", {"iterations": 2}, seed=seed) for seed in (0, 1))
    assert not torch.equal(weights(first), weights(other))


def test_network_learns_and_predicts_through_the_steps(scenes):
    folder, records = scenes
    settings = {"iterations": 60, "learning_rate": 0.005, "scales": [1.0], "balanced": True}
    network = train(folder, "a", settings)
    assert network.class_names == ("red", "blue")
    history = (folder / "a.csv").read_text().splitlines()
    assert history[0] == "step,rate,loss,full"
    predict(folder, {"crf": None})
    total = sum(
        confusion(read_mask(folder / "out" / mask_name(r.id), r.size, 3), read_mask(Path(r.mask)), 3) for r in records
    )
    assert metrics(total).mean("iou") > 0.6
    cut = read_about(folder / "out")
    assert (cut.rule, cut.crf) == ("none", "") and "flip: False" in cut.notes


def predict(folder, settings, model="a.pt"):
    predictions.run(
        config=write_step(folder / "p.json", "segmentations/net", "deeplab_v2", "predictions", settings),
        manifest=folder / "manifest.json",
        model=folder / model,
        predictions=folder / "out",
        execution=CPU,
    )


def test_classifier_weights_are_those_of_its_backbone(scenes):
    folder, _ = scenes
    classifier = cam_network("small", 2)
    write_classifier(folder / "c.pt", classifier, ["red", "blue"])
    still = {"weights": "classifier", "iterations": 1, "learning_rate": 0.0}
    network = train(folder, "a", still, folder / "c.pt")
    expected = classifier.backbone.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.backbone.state_dict().items())
    with pytest.raises(UserError, match="backbone small, not mobilenet_v2"):
        train(folder, "a", {**still, "backbone": "mobilenet_v2"}, folder / "c.pt")
    with pytest.raises(UserError, match="no classifier"):
        train(folder, "a", still)


def test_masks_with_nothing_to_learn_are_refused(scenes):
    folder, records = scenes
    for value, message in [(255, "ignore"), (0, "no foreground pixel")]:
        for record in records:
            write_mask(folder / "bad" / mask_name(record.id), np.full(record.size, value))
        with pytest.raises(UserError, match=message):
            train(folder, masks="bad")
    (folder / "bad" / mask_name("s/3")).unlink()
    with pytest.raises(UserError, match=r"1 of \d+ images have no masks to train on, such as 's/3'"):
        train(folder, masks="bad")
    write_mask(folder / "bad" / mask_name("s/3"), np.zeros((3, 3)))
    with pytest.raises(UserError, match="its image is"):
        train(folder, masks="bad")


# --- prediction ---


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = deeplab_v2("small", 3, rates=(1, 2), scales=(0.5,))
    with torch.no_grad():
        for convolution in network.aspp:
            convolution.weight.mul_(30)
    settings = {"rates": [1, 2], "output_stride": 8, "msc_scales": [0.5], "variant": "paper"}
    meta = network.about | {"class_names": ["red", "blue"], "settings": settings}
    save_network(tmp_path / "net.pt", network.kind, network.state_dict(), meta)
    return tmp_path / "net.pt"


@pytest.mark.parametrize("size", [(37, 53), (64, 40), (17, 90)])
@pytest.mark.parametrize("settings", [PredictSettings(), PredictSettings(flip=True, scales=(0.75, 1.0))])
def test_predictions_have_the_size_of_the_image(checkpoint, size, settings):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    predictor = Predictor(checkpoint, settings=settings)
    labels, probabilities = predictor.predict(image)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert probabilities.shape == (3, *size)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(labels, probabilities.argmax(0))
    np.testing.assert_array_equal(labels, predict_labels(predictor.network, image, settings))
    assert predictor.class_names == ("red", "blue")


def test_probabilities_are_the_softmax_of_the_enlarged_logits(checkpoint):
    network = load_segmenter(checkpoint)
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    with torch.no_grad():
        logits = network(torch.from_numpy(normalise(image))[None])
    expected = F.interpolate(logits, (37, 53), mode="bilinear", align_corners=False).softmax(1)[0]
    np.testing.assert_allclose(predict_probabilities(network, image), expected, atol=1e-6)


def test_flipped_prediction_mirrors(checkpoint):
    network = load_segmenter(checkpoint)
    image = np.random.default_rng(0).integers(0, 256, (33, 33, 3)).astype(np.uint8)
    settings = PredictSettings(flip=True)
    mirrored = predict_probabilities(network, np.ascontiguousarray(image[:, ::-1]), settings)
    np.testing.assert_allclose(predict_probabilities(network, image, settings), mirrored[:, :, ::-1], atol=1e-5)


def test_crf_runs_on_the_probabilities(checkpoint):
    network = load_segmenter(checkpoint)
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3)).astype(np.uint8)
    unary = -np.log(np.clip(predict_probabilities(network, image), 1e-5, 1))
    for kind, seen in [("photo", image), ("official_wrap", wrapped(image))]:
        expected = dense_crf(seen, unary, gaussian=(1, 3), bilateral=(67, 3, 4), iterations=10)
        settings = PredictSettings(crf=CrfSettings(image=kind))
        np.testing.assert_allclose(predict_probabilities(network, image, settings), expected, atol=1e-5)
    assert Predictor(checkpoint, crf=True).settings == PredictSettings(crf=CrfSettings())


def test_wrapped_image_by_hand():
    image = np.array([[[122, 117, 105], [0, 255, 104], [123, 116, 103]]], np.uint8)
    # 122 - 122.675 = -0.675 -> 0; 0 - 122.675 -> -122 -> 134; 103 - 104.008 = -1.008 -> -1 -> 255
    assert wrapped(image).tolist() == [[[0, 0, 0], [134, 138, 0], [0, 0, 255]]]


def test_predictions_of_a_network_of_other_classes_are_refused(scenes, checkpoint):
    folder, records = scenes
    write_manifest(folder / "manifest.json", ("blue", "red"), records)
    with pytest.raises(UserError, match="another order"):
        predict(folder, {}, "net.pt")
