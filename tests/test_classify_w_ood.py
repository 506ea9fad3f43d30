"""W-OoD: centres, losses of both variants, batches, the step."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.scenes import write_classifier, write_step
from wsss_core.classify import w_ood
from wsss_core.classify.batches import ClassifierBatches
from wsss_core.classify.w_ood import (
    Centres,
    WOodBatches,
    WOodSettings,
    class_centres,
    climbed,
    distances,
    embed,
    group_centres,
    official_distance,
    official_ood,
    paper_distance,
    paper_ood,
)
from wsss_core.data.augment import normalise
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.steps import train as train_step
from wsss_core.store.checkpoints import load_network
from wsss_core.training import Inputs

NAMES = ("red", "blue")
COLOURS = ((200, 40, 40), (40, 40, 200))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return cam_network("small", 2).eval()


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    rng, records = np.random.default_rng(0), []
    for number in range(8):
        image = rng.integers(90, 130, (32, 40, 3), dtype=np.uint8)
        classes = ((0,), (1,), (0, 1))[number % 3]
        for c in classes:
            image[8 + 10 * c : 18 + 10 * c, 8:30] = COLOURS[c]
        records.append(saved(tmp_path / f"{number}.png", image, "train", classes))
    return ImageTable(NAMES, tuple(records))


@pytest.fixture
def photos(tmp_path: Path) -> list[ImageRecord]:
    images = np.random.default_rng(1).integers(0, 256, (3, 36, 30, 3), dtype=np.uint8)
    return [saved(tmp_path / f"ood{number}.png", image, "ood", ()) for number, image in enumerate(images)]


def saved(path: Path, image: np.ndarray, split: str, classes: tuple[int, ...]) -> ImageRecord:
    Image.fromarray(image).save(path)
    return ImageRecord(path.stem, str(path), *image.shape[:2], (split,), classes, digest=path.stem)


def test_class_centres_are_means_over_all_images_of_a_class():
    features = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 7.0]])
    found = class_centres(features, [(0,), (0, 1), ()], 3)
    assert torch.equal(found, torch.tensor([[2.0, 1.0], [3.0, 2.0], [0.0, 0.0]]))


def test_groups_are_those_of_lloyds_loop():
    features = np.random.default_rng(0).normal(size=(40, 3))
    centres = features[:6].copy()
    for _ in range(10):
        nearest = [int(((centres - f) ** 2).sum(1).argmin()) for f in features]
        centres = np.stack([features[[k == n for n in nearest]].mean(0) for k in range(6)])
    found = group_centres(torch.from_numpy(features), 6, 10)
    np.testing.assert_allclose(found.numpy(), centres, rtol=1e-12)
    assert not np.allclose(found, group_centres(torch.from_numpy(features), 6, 1))


def test_empty_groups_are_dropped_and_k_is_limited(caplog):
    features = torch.tensor([[0.0], [0.0], [4.0], [6.0]])
    assert group_centres(features, 3, 10).tolist() == [[0.0], [5.0]]
    assert group_centres(features[2:], 50, 10).tolist() == [[4.0], [6.0]]
    assert "50 groups asked for, but only 2 OoD photos" in caplog.text


def test_distances_are_euclidean_and_flat_at_a_centre():
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    found = distances(features, torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    assert found.tolist() == [[0.0, 3.0], [5.0, 4.0]]
    found.sum().backward()
    assert torch.isfinite(features.grad).all()


TO_CLASSES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
TO_GROUPS = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 1.5]])


def test_official_distance_by_hand():
    """Ten distances to groups, of which the least two (1 and 1.5) count; own classes are 1, 3 and 5 away."""
    assert official_distance(TO_CLASSES, TO_GROUPS, LABELS, 0.2).item() == pytest.approx((9 - 2.5) / 10)
    as_published = (TO_CLASSES * LABELS).mean() * 3 / 5 - (TO_GROUPS * (TO_GROUPS < 2)).mean()
    torch.testing.assert_close(official_distance(TO_CLASSES, TO_GROUPS, LABELS, 0.2), as_published)
    assert official_distance(TO_CLASSES, TO_GROUPS, LABELS, 1.0).item() == pytest.approx((9 - 46.5) / 10)


def test_paper_distance_by_hand():
    """Each image has its own nearest: 1 for the first, 1.5 for the second; with 40 %, also 2 and 6."""
    assert paper_distance(TO_CLASSES, TO_GROUPS, LABELS, 0.2).item() == pytest.approx((4 - 1 + 5 - 1.5) / 2)
    assert paper_distance(TO_CLASSES, TO_GROUPS, LABELS, 0.4).item() == pytest.approx((4 - 3 + 5 - 7.5) / 2)
    assert paper_distance(TO_CLASSES, TO_GROUPS, LABELS, 0.01).item() == pytest.approx((4 - 1 + 5 - 1.5) / 2)


def test_only_the_nearest_groups_push():
    groups = TO_GROUPS.clone().requires_grad_(True)
    official_distance(TO_CLASSES, groups, LABELS, 0.2).backward()
    expected = torch.zeros(2, 5)
    expected[0, 0] = expected[1, 4] = -0.1
    torch.testing.assert_close(groups.grad, expected)


def test_photos_climb_one_step_within_their_range(network):
    photos = torch.randn(3, 3, 40, 40)
    found = climbed(network, photos, 0.07)
    moved = found - photos
    assert moved.abs().max() <= 0.07 + 1e-6 and moved.abs().max() > 0.05
    assert found.min() >= photos.min() and found.max() <= photos.max()
    assert network(found).amax(1).sum() > network(photos).amax(1).sum()
    assert all(p.grad is None for p in network.parameters())
    with torch.no_grad():
        torch.testing.assert_close(climbed(network, photos, 0.07), found)
    assert climbed(network, photos, 0.0) is photos


def test_cross_entropy_of_photos(network):
    photos = torch.randn(4, 3, 40, 40)
    logits = network(photos)
    torch.testing.assert_close(paper_ood(network, photos), F.softplus(logits).mean())
    torch.testing.assert_close(official_ood(network, photos, 0.0, None), F.softplus(logits).mean())
    best = int(logits[0].argmax())
    counted = logits[logits.argmax(1) != best]
    torch.testing.assert_close(official_ood(network, photos, 0.0, best), F.softplus(counted).mean(1).sum() / 4)


@pytest.mark.parametrize(("variant", "ood_weight"), [("official", 0.25), ("paper", 1.0)])
def test_loss_is_the_weighted_sum(network, variant, ood_weight):
    images, labels, photos = torch.randn(2, 3, 40, 40), torch.eye(2), torch.randn(2, 3, 40, 40)
    features, logits = embed(network, images)
    torch.testing.assert_close(logits, network(images))
    centres = Centres(torch.randn(2, features.shape[1]), torch.randn(5, features.shape[1]))
    found = w_ood.loss(network, centres, WOodSettings(variant), None)((images, labels, photos))
    of_variant = {"official": official_distance, "paper": paper_distance}[variant]
    distance = of_variant(distances(features, centres.classes), distances(features, centres.groups), labels, 0.2)
    torch.testing.assert_close(found["distance"], distance)
    torch.testing.assert_close(found["classification"], F.binary_cross_entropy_with_logits(logits, labels))
    total = found["classification"] + 0.007 * found["distance"] + ood_weight * found["ood"]
    torch.testing.assert_close(found["loss"], total)
    other = w_ood.loss(network, centres, WOodSettings(variant, ood_weight=0.0), None)((images, labels, photos))
    torch.testing.assert_close(other["loss"], total - ood_weight * found["ood"])


def test_centres_are_those_of_the_initial_network(network, table, photos):
    found = w_ood.centres(network, table.records, photos, WOodSettings(clusters=3, cluster_long=None))

    def pooled(record):
        with torch.no_grad():
            return embed(network, torch.from_numpy(normalise(np.asarray(Image.open(record.path))))[None])[0][0]

    red = torch.stack([pooled(r) for r in table.records if 0 in r.classes]).mean(0)
    torch.testing.assert_close(found.classes[0], red)
    torch.testing.assert_close(found.groups, torch.stack([pooled(record) for record in photos]))
    larger = w_ood.centres(network, table.records, photos, WOodSettings(clusters=3, cluster_long=72))
    assert not torch.allclose(larger.groups, found.groups) and torch.equal(larger.classes, found.classes)


def batches_of(table: ImageTable, photos: list[ImageRecord], seed: int = 0) -> WOodBatches:
    settings = WOodSettings(long_side=(32, 48), crop=40, ood_batch_size=2)
    inner = ClassifierBatches(
        table.records, 2, epochs=3, batch_size=4, long_side=(32, 48), crop=40, seed=seed, stage="classifiers/wood"
    )
    return WOodBatches(inner, photos, settings, seed=seed, stage="classifiers/wood")


def test_batches_depend_on_their_step_alone(table, photos):
    one, two = batches_of(table, photos), batches_of(table, photos)
    images, labels, ood = one[4]
    assert images.shape == (4, 3, 40, 40) and labels.shape == (4, 2) and ood.shape == (2, 3, 40, 40)
    two[0], two[3]
    assert all(torch.equal(a, b) for a, b in zip(one[4], two[4], strict=True))
    assert torch.equal(images, one.batches[4][0])
    assert not torch.equal(ood, batches_of(table, photos, seed=1)[4][2])


def test_every_photo_is_seen_as_often(table, photos):
    batches = batches_of(table, photos)
    assert len(batches) == 6
    seen = [i for step in range(6) for i in batches.photo_indices(step)]
    turns = [sorted(seen[first : first + 3]) for first in range(0, 12, 3)]
    assert turns == [[0, 1, 2]] * 4, "three photos, two a step: a turn takes a step and a half"


def settings_of(**changes) -> dict:
    training = {"epochs": 2, "batch_size": 4, "ood_batch_size": 2, "long_side": [32, 44], "crop": 40}
    return training | {"cluster_long": None, "clusters": 2, "frozen_stages": 0, "learning_rate": 0.01} | changes


@pytest.fixture
def train(tmp_path, network, table, photos):
    """Runs the step; returns the checkpoint's path."""
    write_table(tmp_path / "images.csv", table)
    write_table(tmp_path / "ood.csv", ImageTable(NAMES, tuple(photos)))
    write_classifier(tmp_path / "init.pt", network, NAMES)

    def run(name: str, **changes) -> Path:
        train_step.run(
            config=write_step(tmp_path / "step.json", "classifiers/wood", "w_ood", "train", settings_of(**changes)),
            table=tmp_path / "images.csv",
            classifier=tmp_path / "init.pt",
            labels=(),
            ood=tmp_path / "ood.csv",
            model=tmp_path / f"{name}.pt",
            state=tmp_path / "state.pt",
            history=tmp_path / f"{name}.csv",
            execution=Execution("cpu"),
        )
        return tmp_path / f"{name}.pt"

    return run


