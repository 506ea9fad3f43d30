"""Networks of IRN and AffinityNet from released files, and MXNet's parameters: names, what does not fit, the steps.

The files are made up here under the names of the published code, from networks whose answers are known.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.scenes import write_step
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs.walk_network import open_walk_network
from wsss_core.models.affinity import AffinityNetwork
from wsss_core.models.backbones import BackboneNetwork, backbone, load_weights
from wsss_core.models.backbones.mxnet import psa_name
from wsss_core.models.irn import IrnNetwork
from wsss_core.refine.irn import pretrained as irn
from wsss_core.refine.psa import pretrained as psa
from wsss_core.steps import pretrained
from wsss_core.store.checkpoints import save_network

CLASSES = ("cow", "cat", "dog")
IMAGES = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def layers(network: BackboneNetwork, words: str = "") -> dict[str, Tensor]:
    own = network.backbone.state_dict()
    return {words + network.backbone._published_name(name): value for name, value in own.items()}


@pytest.fixture(scope="module")
def relations() -> IrnNetwork:
    torch.manual_seed(0)
    network = IrnNetwork(backbone("resnet50")).eval()
    for parameter in network.parameters():  # group normalisations begin with ones and zeros
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    network.mean_shift.copy_(torch.tensor([0.5, -2.0]))
    return network


@pytest.fixture(scope="module")
def affinity() -> AffinityNetwork:
    torch.manual_seed(1)
    return AffinityNetwork(backbone("resnet38d")).eval()


class Published(nn.Module):
    """IRN's branches with the names of the published code, and its arithmetic, on given taps."""

    def __init__(self) -> None:
        super().__init__()

        def block(channels: int, width: int, groups: int, scale: int = 1) -> nn.Sequential:
            enlarged = [] if scale == 1 else [nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)]
            layers = [nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width), *enlarged, nn.ReLU()]
            return nn.Sequential(*layers)

        taps = (64, 256, 512, 1024, 2048)
        for k, (channels, scale) in enumerate(zip(taps, (1, 1, 2, 4, 4), strict=True), start=1):
            self.add_module(f"fc_edge{k}", block(channels, 32, 4, scale))
        self.fc_edge6 = nn.Conv2d(160, 1, 1)
        widths, groups, scales = (64, 128, 256, 256, 256), (8, 16, 16, 16, 16), (1, 1, 1, 2, 2)
        for k, given in enumerate(zip(taps, widths, groups, scales, strict=True), start=1):
            self.add_module(f"fc_dp{k}", block(*given))
        self.fc_dp6 = block(768, 256, 16, 2)
        mean = nn.BatchNorm2d(2, affine=False)
        last = [nn.Conv2d(448, 256, 1, bias=False), nn.GroupNorm(16, 256), nn.ReLU(), nn.Conv2d(256, 2, 1, bias=False)]
        self.fc_dp7 = nn.Sequential(*last, mean)

    def forward(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        def cut(part: Tensor, like: Tensor) -> Tensor:
            return part[..., : like.shape[2], : like.shape[3]]

        edges = [self.get_submodule(f"fc_edge{k}")(tap) for k, tap in enumerate(taps, start=1)]
        boundary = self.fc_edge6(torch.cat([cut(edge, edges[1]) for edge in edges], 1))
        parts = [self.get_submodule(f"fc_dp{k}")(tap) for k, tap in enumerate(taps, start=1)]
        deep = self.fc_dp6(torch.cat([cut(part, parts[2]) for part in parts[2:]], 1))
        found = torch.cat([*parts[:2], cut(deep, parts[1])], 1)
        for layer in self.fc_dp7[:-1]:
            found = layer(found)
        return boundary, found - self.fc_dp7[-1].running_mean[:, None, None]


@pytest.mark.parametrize("words", ["", "module."])
def test_a_released_irn_gives_the_answers_of_its_own_code(relations, tmp_path, words):
    torch.manual_seed(2)
    theirs = Published().eval()
    theirs.fc_dp7[-1].running_mean.copy_(torch.tensor([0.5, -2.0]))
    state = (
        layers(relations, "resnet50.") | theirs.state_dict() | {"path_indices0": torch.zeros(3, 2, dtype=torch.long)}
    )
    state |= {f"edge_layers.0.{name}": value for name, value in theirs.fc_edge1.state_dict().items()}
    state |= {f"stage2.0.{n[7:]}": value for n, value in layers(relations).items() if n.startswith("layer1.")}
    torch.save({words + name: value for name, value in state.items()}, tmp_path / "res50_irn.pth")
    network = irn.adopted(irn.PretrainedSettings(file=str(tmp_path / "res50_irn.pth")), CLASSES)
    with torch.no_grad():
        expected = theirs(relations.backbone(IMAGES))
        for found, wanted in zip(network(IMAGES), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def published_psa(network: AffinityNetwork) -> dict[str, Tensor]:
    heads = {f"f8_{k + 3}.weight": network.taps[k][0].weight.detach() for k in range(3)}
    return layers(network) | heads | {"f9.weight": network.mix.weight.detach()}


def test_a_released_affinity_network_gives_its_own_features(affinity, tmp_path):
    torch.save(published_psa(affinity), tmp_path / "aff.pth")
    network = psa.adopted(psa.PretrainedSettings(file=str(tmp_path / "aff.pth")), CLASSES)
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES), affinity(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda s: s.pop("f9.weight"), {}, "f9.weight is missing"),
        (lambda s: s.pop("f8_3.weight"), {}, "no parameter is called f8_3.weight; the file holds"),
        (lambda s: s.update({"f8_5.weight": torch.zeros(256, 512, 1, 1)}), {}, "f8_5.weight is 256x512x1x1, not"),
        (lambda s: s.pop("b4_2.conv_branch2a.weight"), {}, "1 missing"),
        (lambda s: s["f9.weight"].fill_(float("inf")), {}, "not finite"),
        (lambda s: None, {"backbone": "resnet50"}, "is another backbone's file|is it another backbone's file"),
    ],
)
def test_a_file_that_does_not_fit_is_told_in_a_line(affinity, tmp_path, change, settings, message):
    path = tmp_path / "aff.pth"
    state = {name: value.clone() for name, value in published_psa(affinity).items()}
    change(state)
    torch.save(state, path)
    with pytest.raises(UserError, match=message) as told:
        psa.adopted(psa.PretrainedSettings(file=str(path), **settings), CLASSES)
    assert str(told.value).startswith(str(path)) and len(str(told.value).splitlines()) == 1


