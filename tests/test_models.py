"""Backbones, the CAM network and checkpoints."""

from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models import vgg

from wsss_core.errors import UserError
from wsss_core.models import cam_network
from wsss_core.models.backbones import FixedBatchNorm, backbone, load_weights
from wsss_core.store.checkpoints import load_network, save_network

NAMES = ("resnet50", "resnet101", "mobilenet_v2", "vgg16", "small")


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_taps_have_the_declared_channels_and_strides(name, output_stride):
    network = backbone(name, output_stride)
    with torch.no_grad():
        taps = network(torch.zeros(1, 3, 65, 90))
    expected = [(1, c, -(-65 // s), -(-90 // s)) for c, s in zip(network.channels, network.strides, strict=True)]
    assert [tuple(tap.shape) for tap in taps] == expected
    assert network.strides[-1] == output_stride
    assert network.out_channels == network.channels[-1]


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "vgg16"])
def test_torchvision_weights_load_name_by_name_with_and_without_the_head(name):
    if name == "vgg16":  # the whole network has 138 million parameters
        features = vgg.make_layers(vgg.cfgs["D"]).state_dict()
        published = {f"features.{k}": v for k, v in features.items()} | {"classifier.0.bias": torch.zeros(1)}
    else:
        published = getattr(torchvision.models, name)().state_dict()
    network = backbone(name)
    network.load(published)
    held = {id(p) for p in network.state_dict().values()}
    assert len(held) == len([k for k in published if not k.startswith(("fc.", "classifier.")) and "batches" not in k])
    network.load({k: v for k, v in published.items() if not k.startswith(("fc.", "classifier."))})


def test_stride_32_networks_agree_with_torchvision_where_nothing_was_changed():
    published = torchvision.models.resnet50().eval()
    network = backbone("resnet50")
    network.load(published.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = published.maxpool(published.relu(published.bn1(published.conv1(images))))
        expected = published.layer3(published.layer2(published.layer1(x)))
        torch.testing.assert_close(network(images)[3], expected)


def test_misfit_weights_are_listed():
    state = torchvision.models.mobilenet_v2().state_dict()
    del state["features.3.conv.0.0.weight"]
    state["features.18.0.weight"] = torch.zeros(2, 2)
    state["extra"] = torch.zeros(1)
    with pytest.raises(UserError) as caught:
        backbone("mobilenet_v2").load(state)
    for word in ("features.3.conv.0.0.weight", "features.18.0.weight (2, 2) instead of (1280, 320, 1, 1)", "extra"):
        assert word in str(caught.value)
    with pytest.raises(UserError, match="mobilenet_v2"):
        backbone("mobilenet_v2").load(torchvision.models.resnet18().state_dict())


def test_unknown_backbone_is_named():
    with pytest.raises(UserError, match="'resnet5'"):
        backbone("resnet5")


def test_batch_norm_keeps_running_statistics_in_training_mode():
    network = backbone("mobilenet_v2").train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    images = torch.randn(2, 3, 33, 33)
    one, two = network(images)[-1], network.eval()(images)[-1]
    torch.testing.assert_close(one, two)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    norms = [m for m in network.modules() if isinstance(m, FixedBatchNorm)]
    assert norms and all(norm.weight.requires_grad for norm in norms)


def test_forward_is_the_mean_of_the_maps():
    network = cam_network("small", 3).eval()
    images = torch.randn(2, 3, 50, 70)
    with torch.no_grad():
        torch.testing.assert_close(network(images), network.maps(images).mean((2, 3)))
        torch.testing.assert_close(network.maps(images, [2, 0]), network.maps(images)[:, [2, 0]])
    assert network.classifier.bias is None


def test_frozen_stages_get_no_gradient():
    network = cam_network("mobilenet_v2", 2)
    network(torch.randn(1, 3, 33, 33)).sum().backward()
    stages = network.backbone.stages
    assert all(p.grad is None for p in stages[: network.backbone.frozen].parameters())
    assert all(p.grad is not None for p in stages[network.backbone.frozen :].parameters())
    network.freeze(0)
    assert all(p.requires_grad for p in network.parameters())


def test_state_of_either_kind_rebuilds_the_network():
    network = cam_network("mobilenet_v2", 2)
    again = cam_network("mobilenet_v2", 2, network.state_dict())
    head = {"classifier.weight": network.classifier.weight.detach()}
    published = {k: v for k, v in torchvision.models.mobilenet_v2().state_dict().items() if k.startswith("features.")}
    other = cam_network("mobilenet_v2", 2, published | head)
    assert torch.equal(again.classifier.weight, network.classifier.weight)
    assert torch.equal(other.classifier.weight, network.classifier.weight)
    assert torch.equal(other.backbone.stages[0][0][0].weight, published["features.0.0.weight"])
    with pytest.raises(UserError, match="classifier.weight"):
        cam_network("mobilenet_v2", 3, published | head)
    with pytest.raises(UserError, match="do not fit"):
        cam_network("mobilenet_v2", 3, network.state_dict())


def test_weight_files_are_checked(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere.pth: weight file not found"):
        load_weights(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="text.pth"):
        load_weights(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="tensors by name"):
        load_weights(tmp_path / "list.pth")
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "good.pth")
    assert torch.equal(load_weights(tmp_path / "good.pth")["a"], torch.ones(2))


def test_checkpoint_round_trip_and_equal_bytes(tmp_path: Path):
    state = cam_network("small", 2).state_dict()
    meta = {"backbone": "small", "class_names": ["a", "b"], "settings": {"crop": 64, "long_side": (1, 2)}}
    save_network(tmp_path / "one.pt", "classifier", state, meta)
    save_network(tmp_path / "folder" / "two.pt", "classifier", state, meta)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "folder" / "two.pt").read_bytes()
    found, found_meta = load_network(tmp_path / "one.pt", "classifier")
    assert found_meta == meta
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_checkpoint_mistakes_name_the_file(tmp_path: Path):
    save_network(tmp_path / "net.pt", "irn", {}, {})
    with pytest.raises(UserError, match="net.pt: holds a network of kind 'irn', not 'classifier'"):
        load_network(tmp_path / "net.pt", "classifier")
    with pytest.raises(UserError, match="absent.pt: checkpoint not found"):
        load_network(tmp_path / "absent.pt", "irn")
    data = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cut.pt"):
        load_network(tmp_path / "cut.pt", "irn")
    torch.save({"a": torch.ones(1)}, tmp_path / "foreign.pt")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        load_network(tmp_path / "foreign.pt", "irn")
