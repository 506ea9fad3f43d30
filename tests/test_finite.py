"""Numbers that are none, and files that were damaged, stop where they are met, with a name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.store import shards
from wsss_core.store.checkpoints import load_network, save_network
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.sealed import is_whole, require_whole
from wsss_core.store.seeds import SEEDS, SeedMaps, SeedStore
from wsss_core.training import fit

CPU = Execution("cpu")
META = {"backbone": "small", "architecture": "cam", "architecture_settings": {}, "class_names": ["cat"]}


def build(folder: Path, maps: dict[str, SeedMaps]) -> Path:
    digests = dict.fromkeys(maps, "1")
    shards.build(folder / "s.h5", SEEDS, digests, maps.__getitem__, {}, cache=folder / "cache.h5")
    return folder / "s.h5"


def one(value: float = 1.0) -> SeedMaps:
    return SeedMaps((0,), {1.0: torch.tensor([[[1.0, value], [0.5, 0.25]]])}, (20, 30))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_maps_that_are_not_finite_are_not_written(tmp_path, value):
    with pytest.raises(UserError, match=r"seeds of image 'b': scale_1\.0 holds numbers that are not finite"):
        build(tmp_path, {"a": one(), "b": one(value)})
    assert not (tmp_path / "s.h5").exists()


def test_scores_that_are_not_finite_are_not_written(tmp_path):
    scores = ScoreMaps((0,), torch.full((1, 5, 8), torch.nan), (20, 30))
    with pytest.raises(UserError, match="scores of image 'a': scores holds"):
        shards.build(tmp_path / "s.h5", SCORES, {"a": "1"}, lambda _: scores, {}, cache=tmp_path / "cache.h5")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_networks_that_are_not_finite_are_neither_written_nor_read(tmp_path, value):
    path, network = tmp_path / "model.pt", cam_network("small", 1)
    save_network(path, "classifier", network.state_dict(), META)
    before = path.read_bytes()
    torch.nn.init.constant_(network.classifier.weight, value)
    with pytest.raises(UserError, match=r"not written: numbers that are not finite .* in classifier\.weight"):
        save_network(path, "classifier", network.state_dict(), META)
    assert path.read_bytes() == before
    content = torch.load(path, weights_only=True)
    content["state"]["classifier.weight"].fill_(value)
    torch.save(content, path)
    with pytest.raises(UserError, match=r"model\.pt: numbers that are not finite .* in classifier\.weight"):
        load_network(path, "classifier")


def test_weights_that_are_not_finite_are_refused_by_name():
    network = cam_network("small", 1)
    state = network.backbone.state_dict()
    name = next(iter(state))
    with pytest.raises(UserError, match=f"the weights of the backbone small: .* in {name}"):
        network.backbone.load(state | {name: torch.full_like(state[name], torch.nan)})


class Batches:
    """One number a step; the fourth is none."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.tensor(torch.nan if step == 3 else 1.0)

    def batch_names(self, step: int) -> list[str]:
        return [f"photo {step}"]


def test_a_loss_that_is_none_names_its_step_and_its_images():
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def loss(number: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": network(number[None]).sum()}

    with pytest.raises(UserError, match="the loss, of the images 'photo 3', is nan at step 4"):
        fit(network, Batches(), loss, optimizer, lambda step: 1.0, seed=0, execution=CPU)
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_any_flipped_bit_of_a_shard_is_told_before_it_is_read(tmp_path):
    path = build(tmp_path, {"a": one(), "b": one(2.0)})
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(content), 60), 0, len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"s\.h5: is damaged, or not a file of this program"):
            SeedStore(path)
    for short in (b"", content[:100], content[:-1], content + b"x"):
        path.write_bytes(short)
        with pytest.raises(UserError, match=r"s\.h5: is damaged"):
            SeedStore(path)
    path.write_bytes(content)
    assert list(SeedStore(path)) == ["a", "b"]


def test_a_damaged_cache_is_computed_again(tmp_path, caplog):
    path = build(tmp_path, {"a": one(), "b": one(2.0)})
    expected = path.read_bytes()
    for damage in (lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b.replace(b"scale_1.0", b"scale_2.0")):
        cache = tmp_path / "cache.h5"
        cache.unlink()
        cache.write_bytes(damage(expected))
        path.unlink()
        caplog.clear()
        assert build(tmp_path, {"a": one(), "b": one(2.0)}).read_bytes() == expected
        assert "is damaged, so its records are computed again" in caplog.text


def test_a_sealed_file_is_one_of_hdf5_for_others(tmp_path):
    import h5py

    path = build(tmp_path, {"a": one()})
    assert is_whole(path)
    with h5py.File(path) as file:
        assert file["a/scale_1.0"].shape == (1, 2, 2)
    with pytest.raises(UserError, match="there is no such file"):
        require_whole(tmp_path / "nothing.h5")