def test_the_step_writes_a_network_that_walks_open(tmp_path):
    torch.manual_seed(3)
    small = IrnNetwork(backbone("small")).eval()
    small.mean_shift.copy_(torch.tensor([1.0, 2.0]))
    save_network(tmp_path / "network.pt", "irn", small.state_dict(), small.about | {"class_names": CLASSES})
    write_table(tmp_path / "train.csv", ImageTable(CLASSES, (ImageRecord("a", "a.png", 4, 4, ("train",), (0,)),)))
    settings = irn.PretrainedSettings(file=str(tmp_path / "network.pt"))
    config = write_step(tmp_path / "s.json", "refinements/x", "irn_pretrained", "pretrained", settings)
    out = tmp_path / "out/network.pt"
    pretrained.run(config=config, table=tmp_path / "train.csv", model=out, execution=Execution("cpu"))
    found = open_walk_network(out, IrnNetwork, CLASSES, torch.device("cpu"))
    with torch.no_grad():
        for one, other in zip(found(IMAGES), small(IMAGES), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="class"):
        irn.adopted(settings, ("cat", "cow", "dog"))


def mxnet_array(array: np.ndarray, version: int) -> bytes:
    """An array as MXNet's versions have written it: 0 (until 0.9), 1 (until 0.12), 2, 3 (of numpy's shapes)."""
    kinds = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
    sides = [struct.pack("<I" if version == 0 else "<q", side) for side in array.shape]
    head = {0: b"", 1: b"\xc8\xfa\x93\xf9", 2: b"\xc9\xfa\x93\xf9" + bytes(4), 3: b"\xca\xfa\x93\xf9" + bytes(4)}[
        version
    ]
    head += bytes([array.ndim, 0, 0, 0]) + b"".join(sides)
    return head + struct.pack("<iii", 1, 0, kinds[array.dtype.name]) + array.tobytes()


