"""The walk on likeness of features against a dense matrix, whose features they are, and the steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scenes import write_classifier, write_scene, write_step
from wsss_core.data.decode import read_image
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.kernels.random_walk import walk_on_matrix
from wsss_core.models import cam_network
from wsss_core.models.backbones import backbone
from wsss_core.models.features import FeatureNetwork
from wsss_core.refine.affinity import FeaturesSettings, WalkSettings, adopted, walk, walked
from wsss_core.steps import pretrained
from wsss_core.steps import walk as walk_step
from wsss_core.store.scores import SCORES
from wsss_core.store.seeds import SeedMaps
from wsss_core.store.shards import RecordStore

GENERATOR = torch.Generator().manual_seed(0)


def by_hand(scores: np.ndarray, features: np.ndarray, settings: WalkSettings) -> np.ndarray:
    """The power of the dense matrix, its entries cell by cell."""
    _, height, width = scores.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    matrix = np.eye(len(places))
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            far = settings.radius is not None and (y - v) ** 2 + (x - u) ** 2 >= settings.radius**2
            if i != j and not far:
                matrix[i, j] = max(0.0, features[:, y, x] @ features[:, v, u]) ** settings.beta
    power = np.linalg.matrix_power(matrix / matrix.sum(0), 2**settings.log2_steps)
    return (scores.reshape(len(scores), -1) @ power).reshape(scores.shape)


@pytest.mark.parametrize("radius", [None, 2, 3, 5])
@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 6), (6, 1), (2, 2)])
@pytest.mark.parametrize(("beta", "log2_steps"), [(1.0, 0), (4.0, 3), (0.5, 8)])
def test_the_walk_is_the_power_of_the_dense_matrix(radius, height, width, beta, log2_steps):
    features = torch.nn.functional.normalize(
        torch.randn(6, height, width, generator=GENERATOR, dtype=torch.float64), dim=0
    )
    scores = torch.rand(2, height, width, generator=GENERATOR, dtype=torch.float64)
    settings = WalkSettings(radius=radius, beta=beta, log2_steps=log2_steps)
    expected = by_hand(scores.numpy(), features.numpy(), settings)
    np.testing.assert_allclose(walked(scores, features, settings).numpy(), expected, atol=1e-10)
    single = walked(scores.float(), features.float(), settings)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-4)


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(ValueError, match="do not belong together"):
        walk_on_matrix(torch.zeros(1, 2, 3), torch.eye(5))


def test_a_walk_between_too_many_cells_says_what_to_do():
    features = torch.zeros(1, 110, 110)
    with pytest.raises(UserError, match=r"110 x 110 cells are too many .* enlarge walk\.stride, or give walk\.radius"):
        walked(torch.zeros(1, 110, 110), features, WalkSettings())


def test_cosines_of_taps_are_averaged():
    torch.manual_seed(0)
    network = FeatureNetwork(backbone("small")).eval()
    images = torch.randn(1, 3, 44, 60, generator=GENERATOR)
    with torch.no_grad():
        both = network(images, (3, 5), 16, False)[0].flatten(1)
        alone = [network(images, (tap,), 16, False)[0].flatten(1) for tap in (3, 5)]
        found = network.backbone(images)
        centred = network(images, (5,), 16, True)[0]
    torch.testing.assert_close(both.T @ both, (alone[0].T @ alone[0] + alone[1].T @ alone[1]) / 2)
    fifth = found[4][0]
    torch.testing.assert_close(alone[1], torch.nn.functional.normalize(fifth, dim=0).flatten(1))
    less = fifth - fifth.mean((1, 2), keepdim=True)
    torch.testing.assert_close(centred, torch.nn.functional.normalize(less, dim=0))


@pytest.mark.parametrize("stride", [4, 8, 14, 16])
def test_any_stride_gives_the_grid_of_the_scores(stride):
    network = FeatureNetwork(backbone("small")).eval()
    image = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    maps = SeedMaps((1,), {1.0: torch.rand(1, 48, 80, generator=GENERATOR)}, (45, 70))
    (found,) = walk(network, [image], [maps], WalkSettings(stride=stride))
    assert tuple(found.scores.shape) == (1, -(-45 // stride), -(-70 // stride))
    assert found.full().shape == (1, 45, 70) and bool(torch.isfinite(found.scores).all())


def test_the_features_are_those_of_a_weight_file_or_of_a_classifier(tmp_path):
    torch.manual_seed(1)
    trained = cam_network("small", 2)
    write_classifier(tmp_path / "model.pt", trained, ("cat", "dog"))
    plain = {trained.backbone._published_name(name): value for name, value in trained.backbone.state_dict().items()}
    torch.save(plain, tmp_path / "weights.pth")
    for name in ("model.pt", "weights.pth"):
        network = adopted(FeaturesSettings(file=str(tmp_path / name), backbone="small"), ("cow",))
        for key, value in trained.backbone.state_dict().items():
            assert torch.equal(network.backbone.state_dict()[key], value)
    with pytest.raises(UserError, match=r"weights\.pth: the weights do not fit the backbone resnet50") as told:
        adopted(FeaturesSettings(file=str(tmp_path / "weights.pth")), ("cow",))
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="none.pth"):
        adopted(FeaturesSettings(file=str(tmp_path / "none.pth")), ("cow",))


def test_the_steps_write_scores_that_are_the_functions(tmp_path: Path):
    from PIL import Image

    rng = np.random.default_rng(0)
    records, maps = [], {}
    for name, size, classes in (("a", (40, 56), (0,)), ("b", (40, 56), (0, 1)), ("c", (33, 48), ())):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
        records.append(ImageRecord(name, str(tmp_path / f"{name}.png"), *size, ("train",), classes))
        held = {1.0: torch.rand(len(classes), 3, 4, generator=GENERATOR)} if classes else {}
        maps[name] = SeedMaps(classes, held, size)
    write_scene(tmp_path, ("cat", "dog"), records, maps)
    features = FeaturesSettings(file=str(tmp_path / "classifier.pt"))
    settings = WalkSettings(stride=16, radius=None)
    execution = Execution("cpu")
    taken = write_step(tmp_path / "p.json", "refinements/x", "affinity", "pretrained", features)
    pretrained.run(config=taken, table=tmp_path / "images.csv", model=tmp_path / "network.pt", execution=execution)
    config = write_step(tmp_path / "w.json", "refinements/x", "affinity", "walk", settings)
    walk_step.run(
        config=config,
        manifest=tmp_path / "shard.json",
        maps=tmp_path / "seeds.h5",
        model=tmp_path / "network.pt",
        scores=tmp_path / "scores.h5",
        cache=tmp_path / "cache.h5",
        execution=execution,
    )
    found = RecordStore(tmp_path / "scores.h5", SCORES)
    network = adopted(features, ("cat", "dog"))
    for record in records[:2]:
        (expected,) = walk(network, [read_image(record.path)], [maps[record.id]], settings)
        torch.testing.assert_close(found[record.id].scores, expected.scores, rtol=1e-4, atol=1e-6)
    assert found["c"].classes == () and found["c"].full().shape == (0, 33, 48)
