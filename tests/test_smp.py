"""Networks of Segmentation Models PyTorch as final networks, on tiny random encoders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.scenes import write_step
from wsss_core import cli
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models.smp import SmpNetwork
from wsss_core.segment.predict import Predictor
from wsss_core.steps import train as train_step
from wsss_core.store.masks import mask_name, write_mask

smp = pytest.importorskip("segmentation_models_pytorch", reason="pip install 'wsss[smp]'")

DECODERS = ("unet", "fpn", "pspnet", "deeplabv3plus", "upernet", "segformer")


@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_are_those_of_smp_and_cover_images_of_any_size(decoder):
    torch.manual_seed(0)
    network = SmpNetwork(decoder, "resnet18", 3).eval()
    theirs = smp.create_model(decoder, encoder_name="resnet18", encoder_weights=None, classes=3).eval()
    theirs.load_state_dict(network.network.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(images))
        assert network(torch.randn(1, 3, 65, 90)).shape == (1, 3, 65, 90)


def test_an_encoder_of_timm_may_be_a_transformer():
    with torch.no_grad():
        assert SmpNetwork("dpt", "tu-test_vit", 3).eval()(torch.randn(1, 3, 50, 70)).shape == (1, 3, 50, 70)


@pytest.mark.parametrize(("decoder", "encoder"), [("unet", "resnt18"), ("unet", "tu-no_such"), ("dpt", "resnet18")])
def test_what_smp_does_not_join_is_refused_in_a_line(decoder, encoder):
    with pytest.raises(UserError, match=f"smp cannot build {decoder} on the encoder '{encoder}'") as caught:
        SmpNetwork(decoder, encoder, 3)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_missing_smp_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"this needs segmentation_models_pytorch: pip install 'wsss\[smp\]'"):
        SmpNetwork("unet", "resnet18", 3)


def test_encoders_take_their_weights_by_name_and_tell_what_does_not_fit():
    network, other = SmpNetwork("unet", "resnet18", 3), SmpNetwork("fpn", "resnet18", 3)
    state = {key: value for key, value in other.encoder.state_dict().items() if "num_batches" not in key}
    network.load_encoder(state | {"fc.weight": torch.zeros(1)})
    assert torch.equal(network.encoder.conv1.weight, other.encoder.conv1.weight)
    network.load_encoder({f"encoder.{key}": value for key, value in state.items()} | {"decoder.x": torch.zeros(1)})
    del state["conv1.weight"]
    with pytest.raises(UserError, match=r"encoder resnet18: parameters 1 missing \(conv1.weight\); 1 unknown \(more\)"):
        network.load_encoder(state | {"more": torch.zeros(1)})


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Eight photos with a bright square, and their masks."""
    rng, records = np.random.default_rng(0), []
    (tmp_path / "masks").mkdir()
    for number in range(8):
        image, labels = rng.integers(0, 40, (48, 56, 3), dtype=np.uint8), np.zeros((48, 56), np.uint8)
        image[8:40, 8 + number : 40 + number] += 180
        labels[8:40, 8 + number : 40 + number] = 1
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        write_mask(tmp_path / "masks" / mask_name(str(number)), labels)
        records.append(ImageRecord(str(number), str(path), 48, 56, ("train",), (0,), digest=str(number)))
    write_table(tmp_path / "images.csv", ImageTable(("square",), tuple(records)))
    return tmp_path


def test_a_network_learns_comes_back_and_leaves_in_onnx(scenes, capsys):
    settings = {
        "decoder": "deeplabv3plus",
        "encoder": "resnet18",
        "iterations": 30,
        "batch_size": 4,
        "crop": 48,
        "encoder_rate": 1.0,
        "learning_rate": 0.05,
    }
    config = scenes / "train.json"
    write_step(config, "segmentations/net", "smp", "train", settings)
    train_step.run(
        config=config,
        table=scenes / "images.csv",
        classifier=None,
        labels=[scenes / "masks"],
        ood=None,
        model=scenes / "model.pt",
        state=scenes / "state.pt",
        history=scenes / "history.csv",
        execution=Execution("cpu"),
    )
    predictor = Predictor(scenes / "model.pt")
    assert predictor.class_names == ("square",)
    image = np.asarray(Image.open(scenes / "3.png"))
    labels, probabilities = predictor.predict(image)
    truth = np.zeros((48, 56), bool)
    truth[8:40, 11:43] = True
    assert probabilities.shape == (2, 48, 56) and ((labels == 1) == truth).mean() > 0.8
    pytest.importorskip("onnxscript")
    words = ["export-model", str(scenes / "model.pt"), "--out", str(scenes / "out"), "--format", "onnx"]
    assert cli.main([*words, "--photos", str(scenes / "3.png")]) == 0, capsys.readouterr().err


def test_check_builds_what_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def check(**network) -> tuple[int, str]:
        configuration = {
            "dataset": {"format": "demo"},
            "classifiers": {"bce": {"objective": "bce", "backbone": "small"}},
            "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
            "refinements": {"crf": {"method": "crf", "seed": "cam"}},
            "segmentations": {"net": {"network": "smp", "masks": "crf", "encoder": "resnet18"} | network},
        }
        Path("mine.yaml").write_text(yaml.safe_dump(configuration))
        status = cli.main(["check", "mine.yaml"])
        said = capsys.readouterr()
        return status, said.out + said.err

    status, said = check()
    assert status == 0 and "segmentations.net: deeplabv3plus on resnet18, 12.3 million parameters" in said
    status, said = check(encoder="resnt18")
    assert status == 2 and "segmentations.net: smp cannot build deeplabv3plus on the encoder 'resnt18'" in said
    status, said = check(weights="imagenet")
    assert status == 2 and 'segmentations.net.weights: "imagenet" is not allowed; allowed: a file or null' in said
    torch.save({"x": torch.zeros(1)}, "w.pth")
    status, said = check(weights="w.pth")
    assert status == 2 and "the weights do not fit the encoder resnet18" in said