def mxnet_file(path: Path, arrays: dict[str, np.ndarray], version: int = 2) -> Path:
    names = b"".join(len(name).to_bytes(8, "little") + name.encode() for name in arrays)
    count = len(arrays).to_bytes(8, "little")
    content = b"".join(mxnet_array(array, version) for array in arrays.values())
    path.write_bytes(b"\x12\x01" + bytes(6) + bytes(8) + count + content + count + names)
    return path


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"])
def test_arrays_of_mxnet_are_read_in_every_version_and_type(tmp_path, version, kind):
    arrays = {
        "arg:a": np.arange(24).reshape(2, 3, 4).astype(kind),
        "b": np.array([7]).astype(kind),
        "aux:c": np.zeros((0, 2), kind),
    }
    found = load_weights(mxnet_file(tmp_path / "w.params", arrays, version))
    assert list(found) == ["a", "b", "c"]
    for name, array in zip(found, arrays.values(), strict=True):
        assert found[name].numpy().dtype == array.dtype and np.array_equal(found[name].numpy(), array)


def mxnet_name(name: str) -> str:
    """The name in the authors' file of a parameter of ResNet-38d, from the other side than `psa_name`."""
    if name == "conv1a.weight":
        return "arg:conv1a_weight"
    place, *middle, part = name.split(".")
    parts = {"weight": "arg:{}_gamma", "bias": "arg:{}_beta"}
    parts |= {"running_mean": "aux:{}_moving_mean", "running_var": "aux:{}_moving_var"}
    if place == "bn7":
        return parts[part].format("bn7")
    digit, _, repeated = place.removeprefix("b").partition("_")
    kind, _, branch = middle[0].partition("_")
    block = f"{digit}{f'b{repeated}' if repeated else 'a'}_{branch}"
    return f"arg:res{block}_weight" if kind == "conv" else parts[part].format(f"bn{block}")


def test_a_resnet38_of_mxnet_is_loaded_whole(affinity, tmp_path):
    state = {n: v for n, v in layers(affinity).items() if not n.endswith("num_batches_tracked")}
    assert all(psa_name(mxnet_name(name)) == name for name in state)
    arrays = {mxnet_name(name): value.numpy() for name, value in state.items()}
    arrays |= {"arg:linear1000_weight": np.ones((5, 4), np.float32), "arg:linear1000_bias": np.ones(5, np.float32)}
    path = mxnet_file(tmp_path / "ilsvrc-cls_rna-a1_cls1000_ep-0001.params", arrays, 0)
    torch.manual_seed(9)
    loaded = backbone("resnet38d")
    loaded.load(load_weights(path))
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, affinity.backbone.state_dict()[name]), name


def test_damaged_parameters_of_mxnet_are_told_in_a_line(tmp_path):
    whole = mxnet_file(tmp_path / "w.params", {"arg:a": np.ones((2, 3), np.float32), "b": np.ones(4, np.int8)})
    content = whole.read_bytes()
    damaged = [content[:length] for length in range(9, len(content))]
    rng = np.random.default_rng(0)
    for place in range(8, len(content)):
        changed = bytearray(content)
        changed[place] = rng.integers(256)
        damaged.append(bytes(changed))
    for number, one in enumerate(damaged):
        whole.write_bytes(one)
        try:
            load_weights(whole)
        except UserError as error:
            assert str(error).startswith(str(whole)) and "\n" not in str(error)
        else:
            assert number >= len(content) - 9, "what is cut off is never read"
