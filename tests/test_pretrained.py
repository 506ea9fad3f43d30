"""Classifiers from released files: their names, what does not fit, and the way through the steps.

The files are made up here under the names of the published code, from networks whose answers are known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from tests.scenes import write_step
from wsss_core import cli
from wsss_core.classify.pretrained import OF_SEAM, PretrainedSettings, adopted
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.models import cam_network
from wsss_core.models.backbones import backbone
from wsss_core.models.cam import CamNetwork
from wsss_core.models.sc_cam import ScCamNetwork
from wsss_core.models.seam import SeamNetwork
from wsss_core.models.trained import open_classifier
from wsss_core.steps import pretrained
from wsss_core.store.checkpoints import save_network

CLASSES = ("cow", "cat", "dog")
IMAGES = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def published(network: CamNetwork, words: str = "") -> dict[str, Tensor]:
    """The backbone's parameters under their published names."""
    own = network.backbone.state_dict()
    return {words + network.backbone._published_name(name): value for name, value in own.items()}


@pytest.fixture(scope="module")
def resnet() -> CamNetwork:
    torch.manual_seed(0)
    return cam_network("resnet50", 3).eval()


@pytest.fixture(scope="module")
def wide() -> CamNetwork:
    torch.manual_seed(1)
    return cam_network("resnet38d", 3).eval()


def irn(network: CamNetwork, words: str = "") -> dict[str, Tensor]:
    """Each layer of ResNet-50 under three names, as IRN, AdvCAM and RIB save it, with ImageNet's last layer."""
    layers = published(network)
    state = {f"resnet50.{name}": value for name, value in layers.items()}
    state["resnet50.fc.weight"] = torch.zeros(1000, 2048)
    for name, value in layers.items():
        if name.startswith("layer2."):
            state |= {f"stage2.0.{name[7:]}": value, f"backbone.1.0.{name[7:]}": value}
    state |= {"classifier.weight": network.classifier.weight, "newly_added.0.weight": network.classifier.weight}
    return {words + name: value.detach() for name, value in state.items()}


def same(found: CamNetwork, network: CamNetwork, tolerance: float = 0) -> None:
    with torch.no_grad():
        torch.testing.assert_close(found.maps(IMAGES), network.maps(IMAGES), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "wrap", [dict, lambda state: {"state_dict": state}, lambda state: {"model": state, "epoch": 3}]
)
@pytest.mark.parametrize("words", ["", "module."])
def test_a_released_resnet_gives_its_own_maps(resnet, tmp_path, words, wrap):
    torch.save(wrap(irn(resnet, words)), tmp_path / "res50_cam.pth")
    same(adopted(PretrainedSettings(file=str(tmp_path / "res50_cam.pth")), CLASSES), resnet)


def test_networks_of_torchvision_lose_their_bias(resnet, tmp_path):
    layer = {"fc.weight": resnet.classifier.weight.detach().flatten(1), "fc.bias": torch.ones(3)}
    torch.save(published(resnet) | layer, tmp_path / "resnet.pth")
    same(adopted(PretrainedSettings(file=str(tmp_path / "resnet.pth")), CLASSES), resnet)
    mobile = cam_network("mobilenet_v2", 3).eval()
    layer = {"classifier.1.weight": mobile.classifier.weight.detach().flatten(1), "classifier.1.bias": torch.ones(3)}
    torch.save(published(mobile) | layer, tmp_path / "mobile.pth")
    same(adopted(PretrainedSettings(file=str(tmp_path / "mobile.pth"), backbone="mobilenet_v2"), CLASSES), mobile)


def test_a_released_resnet38_gives_its_own_maps(wide, tmp_path):
    torch.save(published(wide) | {"fc8.weight": wide.classifier.weight.detach()}, tmp_path / "psa.pth")
    found = adopted(PretrainedSettings(file=str(tmp_path / "psa.pth"), backbone="resnet38d"), CLASSES)
    assert found.architecture == "cam"
    same(found, wide)


def test_a_seam_file_brings_its_correlation_and_loses_the_background(wide, tmp_path):
    torch.manual_seed(2)
    seam = SeamNetwork(backbone("resnet38d"), 3).eval()
    seam.backbone.load_state_dict(wide.backbone.state_dict())
    layer = torch.cat([torch.full((1, 4096, 1, 1), 9.0), seam.classifier.weight.detach()])
    state = {name: seam.get_submodule(module).weight.detach() for name, module in OF_SEAM.items()}
    torch.save(published(seam) | {"fc8.weight": layer} | state, tmp_path / "seam.pth")
    found = adopted(PretrainedSettings(file=str(tmp_path / "seam.pth"), backbone="resnet38d"), CLASSES)
    with torch.no_grad():
        torch.testing.assert_close(found.activations(IMAGES), seam.activations(IMAGES), rtol=0, atol=0)


