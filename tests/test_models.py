"""Backbones, the CAM network and checkpoints."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models import vgg

from wsss_core.errors import UserError
from wsss_core.models import cam_network
from wsss_core.models.backbones import Backbone, FixedBatchNorm, backbone, load_weights
from wsss_core.models.cam import CamNetwork
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.models.irn import IrnNetwork
from wsss_core.store.checkpoints import load_network, save_network

NAMES = ("resnet50", "resnet101", "resnet38d", "mobilenet_v2", "vgg16", "small")


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_taps_have_the_declared_channels_and_strides(name, output_stride):
    with torch.device("meta"):
        network = backbone(name, output_stride)
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


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "vgg16"])
def test_a_seed_gives_the_weights_that_torchvision_has_and_leaves_the_generator_where_it_does(name):
    torch.manual_seed(5)
    if name == "vgg16":  # of whose weights torchvision draws the classifier's too
        features = vgg.make_layers(vgg.cfgs["D"])
        for module in features:
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                torch.nn.init.zeros_(module.bias)
        published = {f"features.{k}": v for k, v in features.state_dict().items()}
    else:
        published = getattr(torchvision.models, name)().state_dict()
    after = torch.rand(3)
    torch.manual_seed(5)
    drawn = backbone(name)
    assert torch.equal(torch.rand(3), after)
    loaded = backbone(name)
    loaded.load(published)
    for (own, value), other in zip(drawn.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(value, other), own


def test_stages_agree_with_torchvision_where_nothing_was_changed():
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    published = torchvision.models.resnet50().eval()
    mobile = torchvision.models.mobilenet_v2().eval()
    features = vgg.make_layers(vgg.cfgs["D"])
    network, small, large = (backbone(name).eval() for name in ("resnet50", "mobilenet_v2", "vgg16"))
    network.load(published.state_dict())
    small.load(mobile.state_dict())
    large.load({f"features.{name}": value for name, value in features.state_dict().items()})
    with torch.no_grad():
        x = published.maxpool(published.relu(published.bn1(published.conv1(images))))
        expected = published.layer3(published.layer2(published.layer1(x)))
        torch.testing.assert_close(network(images)[3], expected)
        torch.testing.assert_close(small(images)[3], mobile.features[:14](images))
        torch.testing.assert_close(large(images)[3], features[:26](images))


def test_at_a_stride_of_32_backbones_are_those_of_torchvision():
    images = torch.randn(1, 3, 70, 64, generator=torch.Generator().manual_seed(0))
    published, mobile = torchvision.models.resnet50().eval(), torchvision.models.mobilenet_v2().eval()
    network, small = backbone("resnet50", 32).eval(), backbone("mobilenet_v2", 32).eval()
    network.load(published.state_dict())
    small.load(mobile.state_dict())
    with torch.no_grad():
        x = published.maxpool(published.relu(published.bn1(published.conv1(images))))
        expected = published.layer4(published.layer3(published.layer2(published.layer1(x))))
        torch.testing.assert_close(network(images)[4], expected)
        torch.testing.assert_close(small(images)[4], mobile.features(images))


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


def wrapped(state):
    """A state in the wrappings that trainings save it in."""
    module = {f"module.{name}": value for name, value in state.items()}
    encoder = {f"module.encoder_q.{name}": value for name, value in state.items()}
    whole = {f"backbone.{name}": value for name, value in state.items()} | {"decode_head.weight": torch.ones(1)}
    optimizer = {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    return {
        "module": module,
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state, "optimizer": optimizer, "args": {"lr": 0.1}},
        "net": {"net": module},
        "nested": {"checkpoint": {"model": {"state_dict": module}}, "step": torch.ones(1)},
        "encoder": {"arch": "resnet50", "state_dict": encoder | {"module.queue": torch.ones(3)}},
        "detector": {"meta": {"classes": ["a"]}, "state_dict": whole},
        "compiled": {"_orig_mod." + name: value for name, value in state.items()},
        "lightning": {"state_dict": {f"net.model.{name}": value for name, value in state.items()}},
    }


WRAPPINGS = [*wrapped({})]


@pytest.mark.parametrize("kind", WRAPPINGS)
@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg16", "small"])
def test_weights_in_common_wrappings_are_unwrapped(kind, name, tmp_path):
    published = published_state(name)
    torch.save(wrapped(published)[kind], tmp_path / "net.pth")
    network = backbone(name)
    network.load(load_weights(tmp_path / "net.pth"))
    loaded = network.state_dict()
    assert loaded.keys() == {network._own_name(key) for key in published}
    assert all(torch.equal(loaded[network._own_name(key)], value) for key, value in published.items())


@functools.cache
def published_state(name):
    """Parameters of a backbone of one layer's worth of distinct numbers, in their published names."""
    network = backbone(name)
    return {
        network._published_name(key): torch.full_like(value, number)
        for number, (key, value) in enumerate(network.state_dict().items())
    }