def test_step_goes_on_from_the_initial_weights(train, network, tmp_path):
    state, meta = load_network(train("still", learning_rate=1e-9, epochs=1), "classifier")
    assert meta["method"] == "w_ood" and meta["backbone"] == "small" and meta["architecture"] == "cam"
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=1e-6)
    frozen, _ = load_network(train("frozen", frozen_stages=5), "classifier")
    changed = {name for name, value in network.state_dict().items() if not torch.equal(frozen[name], value)}
    assert changed == {"classifier.weight"}
    assert (tmp_path / "still.csv").read_text().startswith("step,rate,loss,classification,distance,ood")
    assert train("one").read_bytes() == train("two").read_bytes()


@pytest.mark.parametrize("variant", ["official", "paper"])
def test_photos_lose_their_classes(train, network, photos, variant):
    state, _ = load_network(train(variant, variant=variant, epochs=20, ood_weight=1.0, momentum=0.9), "classifier")
    trained = cam_network("small", 2, state).eval()
    images = torch.from_numpy(np.stack([normalise(np.asarray(Image.open(p.path))) for p in photos]))
    with torch.no_grad():
        before, after = network(images).sigmoid(), trained(images).sigmoid()
    assert after.max() < 0.35 < before.max()


def test_mistakes_are_named(train, network, table, photos):
    with pytest.raises(UserError, match="excluded: there is no class 'bottle'; allowed: red, blue"):
        train("a", excluded="bottle")
    with pytest.raises(UserError, match=r"dataset\.ood: there are no photos"):
        w_ood.plan(WOodSettings(), Inputs(table, None, 0, "c", network))
    network.architecture = "seam"
    with pytest.raises(UserError, match="init: names a classifier of the architecture 'seam'"):
        w_ood.plan(WOodSettings(), Inputs(table, None, 0, "c", network, ood=tuple(photos)))
