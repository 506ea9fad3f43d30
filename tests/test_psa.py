"""PSA: labels from posteriors, AffinityNet and its loss, the walk with background, and the steps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import make_masks, write_scene, write_step
from wsss_core.data.augment import normalise
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.describe import describe
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.kernels.dense_crf import dense_crf
from wsss_core.kernels.paths import directions, mean_differences
from wsss_core.models.affinity import AffinityNetwork
from wsss_core.models.backbones import backbone
from wsss_core.refine.psa.labels import LabelsSettings, background_score, confident_labels, crf_posteriors
from wsss_core.refine.psa.masks import MasksSettings, ScoresSettings
from wsss_core.refine.psa.network import TrainSettings, affinity_loss, affinity_sample, optimizer
from wsss_core.refine.psa.walk import WalkSettings, nothing, predict_affinities, walk
from wsss_core.refine.threshold import score_mask
from wsss_core.refine.training import SampleBatches
from wsss_core.steps import labels as labels_step
from wsss_core.steps import scores as scores_step
from wsss_core.steps import train as train_step
from wsss_core.steps import walk as walk_step
from wsss_core.store import checkpoints
from wsss_core.store.masks import mask_name, read_mask, write_mask
from wsss_core.store.posteriors import POSTERIORS, Posteriors
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SeedMaps
from wsss_core.store.shards import RecordStore

CLASSES = ("round", "long/thin")
CPU = Execution(device="cpu")


def pairs(radius, height, width):
    """(number of direction, row, column, other row, other column) of all pairs with a complete half disc."""
    reach = radius - 1
    for i, (dy, dx) in enumerate(directions(radius)):
        for y in range(height - reach):
            for x in range(reach, width - reach):
                yield i, y, x, y + dy, x + dx


def test_mean_differences_are_those_of_a_loop():
    values = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    found = torch.stack(mean_differences(values, 3), 1)
    assert found.shape == (2, len(directions(3)), 5, 5)
    for i, y, x, v, u in pairs(3, 7, 9):
        expected = (values[:, :, y, x] - values[:, :, v, u]).abs().mean(1)
        assert torch.allclose(found[:, i, y, x - 2], expected)
    everywhere = torch.stack(mean_differences(values, 3, border=torch.inf), 1)
    assert everywhere.shape == (2, len(directions(3)), 7, 9)
    assert torch.equal(everywhere[:, :, :5, 2:7], found)
    for i, (dy, dx) in enumerate(directions(3)):
        inside = torch.zeros(7, 9, dtype=torch.bool)
        inside[: 7 - dy, max(0, -dx) : 9 - max(0, dx)] = True
        assert torch.isfinite(everywhere[:, i]).eq(inside).all()


def loss_by_loop(features, labels, radius):
    sums = dict.fromkeys(("background", "foreground", "different"), 0.0)
    counts = dict.fromkeys(sums, 0)
    for b in range(len(features)):
        for _, y, x, v, u in pairs(radius, *labels.shape[1:]):
            one, other = int(labels[b, y, x]), int(labels[b, v, u])
            if 255 in (one, other):
                continue
            affinity = (-(features[b, :, y, x] - features[b, :, v, u]).abs().mean()).exp()
            kind = "different" if one != other else "foreground" if one else "background"
            counts[kind] += 1
            sums[kind] = sums[kind] - (affinity + 1e-5 if one == other else 1 + 1e-5 - affinity).log()
    means = {kind: sums[kind] / (counts[kind] + 1e-5) for kind in sums}
    return means["background"] / 4 + means["foreground"] / 4 + means["different"] / 2


def test_the_loss_is_that_of_a_loop():
    torch.manual_seed(0)
    features = torch.randn(2, 4, 8, 10, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[torch.randint(0, 4, (2, 4, 5))]
    labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    ours, theirs = affinity_loss(features, labels, 3)["loss"], loss_by_loop(features, labels, 3)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    mine, obvious = (torch.autograd.grad(loss, features)[0] for loss in (ours, theirs))
    assert mine.abs().max() > 1e-4 and torch.allclose(mine, obvious, atol=1e-6)


def test_the_loss_by_hand():
    """One source cell, (0, 1); radius 2; one channel."""
    labels = torch.tensor([[[9, 1, 1], [0, 1, 255]]], dtype=torch.uint8)
    features = torch.tensor([[[[9.0, 0.0, 1.0], [2.0, 3.0, 4.0]]]])
    terms = affinity_loss(features, labels, 2)
    same = -(np.log(np.exp(-1) + 1e-5) + np.log(np.exp(-3) + 1e-5)) / (2 + 1e-5)
    different = -np.log(1 + 1e-5 - np.exp(-2)) / (1 + 1e-5)
    assert np.isclose(terms["foreground"].item(), same, rtol=1e-5) and terms["background"] == 0
    assert np.isclose(terms["loss"].item(), same / 4 + different / 2, rtol=1e-5)
    unknown = affinity_loss(features.requires_grad_(), torch.full_like(labels, 255), 2)["loss"]
    unknown.backward()
    assert unknown == 0 and features.grad.abs().max() == 0


def test_labels_by_hand():
    """Six cells of 2 x 2 pixels: sure foreground, sure background, neither, both, half outside, outside."""
    low = [[0.2, 0.8, 0.0], [0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.4, 0.0, 0.6], [0.1, 0.0, 0.9], [0, 0, 0]]
    high = [[0.1, 0.9, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0], [0.6, 0.0, 0.4], [0.1, 0.0, 0.9], [0, 0, 0]]
    cells = np.array([low, high]).transpose(0, 2, 1)[:, :, None]
    values = (255 * cells).round().astype(np.uint8).repeat(2, 2).repeat(2, 3)
    values[:, :, 1, 8:10] = 0
    assert confident_labels(values, (3, 7), 2).tolist() == [[4, 0, 255, 0, 8, 255]]
    assert confident_labels(values / 255, (3, 7), 2).tolist() == [[4, 0, 255, 0, 8, 255]]


def test_labels_average_before_they_decide():
    """One pixel of four is certain and outvoted by three that are not."""
    values = np.zeros((2, 2, 2, 2), np.uint8)
    values[:, 1] = [[255, 90], [90, 90]]
    values[:, 0] = 255 - values[:, 1]
    assert confident_labels(values, (0,), 2).tolist() == [[1]]
    values[:, 1, 0, 0], values[:, 0, 0, 0] = 230, 25
    assert confident_labels(values, (0,), 2).tolist() == [[0]]


def test_posteriors_are_those_of_two_crfs():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)
    maps = torch.from_numpy(rng.random((2, 12, 14), dtype=np.float32))
    settings = LabelsSettings(iterations=2)
    found = crf_posteriors(image, maps, [1, 4], settings)
    assert found.classes == (1, 4) and found.values.shape == (2, 3, 12, 14) and found.values.dtype == np.uint8
    for values, alpha in zip(found.values, (4, 32), strict=True):
        scores = np.concatenate([(1 - maps.numpy().max(0, keepdims=True)) ** alpha, maps.numpy()])
        energies = -np.log(np.clip(scores, 1e-5, 1)).astype(np.float32)
        expected = dense_crf(image, energies, gaussian=(3.0, 3.0), bilateral=(80.0, 13.0, 10.0), iterations=2)
        assert np.abs(values / 255 - expected).max() <= 0.5 / 255 + 1e-5
    empty = crf_posteriors(image, maps[:0], (), settings)
    assert empty.values.shape == (2, 1, 12, 14) and (confident_labels(empty.values[..., :8, :8], (), 8) == 0).all()


def test_features_have_stride_8_and_published_initial_scale():
    torch.manual_seed(0)
    network = AffinityNetwork(backbone("small"))
    for size in ((64, 72), (37, 50)):
        rows_, columns = -(-size[0] // 8), -(-size[1] // 8)
        assert network(torch.randn(1, 3, *size)).shape == (1, 448, rows_, columns)
    assert network.mix.weight.abs().max() <= 4 * (6 / (2 * 448)) ** 0.5
    assert all(p.requires_grad for p in network.parameters())
    assert not any("1.weight" in name for name, _ in network.taps.named_parameters())
    assert any("1.weight" in name for name, _ in AffinityNetwork(backbone("vgg16")).taps.named_parameters())


def test_frozen_stages_and_normalisation_are_not_trained():
    network = AffinityNetwork(backbone("mobilenet_v2"))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert not any(
        name.startswith(("backbone.stages.0", "backbone.stages.1.", "backbone.stages.2")) for name in trained
    )
    inner = {name for name in trained if name.startswith("backbone.")}
    assert inner and all(network.get_parameter(name).ndim == 4 for name in inner)
    assert len(trained - inner) == 4


def test_the_optimiser_has_the_groups_of_psa():
    network = AffinityNetwork(backbone("vgg16"))
    groups = optimizer(network, TrainSettings()).param_groups
    assert [(g["lr"], g["weight_decay"], g["momentum"]) for g in groups] == [
        (0.1, 5e-4, 5e-4),
        (0.2, 0.0, 5e-4),
        (1.0, 5e-4, 5e-4),
    ]
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in network.parameters())
    frozen = network.requires_grad_(False)
    assert [g["lr"] for g in optimizer(frozen, TrainSettings()).param_groups] == [1.0]


def load(name):
    rng = np.random.default_rng(int(name))
    foreground = rng.integers(0, 256, (2, 1, 50, 70), dtype=np.uint8)
    image = np.full((50, 70, 3), 90, np.uint8)
    return image, Posteriors((2,), np.concatenate([255 - foreground, foreground], 1))


def batches(seed=0, **changes):
    settings = TrainSettings(crop=64, **changes)

    def sample(name, rng):
        return affinity_sample(*load(name), settings, rng)

    return SampleBatches([str(i) for i in range(7)], sample, epochs=2, batch_size=3, seed=seed, stage="psa")


def test_batches_are_a_map_of_the_step():
    some = batches()
    assert len(some) == 4
    images, labels = some[3]
    assert images.shape == (3, 3, 64, 64) and images.dtype == torch.float32
    assert labels.shape == (3, 8, 8) and labels.dtype == torch.uint8
    again = batches()
    again[0]
    assert torch.equal(again[3][0], images) and torch.equal(again[3][1], labels)
    assert not torch.equal(batches(seed=1)[3][0], images)
    assert len({name for step in (0, 1) for name in some.batch_names(step)}) == 6
    with pytest.raises(IndexError):
        some[4]


def test_crops_beyond_the_image_are_black_and_unknown():
    images, labels = batches()[0]
    black = torch.from_numpy(normalise(np.zeros((1, 1, 3), np.uint8)))[None]
    outside = (images == black).all(1)
    assert (outside.sum((1, 2)) == 14 * 64).all()
    unknown = torch.nn.functional.avg_pool2d(outside[:, None].float(), 8)[:, 0] == 1
    assert unknown.any() and (labels[unknown] == 255).all()
    assert images.unique().numel() > 6
    assert batches(colour_jitter=None)[0][0].unique().numel() == 6


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    network = AffinityNetwork(backbone("small"))
    images, labels = torch.randn(2, 3, 48, 48), torch.zeros(2, 6, 6, dtype=torch.uint8)
    images[:, :, :, 24:] += 2
    labels[:, :, 3:] = 1
    descent = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []
    for _ in range(8):
        loss = affinity_loss(network(images), labels, 3)["loss"]
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def one_image():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 43, 3), dtype=np.uint8)
    maps = SeedMaps((2, 5), {1.0: torch.from_numpy(rng.random((2, 4, 5))).float()}, (30, 43))
    torch.manual_seed(0)
    return AffinityNetwork(backbone("small")).eval(), image, maps


def test_affinities_of_one_image():
    network, image, _ = one_image()
    (found,) = predict_affinities(network, [image], 3, 8.0)
    padded = np.zeros((3, 32, 48), np.float32)
    padded[:, :30, :43] = normalise(image)
    with torch.no_grad():
        features = network(torch.from_numpy(padded)[None])[0].double()
    assert found.shape == (len(directions(3)), 4, 6) and found.dtype == torch.float64
    for i, (dy, dx) in enumerate(directions(3)):
        for y in range(4):
            for x in range(6):
                inside = y + dy < 4 and 0 <= x + dx < 6
                mean = (features[:, y, x] - features[:, y + dy, x + dx]).abs().mean() if inside else torch.inf
                assert torch.isclose(found[i, y, x], torch.as_tensor(-8.0 * mean).exp().double(), rtol=1e-4)


def test_walk_of_one_image_equals_the_dense_matrix():
    network, image, maps = one_image()
    (walked,) = walk(network, [image], [maps], WalkSettings(alpha=6.0, radius=3, beta=0.5, log2_steps=3))
    affinities = predict_affinities(network, [image], 3, 0.5)[0].numpy()
    matrix = np.eye(24)
    for i, (dy, dx) in enumerate(directions(3)):
        for y in range(4 - dy):
            for x in range(max(0, -dx), 6 - max(0, dx)):
                here, there = 6 * y + x, 6 * (y + dy) + x + dx
                matrix[here, there] = matrix[there, here] = affinities[i, y, x]
    assert 0.01 < matrix[matrix != 1].max() < 0.99
    full = maps.full().double().numpy()
    channels = np.zeros((3, 32, 48))
    channels[:, :30, :43] = np.concatenate([full, (1 - full.max(0, keepdims=True)) ** 6])
    cells = channels.reshape(3, 4, 8, 6, 8).mean((2, 4)).reshape(3, -1)
    expected = (cells @ np.linalg.matrix_power(matrix / matrix.sum(0), 8)).reshape(3, 4, 6)
    assert walked.classes == (2, 5) and walked.size == (30, 43) and walked.stride == 8
    assert np.allclose(walked.scores.numpy(), expected[:2], atol=1e-5)
    assert np.allclose(walked.background.numpy(), expected[2], atol=1e-5)
    empty = nothing((30, 43)).full()
    assert empty.shape == (0, 30, 43) and not score_mask(empty, (), 0.5, None).any()


def test_images_that_walk_together_have_the_scores_of_each_alone():
    network, image, maps = one_image()
    other = SeedMaps((1,), {1.0: maps.maps[1.0][:1]}, maps.size)
    images, both, settings = [image, image[::-1].copy()], [maps, other], WalkSettings(radius=3, log2_steps=3)
    for k, walked in enumerate(walk(network, images, both, settings)):
        (alone,) = walk(network, images[k : k + 1], both[k : k + 1], settings)
        assert walked.classes == both[k].classes
        torch.testing.assert_close(walked.scores, alone.scores)
        torch.testing.assert_close(walked.background, alone.background)


def test_threshold_one_half_is_the_argmax_with_background():
    rng = np.random.default_rng(0)
    scores, background = (torch.from_numpy(rng.random(s, dtype=np.float32)) for s in ((2, 4, 6), (4, 6)))
    maps = ScoreMaps((2, 5), scores, (30, 43), 8, background)
    stacked = torch.cat([background[None], scores])[None]
    full = torch.nn.functional.interpolate(stacked, scale_factor=8, mode="bilinear", align_corners=False)[0]
    expected = np.array([0, 3, 6])[full[:, :30, :43].argmax(0).numpy()]
    assert np.array_equal(score_mask(maps.full(), (2, 5), 0.5, None), expected)
    assert set(expected.ravel()) == {0, 3, 6}
    weighted = torch.cat([3 * full[:1], full[1:]])[:, :30, :43].argmax(0).numpy()
    assert np.array_equal(score_mask(maps.full(), (2, 5), 0.75, None), np.array([0, 3, 6])[weighted])
    assert MasksSettings().threshold == ScoresSettings().threshold == 0.5
    assert torch.equal(background_score(scores, 2.0), (1 - scores.max(0).values[None]) ** 2)


@pytest.fixture
def data(tmp_path):
    """Five images with a bright square of class 0 or 1, the last without any; seed maps that find part of it."""
    rng = np.random.default_rng(0)
    records, maps = [], {}
    for i in range(5):
        height, width = 66 + 4 * (i % 2), 75
        pixels = rng.integers(0, 20, (height, width, 3), dtype=np.uint8)
        classes = (i % 2,) if i < 4 else ()
        if classes:
            pixels[14:50, 20:60] = rng.integers(200, 220, (36, 40, 3), dtype=np.uint8)
        name, file, mask = f"folder/image {i}.png", tmp_path / f"{i}.png", tmp_path / f"{i}.mask.png"
        Image.fromarray(pixels).save(file)
        truth = np.zeros((height, width), np.uint8)
        truth[14:50, 20:60] = classes[0] + 1 if classes else 0
        write_mask(mask, truth)
        records.append(
            ImageRecord(name, str(file), height, width, ("train", "score"), classes, str(mask), digest=str(i))
        )
        seed = torch.zeros(len(classes), height, width)
        seed[:, 18:46, 24:56] = 1.0
        maps[name] = SeedMaps(classes, {1.0: seed} if classes else {}, (height, width))
    return tmp_path, write_scene(tmp_path, CLASSES, records, maps)


def make_labels(folder, **settings):
    settings = LabelsSettings(iterations=2, **settings)
    labels_step.run(
        config=write_step(folder / "labels.json", "refinements/x", "psa", "labels", settings),
        manifest=folder / "shard.json",
        maps=folder / "seeds.h5",
        labels=folder / "labels.h5",
        cache=folder / "labels.cache.h5",
        execution=CPU,
    )
    return folder / "labels.h5"


def make_network(folder, name="psa", settings=None, **changes):
    settings = settings or TrainSettings(radius=3, crop=64, batch_size=2, epochs=1, learning_rate=0.01)
    arguments = {
        "config": write_step(folder / f"{name}.json", "refinements/x", "psa", "train", settings),
        "table": folder / "images.csv",
        "labels": [folder / "labels.h5"],
        "classifier": folder / "classifier.pt",
        "ood": None,
        "model": folder / f"{name}.pt",
        "state": folder / f"{name}.state",
        "history": folder / f"{name}.csv",
        "execution": CPU,
    }
    train_step.run(**arguments | changes)
    return folder / f"{name}.pt"


def test_the_path_from_seeds_to_masks(data):
    folder, table = data
    store = RecordStore(make_labels(folder), POSTERIORS)
    assert list(store) == [record.id for record in table.records]
    first = store[table.records[0].id]
    assert first.values.shape == (2, 2, 66, 75) and (first.values[:, 1, 30, 40] > 200).all()
    labels = confident_labels(np.pad(first.values, [(0, 0), (0, 0), (0, 6), (0, 5)]), first.classes, 8)
    assert labels[4, 5] == 1 and labels[0, 0] == 0
    model = make_network(folder)
    assert not (folder / "psa.state").exists() and "different" in (folder / "psa.csv").read_text()
    state, meta = checkpoints.load_network(model, "affinity")
    assert meta["backbone"] == "small" and meta["class_names"] == list(CLASSES)
    again, _ = checkpoints.load_network(make_network(folder, "again"), "affinity")
    assert all(torch.equal(again[key], value) for key, value in state.items())
    walk_step.run(
        config=write_step(folder / "walk.json", "refinements/x", "psa", "walk", WalkSettings(log2_steps=2)),
        manifest=folder / "shard.json",
        maps=folder / "seeds.h5",
        model=model,
        scores=folder / "scores.h5",
        cache=folder / "scores.cache.h5",
        execution=CPU,
    )
    maps = RecordStore(folder / "scores.h5", SCORES)[table.records[0].id]
    assert maps.stride == 8 and maps.scores.shape == (1, 9, 10) and maps.background.shape == (9, 10)
    scores_step.run(
        config=write_step(folder / "scores.json", "refinements/x", "psa", "scores", ScoresSettings()),
        manifests=[folder / "shard.json"],
        maps=[folder / "scores.h5"],
        curve=folder / "curve.csv",
        evaluation=folder / "evaluation.csv",
        threshold=folder / "threshold.json",
        execution=CPU,
    )
    assert json.loads((folder / "threshold.json").read_text())["value"] == 0.5
    make_masks(folder, "psa", MasksSettings(), scores=folder / "scores.h5")
    for record in table.records:
        mask = read_mask(folder / "masks" / mask_name(record.id), record.size, 3)
        truth = read_mask(folder / f"{record.digest}.mask.png")
        assert (mask == truth).mean() > 0.85
    assert "maps {'stride 8': (1, 9, 10)}" in describe(folder / "scores.h5")
    assert "75x66, classes [0], maps {'stride 1': (2, 2, 66, 75)}" in describe(folder / "labels.h5")


def test_posteriors_are_reused_and_their_bytes_do_not_tell(data, caplog):
    folder, _ = data
    whole = make_labels(folder).read_bytes()
    caplog.set_level("INFO")
    (folder / "labels.h5").unlink()
    assert make_labels(folder).read_bytes() == whole and "5 records, 5 reused" in caplog.text


def test_mistakes_name_the_cause(data):
    folder, table = data
    make_labels(folder)
    with pytest.raises(UserError, match="network.crop: 64 holds no pairs of radius 5; at least 72"):
        make_network(folder, settings=TrainSettings(crop=64))
    with pytest.raises(UserError, match="5 images have no confident labels, such as 'folder/image 0.png'"):
        make_network(folder, labels=[])
    with pytest.raises(UserError, match="none was given"):
        make_network(folder, classifier=None)
    with pytest.raises(UserError, match="holds seeds records, not posteriors"):
        make_network(folder, labels=[folder / "seeds.h5"])
    wrong = (ImageRecord("folder/image 0.png", "x.png", 10, 10, ("train",), ()),)
    write_table(folder / "other.csv", ImageTable(CLASSES, wrong))
    with pytest.raises(UserError, match=r"is \(10, 10\), its labels are for \(66, 75\)"):
        make_network(folder, table=folder / "other.csv")
    write_table(folder / "empty.csv", ImageTable(CLASSES, table.records[-1:]))
    with pytest.raises(UserError, match="hold no foreground: raise labels.alpha_low"):
        make_network(folder, table=folder / "empty.csv")
    write_table(folder / "swapped.csv", ImageTable(CLASSES[::-1], table.records))
    with pytest.raises(UserError, match="classifier.pt: its class list differs"):
        make_network(folder, table=folder / "swapped.csv")
    alone = TrainSettings(radius=3, crop=64, backbone="small", weights=None)
    with pytest.raises(UserError, match="labels.h5: its class list differs"):
        make_network(folder, settings=alone, classifier=None, table=folder / "swapped.csv")