def test_a_network_of_this_program_gives_its_backbone(tmp_path):
    network = cam_network("mobilenet_v2", 2)
    save_network(tmp_path / "model.pt", "classifier", network.state_dict(), {"backbone": "mobilenet_v2"})
    other = backbone("mobilenet_v2")
    other.load(load_weights(tmp_path / "model.pt"))
    assert all(torch.equal(value, network.backbone.state_dict()[key]) for key, value in other.state_dict().items())


def test_a_backbone_that_is_there_twice_is_named(tmp_path):
    state = published_state("small")
    torch.save({"model": state, "model_ema": state}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"small 2 times, as model\.\* and model_ema\.\*"):
        backbone("small").load(load_weights(tmp_path / "net.pth"))


def test_wrapped_weights_of_another_network_are_told_by_the_names_in_the_file(tmp_path):
    torch.save({"model": {f"module.{name}": value for name, value in published_state("vgg16").items()}}, tmp_path / "n")
    with pytest.raises(UserError, match=r"mobilenet_v2: parameters .* unknown \(module\.features\.0\.weight"):
        backbone("mobilenet_v2").load(load_weights(tmp_path / "n"))


def test_what_wrapped_weights_lack_is_named(tmp_path):
    state = {f"module.{name}": value for name, value in published_state("mobilenet_v2").items()}
    del state["module.features.3.conv.0.0.weight"]
    torch.save({"model": state}, tmp_path / "n")
    with pytest.raises(UserError, match=r"mobilenet_v2: parameters 1 missing \(features\.3\.conv\.0\.0\.weight\)$"):
        backbone("mobilenet_v2").load(load_weights(tmp_path / "n"))


def test_unknown_backbone_is_named():
    with pytest.raises(UserError, match="'resnet5'"):
        backbone("resnet5")
    with pytest.raises(UserError, match="output stride 64"):
        backbone("small", 64)


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


