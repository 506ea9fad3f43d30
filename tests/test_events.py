"""Event files of trainings: what they hold, and that nothing is trained otherwise because of them."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.scenes import write_step
from wsss_core import cli
from wsss_core.config import load
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.events import looking, tag_precision
from wsss_core.models import cam_network
from wsss_core.steps import train
from wsss_core.store.checkpoints import read_checkpoint
from wsss_core.store.masks import mask_name, write_mask

BCE = {"backbone": "small", "epochs": 22, "batch_size": 3, "long_side": [48, 64], "crop": 48, "learning_rate": 0.05}
NET = {"backbone": "small", "rates": [1], "msc_scales": [], "iterations": 21, "batch_size": 2, "crop": 33}


@pytest.fixture
def scenes(tmp_path):
    """Four photos with a tag each, and masks of them."""
    records = []
    for k in range(4):
        image = np.full((48, 60, 3), 40, np.uint8)
        image[10:30, 10:40, k % 2] = 220
        Image.fromarray(image).save(tmp_path / f"{k}.png")
        mask = tmp_path / "masks" / mask_name(f"{k}")
        write_mask(mask, np.where(image.max(2) > 100, 1 + k % 2, 0))
        records.append(
            ImageRecord(f"{k}", str(tmp_path / f"{k}.png"), 48, 60, ("train",), (k % 2,), str(mask), (), f"d{k}")
        )
    write_table(tmp_path / "images.csv", ImageTable(("red", "green"), tuple(records)))
    return tmp_path


def fit(folder, name, section, method, settings, **execution):
    train.run(
        config=write_step(folder / f"{name}.json", f"{section}/{name}", method, "train", settings),
        table=folder / "images.csv",
        classifier=None,
        labels=[folder / "masks"] if section == "segmentations" else [],
        ood=None,
        model=folder / name / "model.pt",
        state=folder / f"{name}.state",
        history=folder / name / "history.csv",
        execution=Execution("cpu", **execution),
    )
    return read_checkpoint(folder / name / "model.pt")["state"]


@pytest.mark.parametrize(
    ("section", "method", "settings"),
    [("classifiers", "bce", BCE), ("segmentations", "deeplab_v2", NET)],
)
def test_events_hold_the_history_and_change_nothing(scenes, section, method, settings):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plain = fit(scenes, "x", section, method, settings)
    assert not (scenes / "x/events").exists()
    history = (scenes / "x/history.csv").read_bytes()
    for _ in range(2):  # the second training replaces the events of the first
        watched = fit(scenes, "x", section, method, settings, tensorboard=True)
    assert all(torch.equal(plain[name], value) for name, value in watched.items())
    assert (scenes / "x/history.csv").read_bytes() == history
    events = accumulator.EventAccumulator(str(scenes / "x/events"))
    events.Reload()
    rows = pd.read_csv(scenes / "x/history.csv")
    loss = events.Scalars("loss/loss")
    assert [event.step for event in loss] == rows["step"].tolist()
    np.testing.assert_allclose([event.value for event in loss], rows["loss"], rtol=1e-6)
    assert events.Scalars("rate/0")[0].value > events.Scalars("rate/0")[-1].value > 0
    picture = events.Images("photos/0")[0]
    assert picture.width == 2 * picture.height == 2 * settings["crop"]
    if section == "classifiers":
        assert 0 <= events.Scalars("tags/average_precision")[0].value <= 1


def test_every_module_gets_its_mode_back():
    network = cam_network("small", 2).train()
    network.classifier.eval()
    with looking(network):
        assert not network.training and not network.backbone.training
        assert not network(torch.zeros(1, 3, 32, 32)).requires_grad
    assert network.training and network.backbone.training and not network.classifier.training


def test_precision_is_of_classes_that_some_photos_lack():
    logits = torch.tensor([[3.0, 0.1], [2.0, 0.3], [1.0, 0.2]])
    # class 0 at the ranks 1 and 3: (1/1 + 2/3) / 2; class 1 is in every photo
    assert tag_precision(logits, torch.tensor([[1.0, 1], [0, 1], [1, 1]])) == pytest.approx(5 / 6)
    assert np.isnan(tag_precision(logits, torch.ones(3, 2)))


def test_a_missing_library_is_named_before_training(scenes, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'wsss\[tensorboard\]'"):
        fit(scenes, "x", "classifiers", "bce", BCE, tensorboard=True)


def test_the_option_is_in_no_settings_file_and_offered_by_the_command(capsys):
    given = {"run": "x", "dataset": {"format": "demo"}}
    assert load(given | {"execution": {"tensorboard": True}}).execution["tensorboard"] is True
    assert load(given).execution["tensorboard"] is False
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert "--tensorboard" in capsys.readouterr().out
