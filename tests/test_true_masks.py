"""True masks are those that were there when the data set was read, and files of a later format are refused."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from wsss_core.data.decode import digest_of
from wsss_core.data.table import ImageRecord
from wsss_core.data.true_masks import read_true_mask
from wsss_core.errors import UserError
from wsss_core.refine.truth import TruthSettings, true_mask
from wsss_core.store.checkpoints import load_network, save_network
from wsss_core.store.masks import write_mask
from wsss_core.store.sealed import LENGTH, seal
from wsss_core.store.seeds import SEEDS
from wsss_core.store.shards import RecordStore, build


@pytest.fixture
def record(tmp_path) -> ImageRecord:
    path = tmp_path / "a.png"
    write_mask(path, np.array([[0, 1], [2, 255]], np.uint8))
    drawn = ImageRecord("a", "a.jpg", 2, 2, ("train",), (0, 1), mask=str(path))
    return replace(drawn, mask_digest=digest_of(path.read_bytes()))


def test_a_true_mask_is_read_while_it_is_the_one_that_was_there(record):
    assert read_true_mask(record, 3).tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize("labels", [[[0, 2], [1, 255]], [[0, 0], [0, 0]]])
def test_a_true_mask_that_another_run_has_drawn_over_scores_nothing(record, tmp_path, labels):
    write_mask(tmp_path / "a.png", np.array(labels, np.uint8))
    for read in (lambda: read_true_mask(record, 3), lambda: true_mask(record, TruthSettings(), 3)):
        with pytest.raises(UserError, match=r"a\.png: the true mask changed since the data set was read; run again"):
            read()


def test_records_of_a_later_format_are_refused_and_as_a_cache_made_again(tmp_path):
    path = tmp_path / "maps.h5"
    build(path, SEEDS, {}, lambda image_id: None, {}, cache=tmp_path / "cache.h5")
    assert len(RecordStore(path, SEEDS)) == 0
    content = path.read_bytes()[:-LENGTH]
    path.unlink()
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = 2
    seal(path)
    with pytest.raises(UserError, match=r"maps\.h5: is of format 2, this version reads 1"):
        RecordStore(path, SEEDS)


def test_a_checkpoint_of_a_later_format_is_refused(tmp_path):
    save_network(tmp_path / "model.pt", "classifier", {"w": torch.ones(1)}, {})
    load_network(tmp_path / "model.pt", "classifier")
    content = torch.load(tmp_path / "model.pt", weights_only=True) | {"format": 2}
    torch.save(content, tmp_path / "later.pt")
    with pytest.raises(UserError, match=r"later\.pt: is of format 2, this version reads 1"):
        load_network(tmp_path / "later.pt", "classifier")