UNREADABLE = {
    "empty": (b"", "it is empty, so copy or download it again. EOFError"),
    "page": (b"<!doctype html><html>", "it is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    "safetensors": (b'\x40\0\0\0\0\0\0\0{"a":{}}', "a file of safetensors"),
    "text": (b"no weights", "Check the documentation of torch.load"),
}


@pytest.mark.parametrize("kind", [*UNREADABLE, "objects", "cut"])
def test_an_unreadable_file_is_explained_with_all_that_torch_says(kind, tmp_path):
    path = tmp_path / "net.pth"
    if kind == "objects":
        torch.save(torch.nn.Linear(1, 1), path)
        told = ["save its tensors alone", "torch.nn.modules.linear.Linear", "Check the documentation of torch.load"]
    elif kind == "cut":
        torch.save({"a": torch.ones(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
        told = ["the file was modified after saving"]
    else:
        path.write_bytes(UNREADABLE[kind][0])
        told = [UNREADABLE[kind][1]]
    for read in (load_weights, lambda path: load_network(path, "irn")):
        with pytest.raises(UserError, match=r"net\.pth: is not a readable (weight file|checkpoint)") as caught:
            read(path)
        assert all(words in str(caught.value) for words in told)
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


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


def test_a_checkpoint_with_a_flipped_bit_gives_no_other_weights(tmp_path: Path):
    """Torch reads nearly every such file without a word; the few flips that are not told are in the seal's own mark."""
    state = {"a": torch.randn(50, 60, generator=torch.Generator().manual_seed(0))}
    path = tmp_path / "net.pt"
    save_network(path, "irn", state, {})
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    told = 0
    for place in draw.integers(len(content), size=200):
        changed = bytearray(content)
        changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        try:
            found, _ = load_network(path, "irn")
        except UserError as error:
            told += 1
            assert str(path) in str(error)
        else:
            assert torch.equal(found["a"], state["a"])
    assert told > 190


PLAIN_BLOCKS = {  # of ResNet-38d: input, middle and output channels, stride, dilations
    "b2": (64, 128, 128, 2, 1, 1),
    "b2_1": (128, 128, 128, 1, 1, 1),
    "b2_2": (128, 128, 128, 1, 1, 1),
    "b3": (128, 256, 256, 2, 1, 1),
    "b3_1": (256, 256, 256, 1, 1, 1),
    "b3_2": (256, 256, 256, 1, 1, 1),
    "b4": (256, 512, 512, 2, 1, 1),
    **{f"b4_{n}": (512, 512, 512, 1, 1, 1) for n in range(1, 6)},
    "b5": (512, 512, 1024, 1, 1, 2),
    "b5_1": (1024, 512, 1024, 1, 2, 2),
    "b5_2": (1024, 512, 1024, 1, 2, 2),
}


def published_resnet38d() -> dict[str, tuple[int, ...]]:
    """Name to shape of every weight."""
    shapes = {"conv1a.weight": (64, 3, 3, 3)}
    norms = {"bn7": 4096}
    for block, (channels, middle, width, *_) in PLAIN_BLOCKS.items():
        norms |= {f"{block}.bn_branch2a": channels, f"{block}.bn_branch2b1": middle}
        shapes[f"{block}.conv_branch2a.weight"] = (middle, channels, 3, 3)
        shapes[f"{block}.conv_branch2b1.weight"] = (width, middle, 3, 3)
        if channels != width:
            shapes[f"{block}.conv_branch1.weight"] = (width, channels, 1, 1)
    for block, channels, width in (("b6", 1024, 2048), ("b7", 2048, 4096)):
        norms[f"{block}.bn_branch2a"] = channels
        norms |= {f"{block}.bn_branch2b1": width // 4, f"{block}.bn_branch2b2": width // 2}
        shapes[f"{block}.conv_branch2a.weight"] = (width // 4, channels, 1, 1)
        shapes[f"{block}.conv_branch2b1.weight"] = (width // 2, width // 4, 3, 3)
        shapes[f"{block}.conv_branch2b2.weight"] = (width, width // 2, 1, 1)
        shapes[f"{block}.conv_branch1.weight"] = (width, channels, 1, 1)
    parts = ("weight", "bias", "running_mean", "running_var")
    return shapes | {f"{name}.{part}": (channels,) for name, channels in norms.items() for part in parts}


def resnet38d_loop(state: dict[str, torch.Tensor], images: torch.Tensor) -> list[torch.Tensor]:
    """The inputs of b3, b4, b5 and b6, and the output of bn7, all normalised and rectified."""

    def activated(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, mean, var, weight, bias))

    def convolved(x: torch.Tensor, name: str, stride: int = 1, dilation: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, None, stride, dilation * (weight.shape[2] // 2), dilation)

    x, taps = convolved(images, "conv1a"), []
    for block, (channels, _, width, stride, *dilations) in PLAIN_BLOCKS.items():
        start = activated(x, f"{block}.bn_branch2a")
        if block in ("b3", "b4", "b5"):
            taps.append(start)
        shortcut = x if channels == width else convolved(start, f"{block}.conv_branch1", stride)
        middle = activated(convolved(start, f"{block}.conv_branch2a", stride, dilations[0]), f"{block}.bn_branch2b1")
        x = shortcut + convolved(middle, f"{block}.conv_branch2b1", 1, dilations[1])
    for block in ("b6", "b7"):
        start = activated(x, f"{block}.bn_branch2a")
        if block == "b6":
            taps.append(start)
        middle = activated(convolved(start, f"{block}.conv_branch2a"), f"{block}.bn_branch2b1")
        middle = activated(convolved(middle, f"{block}.conv_branch2b1", 1, 4), f"{block}.bn_branch2b2")
        x = convolved(start, f"{block}.conv_branch1") + convolved(middle, f"{block}.conv_branch2b2")
    return [*taps, activated(x, "bn7")]


def test_resnet38d_has_the_published_names_and_size():
    with torch.device("meta"):
        network = backbone("resnet38d")
        published = {name: torch.zeros(shape) for name, shape in published_resnet38d().items()}
        heads = {"fc8.weight": torch.zeros(20, 4096, 1, 1), "bn7.num_batches_tracked": torch.zeros(())}
        network.load(published | heads)
        with pytest.raises(UserError, match="1 missing .b3.bn_branch2a.bias.*1 unknown .extra"):
            network.load(
                {k: v for k, v in published.items() if k != "b3.bn_branch2a.bias"} | {"extra": published["bn7.bias"]}
            )
    assert sum(p.numel() for p in network.parameters()) == 105_023_168
    assert not any("bn" in name for name, _ in network.named_parameters()), "scale and shift are fixed"
    frozen = {network._published_name(f"stages.0.{name}") for name, _ in network.stages[0].named_parameters()}
    assert network.frozen == 1
    assert frozen == {name for name in published if name.startswith(("conv1a.", "b2")) and "conv" in name}


@pytest.fixture(scope="module")
def wide() -> tuple[Backbone, dict[str, torch.Tensor]]:
    """A random ResNet-38d and its weights by published name."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in published_resnet38d().items():
        if "conv" in name:
            state[name] = torch.empty(shape).uniform_(-1, 1, generator=random).mul_((shape[1] * shape[2] ** 2) ** -0.5)
        else:
            state[name] = torch.empty(shape).uniform_(0.5, 1.5, generator=random)
    with torch.device("meta"):
        network = backbone("resnet38d")
    own = {network._own_name(name): value for name, value in state.items()}
    network.load_state_dict(own, assign=True)
    return network, state


def test_resnet38d_equals_the_obvious_loop_and_drops_channels_in_training_alone(wide):
    network, state = wide
    images = torch.randn(1, 3, 17, 26, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        still, taps = network.eval()(images), network.train()(images)
        expected = resnet38d_loop(state, images)
    for found, wanted in zip(still, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(one, two) for one, two in zip(still[:4], taps[:4], strict=True))
    assert not torch.allclose(still[4], taps[4])


def test_resnet38d_at_stride_16_is_every_second_cell(wide):
    network, _ = wide
    with torch.device("meta"):
        coarse = backbone("resnet38d", 16).eval()
    coarse.load_state_dict(network.state_dict(), assign=True)
    images = torch.randn(1, 3, 23, 41, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for fine, found in zip(network.eval()(images)[3:], coarse(images)[3:], strict=True):
            torch.testing.assert_close(found, fine[..., ::2, ::2], rtol=1e-4, atol=1e-4)


def test_resnet38d_fits_what_is_built_on_backbones():
    with torch.device("meta"):
        network = CamNetwork(backbone("resnet38d"), 3)
        images = torch.zeros(2, 3, 65, 90)
        assert network.prefix(images).shape == (2, 512, 9, 12), "RIB adapts b5, b6 and b7"
        assert network.maps(images).shape == (2, 3, 9, 12) and network(images).shape == (2, 3)
        boundaries, displacements = IrnNetwork(network.backbone)(images)
        assert boundaries.shape == (2, 1, 17, 23) and displacements.shape == (2, 2, 17, 23)
        assert deeplab_v2("resnet38d", 4).eval()(images).shape == (2, 4, 9, 12)
        with pytest.raises(UserError, match="not for resnet38d"):
            deeplab_v2("resnet38d", 4, variant="official")
