"""Networks that leave: ONNX against torch, safetensors against the checkpoint, and what the model card says."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.scenes import write_classifier
from wsss_core import cli
from wsss_core.data.augment import normalise
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.models import cam_network
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.models.trained import open_classifier
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.segment.predict import Predictor
from wsss_core.store.checkpoints import read_checkpoint, save_network

CLASSES = ["cat", "dog"]


@pytest.fixture
def segmenter(tmp_path):
    torch.manual_seed(0)
    settings = {"rates": [1, 2], "output_stride": 8, "msc_scales": [0.5, 0.75], "variant": "paper"}
    network = deeplab_v2("small", 3, settings["rates"], scales=settings["msc_scales"])
    with torch.no_grad():
        for convolution in network.aspp:
            convolution.weight.mul_(30)
    path = tmp_path / "run/segmentations/net/model.pt"
    meta = {"backbone": "small", "class_names": CLASSES, "settings": settings, "seed": 7, "method": "deeplab_v2"}
    save_network(path, "segmentation", network.state_dict(), meta)
    return path


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def answers(path, image):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"photos": image.transpose(2, 0, 1)[None].astype(np.float32)})
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True)), session


def test_a_segmentation_network_answers_in_onnx_as_the_predictor(segmenter, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    Image.fromarray(photo(50, 70)).save(tmp_path / "photo.png")
    words = ["export-model", str(segmenter), "--out", str(tmp_path / "out"), "--format", "onnx"]
    assert cli.main([*words, "--photos", str(tmp_path / "photo.png")]) == 0
    assert "on 1 photos (70x50)" in capsys.readouterr().out
    for size in ((50, 70), (131, 96)):
        labels, probabilities = Predictor(segmenter).predict(photo(*size))
        found, session = answers(tmp_path / "out/model.onnx", photo(*size))
        np.testing.assert_allclose(found["probabilities"][0], probabilities, atol=1e-4)
        assert (found["probabilities"][0].argmax(0) == labels).mean() > 0.9999
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == CLASSES
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".tmp")] == []


def test_a_classifier_has_its_maps_in_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    write_classifier(tmp_path / "c.pt", cam_network("small", 2), CLASSES)
    assert cli.main(["export-model", str(tmp_path / "c.pt"), "--out", str(tmp_path / "out"), "--format", "onnx"]) == 0
    image = photo(90, 130)
    found, _ = answers(tmp_path / "out/model.onnx", image)
    network = open_classifier(tmp_path / "c.pt")
    pixels = torch.from_numpy(normalise(image))[None]
    np.testing.assert_allclose(found["probabilities"], network(pixels).sigmoid(), atol=1e-5)
    maps = network.maps(pixels).relu()
    np.testing.assert_allclose(found["maps"], maps / (maps.amax((2, 3), keepdim=True) + 1e-5), atol=1e-3)
    assert found["maps"].shape[2:] == cam_seed(network, image, [0], CamSettings((1.0,))).maps[1.0].shape[1:]


def test_an_answer_that_differs_is_not_kept(segmenter, tmp_path, monkeypatch, capsys):
    helper = pytest.importorskip("onnx").helper
    pytest.importorskip("onnxscript")
    from wsss_core.export_model import onnx

    values = [helper.make_tensor_value_info(name, 1, ["B", 3, "H", "W"]) for name in ("photos", "probabilities")]
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["photos"], ["probabilities"])], "other", *([v] for v in values)
    )
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    monkeypatch.setattr(onnx, "converted", lambda network: other)
    assert cli.main(["export-model", str(segmenter), "--out", str(tmp_path / "out"), "--format", "onnx"]) == 2
    assert "not written, since onnxruntime's answers differ" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_changed_labels_count_but_for_ties():
    from wsss_core.export_model.onnx import compared

    class Answers(torch.nn.Module):
        def forward(self, photos):
            return torch.tensor([0.5, 0.500001, 0.9, 0.1]).view(1, 2, 1, 2).flip(1).roll(1, 1)

    class Session:
        def __init__(self, change):
            self.change = change

        def run(self, _, given):
            return [(Answers()(None) + self.change).numpy()]

    tie = torch.zeros(1, 2, 1, 2)
    tie[0, :, 0, 0] = torch.tensor([4e-4, -4e-4])
    assert compared(Session(0.0), Answers(), [photo(1, 2)]) == (0.0, 0, 2)
    furthest, changed, _ = compared(Session(tie), Answers(), [photo(1, 2)])
    assert furthest == pytest.approx(4e-4, rel=1e-2) and changed == 0


def test_safetensors_hold_the_checkpoint_and_the_card_says_what_it_is(segmenter, tmp_path):
    library = pytest.importorskip("safetensors")
    run = segmenter.parent.parent.parent
    records = [
        ImageRecord(f"{k}", f"{k}.png", 4, 5, ("train",), (k % 2,) if k else (0, 1), "", (), "d") for k in range(3)
    ]
    write_table(run / "dataset/images.csv", ImageTable(tuple(CLASSES), tuple(records)))
    words = ["export-model", str(segmenter), "--out", str(tmp_path / "out"), "--format", "safetensors"]
    assert cli.main([*words, "--licence", "cc-by-4.0"]) == 0
    content = read_checkpoint(segmenter)
    with library.safe_open(str(tmp_path / "out/model.safetensors"), "pt") as held:
        assert {name for name in held.keys()} == set(content["state"])  # noqa: SIM118
        assert all(torch.equal(held.get_tensor(name), value) for name, value in content["state"].items())
        assert json.loads(held.metadata()["class_names"]) == CLASSES
    text = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0" and front["pipeline_tag"] == "image-segmentation"
    for line in ("1. cat", "2. dog", "3 photos with tags.", "| cat | 2 |", "| dog | 2 |", "no scores lie", "seed 7"):
        assert line in text
    assert cli.main(words) == 0, "an own card is replaced"
    (tmp_path / "out/README.md").write_text("mine")
    assert cli.main(words) == 2 and (tmp_path / "out/README.md").read_text() == "mine"
    (tmp_path / "out/README.md").unlink()
    (tmp_path / "out/model.safetensors").write_text("mine")
    assert cli.main(words) == 2 and (tmp_path / "out/model.safetensors").read_text() == "mine"


def test_a_missing_library_is_named(segmenter, tmp_path, monkeypatch, capsys):
    for form, library in (("onnx", "onnxruntime"), ("safetensors", "safetensors.torch")):
        monkeypatch.setitem(sys.modules, library, None)
        assert cli.main(["export-model", str(segmenter), "--out", str(tmp_path / "out"), "--format", form]) == 2
        assert "pip install 'wsss[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_network_of_a_refinement_does_not_leave(tmp_path, capsys):
    save_network(tmp_path / "irn.pt", "irn", {}, {"backbone": "small", "class_names": CLASSES})
    assert cli.main(["export-model", str(tmp_path / "irn.pt"), "--out", str(tmp_path / "out")]) == 2
    assert "only classifiers and segmentation networks leave" in capsys.readouterr().err