def test_an_sc_cam_file_brings_its_sub_categories_in_the_order_of_the_classes(wide, tmp_path):
    network = ScCamNetwork(backbone("resnet38d"), 3, clusters=2).eval()
    network.backbone.load_state_dict(wide.backbone.state_dict())
    heads = {"fc8_20.weight": network.classifier.weight, "fc8_200.weight": network.subclassifier.weight}
    heads = {name: value.detach() for name, value in heads.items()}
    torch.save(published(network) | heads, tmp_path / "sc.pth")
    settings = PretrainedSettings(file=str(tmp_path / "sc.pth"), backbone="resnet38d", classes=("dog", "cow", "cat"))
    found = adopted(settings, CLASSES)
    assert found.clusters == 2
    assert torch.equal(found.classifier.weight, network.classifier.weight[[1, 2, 0]])
    assert torch.equal(found.subclassifier.weight, network.subclassifier.weight[[2, 3, 4, 5, 0, 1]])


def saved(change: Callable[[dict], object]) -> Callable[[CamNetwork, Path], None]:
    def save(network: CamNetwork, path: Path) -> None:
        state = irn(network)
        change(state)
        torch.save(state, path)

    return save


@pytest.mark.parametrize(
    ("save", "settings", "message"),
    [
        (saved(lambda s: s.pop("classifier.weight")), {}, "has 1000 outputs, the data set has 3 classes"),
        (saved(lambda s: [s.pop(n) for n in list(s) if "fc." in n or "classifier" in n]), {}, "no parameter is called"),
        (saved(lambda s: s.pop("resnet50.layer3.1.conv2.weight")), {}, r"1 missing \(layer3.1.conv2.weight\)"),
        (saved(lambda s: s["resnet50.bn1.weight"].fill_(float("nan"))), {}, "not finite"),
        (saved(lambda s: None), {"backbone": "resnet38d"}, "is 3x2048x1x1, this backbone takes 3x4096x1x1"),
        (saved(lambda s: None), {"backbone": "resnet101"}, "do not fit the backbone resnet101"),
        (saved(lambda s: None), {"classes": ("cow", "cat")}, "has 3 outputs, the setting classes names 2 classes"),
        (saved(lambda s: None), {"classes": ("cow", "cat", "cod")}, "does not name dog"),
        (lambda network, path: path.write_bytes(b""), {}, "it is empty"),
        (lambda network, path: path.write_text("<html>"), {}, "it is a web page"),
        (lambda network, path: None, {}, "weight file not found"),
    ],
)
def test_a_file_that_does_not_fit_is_told_in_a_line(resnet, tmp_path, save, settings, message):
    path = tmp_path / "c.pth"
    save(resnet, path)
    with pytest.raises(UserError, match=message) as told:
        adopted(PretrainedSettings(file=str(path), **settings), CLASSES)
    assert str(told.value).startswith(str(path)) and len(str(told.value).splitlines()) == 1


@pytest.fixture
def small(tmp_path) -> CamNetwork:
    """A classifier of a run, in ``model.pt``."""
    torch.manual_seed(3)
    network = cam_network("small", 3).eval()
    save_network(tmp_path / "model.pt", "classifier", network.state_dict(), network.about | {"class_names": CLASSES})
    return network


def test_a_checkpoint_of_a_run_is_taken_for_its_own_classes(small, tmp_path):
    settings = PretrainedSettings(file=str(tmp_path / "model.pt"))
    same(adopted(settings, CLASSES), small)
    with pytest.raises(
        UserError, match="is for the classes cow, cat, dog, in this order; the data set has cat, cow, d"
    ):
        adopted(settings, ("cat", "cow", "dog"))


def test_the_step_writes_a_classifier_that_the_others_open(small, tmp_path):
    records = (ImageRecord("a", "a.png", 4, 4, ("train",), (0,)),)
    write_table(tmp_path / "train.csv", ImageTable(CLASSES, records))
    settings = PretrainedSettings(file=str(tmp_path / "model.pt"))
    config = write_step(tmp_path / "s.json", "classifiers/x", "pretrained", "pretrained", settings)
    out = tmp_path / "out/model.pt"
    pretrained.run(config=config, table=tmp_path / "train.csv", model=out, execution=Execution("cpu"))
    found = open_classifier(out)
    assert found.class_names == CLASSES
    same(found, small, 1e-5)  # opened networks have another order in memory


def test_check_says_what_a_file_holds(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, words in (("labels.csv", "image,labels\na.jpg,cow\n"), ("a.jpg", "")):
        (tmp_path / "photos" / name).write_text(words)
    dataset = {"format": "table", "root": "photos", "unreadable": "skip"}
    raw = {"run": "x", "dataset": dataset, "seeds": {"cam": {"method": "cam", "classifier": "theirs"}}}

    def told(status: int, **settings) -> str:
        classifiers = {"theirs": {"objective": "pretrained", **settings}}
        Path("mine.yaml").write_text(yaml.safe_dump(raw | {"classifiers": classifiers}))
        assert cli.main(["check", "mine.yaml"]) == status
        shown = capsys.readouterr()
        return shown.err if status else shown.out

    assert "classifiers.theirs: there is no file nothing.pth yet" in told(0, file="nothing.pth")
    assert "is for the classes cow, cat, dog" in told(2, file="model.pt")
    Path("photos/labels.csv").write_text("image,labels\na.jpg,cow cat dog\n")
    assert "classifiers.theirs" in told(2, file="photos/labels.csv")
