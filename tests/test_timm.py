"""Networks of timm as backbones, with tiny random configurations of timm's own classes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from wsss_core import cli
from wsss_core.data.augment import MEAN, STD
from wsss_core.errors import UserError
from wsss_core.models import cam_network
from wsss_core.models.affinity import AffinityNetwork
from wsss_core.models.backbones import FixedBatchNorm, backbone, load_weights
from wsss_core.models.cct import CctNetwork
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.models.irn import IrnNetwork, resize
from wsss_core.models.seam import SeamNetwork
from wsss_core.seeds.advcam import AdvCamSettings, advcam_seed
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.seeds.grad_cam import GradCamSettings, grad_cam_seed
from wsss_core.seeds.rib import RibSettings, rib_seed

timm = pytest.importorskip("timm", reason="pip install 'wsss[timm]'")

ROWS = (
    "test_resnet",
    "test_convnext",
    "test_efficientnet",
    "test_byobnet",
    "test_nfnet",
    "mobilenetv3_small_050",
    "test_mambaout",
)
"""Networks that are a row of modules: with an output stride of 16, and the last one with its own."""

TRANSFORMERS = ("test_vit", "test_vit2", "test_vit3", "eva02_tiny_patch14_224", "deit_tiny_distilled_patch16_224")
KINDS = ("test_resnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_vit", "eva02_tiny_patch14_224")
"""One of each kind, on which every method is tried."""


def drawn(name: str, seed: int = 0, **arguments):
    """A network of timm with random weights, running statistics that are not those of a new one, and its state."""
    torch.manual_seed(seed)
    network = timm.create_model(name, pretrained=False, **arguments).eval()
    for parameter, value in network.state_dict().items():
        if parameter.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif parameter.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return network


def seen_by(network, images: torch.Tensor) -> torch.Tensor:
    """Images normalised as here, as the network of timm wants them."""
    mean, std, theirs, deviation = (
        torch.tensor(values).view(3, 1, 1)
        for values in (MEAN, STD, network.default_cfg["mean"], network.default_cfg["std"])
    )
    return (images * std + mean - theirs) / deviation


def images_of(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*ROWS, *TRANSFORMERS])
def test_taps_have_the_declared_channels_and_strides_at_any_size(name):
    network = backbone(f"timm:{name}").eval()
    for size in ((65, 90), (96, 64), (33, 47)):
        with torch.no_grad():
            taps = network(images_of(*size))
        expected = [
            (2, c, *(-(-side // s) for side in size)) for c, s in zip(network.channels, network.strides, strict=True)
        ]
        assert [tuple(tap.shape) for tap in taps] == expected
    assert network.out_channels == network.channels[-1]


@pytest.mark.parametrize("name", ROWS)
def test_taps_of_a_row_are_those_of_features_only(name):
    stride = {} if name == "test_mambaout" else {"output_stride": 16}
    whole, images = drawn(name), images_of(64, 96)
    network = backbone(f"timm:{name}").eval()
    network.load(whole.state_dict())
    theirs = timm.create_model(name, pretrained=False, features_only=True, **stride).eval()
    named = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    theirs.load_state_dict({key: named[key.replace(".", "_")] for key in theirs.state_dict()})
    with torch.no_grad():
        expected = theirs(seen_by(whole, images))
        if theirs.output_fmt.value == "NHWC" if hasattr(theirs, "output_fmt") else False:
            expected = [tap.permute(0, 3, 1, 2) for tap in expected]
        taps = network(images)
    for tap, other in list(zip(taps[::-1], expected[::-1], strict=False))[1:]:
        torch.testing.assert_close(tap, other)
    if name not in ("test_efficientnet", "test_byobnet", "test_nfnet"):  # with more behind, in the next test
        torch.testing.assert_close(taps[-1], expected[-1])


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_efficientnet", "test_byobnet", "test_nfnet", "densenet121", "resnetv2_18", "regnetx_002"],
)
def test_the_last_tap_is_what_the_network_pools(name):
    whole, images = drawn(name), images_of(64, 96)
    network = backbone(f"timm:{name}", 32).eval()
    network.load(whole.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network(images)[-1], whole.forward_features(seen_by(whole, images)))


def test_features_of_swin_are_timms_where_nothing_is_padded():
    whole, images = drawn("swin_s3_tiny_224"), images_of(224, 224)
    network = backbone("timm:swin_s3_tiny_224", 32).eval()
    network.load(whole.state_dict())
    with torch.no_grad():
        found = network(images)
        expected = whole.forward_features(seen_by(whole, images)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found[-1], expected)
    assert [tap.shape[1] for tap in found] == [96, 96, 192, 384, 768]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_taps_of_a_transformer_are_those_of_forward_intermediates(name):
    whole = drawn(name, dynamic_img_size=True)
    network = backbone(f"timm:{name}").eval()
    network.load(whole.state_dict())
    patch, depth = network.strides[-1], len(whole.blocks)
    images = images_of(3 * patch, 5 * patch)
    ends = [round(depth * part / 4) - 1 for part in (1, 2, 3, 4)]
    with torch.no_grad():
        last, expected = whole.forward_intermediates(seen_by(whole, images), indices=ends)
        final = whole.fc_norm if isinstance(whole.norm, torch.nn.Identity) else whole.norm
        tokens = final(expected[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        taps = network(images)
    for tap, other in zip(taps[1:], [*expected[:-1], tokens], strict=True):
        torch.testing.assert_close(tap, other)
    if not isinstance(whole.norm, torch.nn.Identity):
        plain = last[:, whole.num_prefix_tokens :].transpose(1, 2).unflatten(2, (3, 5))
        torch.testing.assert_close(taps[-1], plain)


def test_an_image_that_ends_within_a_patch_is_continued_by_the_networks_zero():
    """Padding comes behind the new normalisation, so what is beyond is the mean of the network's own images."""
    network, images = backbone("timm:test_vit").eval(), images_of(40, 50)
    zero = (torch.tensor([0.5, 0.5, 0.5]) - torch.tensor(MEAN)) / torch.tensor(STD)
    whole = zero.view(1, 3, 1, 1).repeat(2, 1, 48, 64)
    whole[:, :, :40, :50] = images
    with torch.no_grad():
        torch.testing.assert_close(network(images)[-1], network(whole)[-1])


def test_patches_may_overlap_for_a_finer_grid():
    fine, plain = backbone("timm:test_vit", 8).eval(), backbone("timm:test_vit").eval()
    fine.load_state_dict(plain.state_dict())
    with torch.no_grad():
        taps = fine(images_of(48, 65))
    assert [tuple(tap.shape[2:]) for tap in taps] == [(6, 9)] * 5
    with pytest.raises(UserError, match="patches have 14 pixels, so its output stride cannot be 16; set 8, or null"):
        backbone("timm:eva02_tiny_patch14_224", 16)


@pytest.mark.parametrize("name", KINDS)
def test_stages_can_be_run_one_by_one_and_kept_in_between(name):
    network = cam_network(f"timm:{name}", 3).eval()
    images = images_of(48, 61)
    with torch.no_grad():
        torch.testing.assert_close(network.trunk(network.prefix(images)), network.backbone(images)[-1])
        torch.testing.assert_close(network(images), network.maps(images).mean((2, 3)))


@pytest.mark.parametrize("name", KINDS)
def test_normalisation_keeps_its_statistics_in_training(name):
    network = backbone(f"timm:{name}").train()
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in network.modules())
    before = {key: value.clone() for key, value in network.named_buffers()}
    network(images_of(64, 64))
    assert all(torch.equal(before[key], value) for key, value in network.named_buffers())
    norms = [module for module in network.modules() if isinstance(module, FixedBatchNorm)]
    assert bool(norms) == (name in ("test_resnet", "test_efficientnet"))


@pytest.mark.parametrize("name", KINDS)
def test_leading_stages_stay_frozen_and_the_others_learn(name):
    network = cam_network(f"timm:{name}", 3).train()
    network(images_of(48, 48)).square().sum().backward()
    for number, stage in enumerate(network.backbone.stages):
        grads = [p.grad is not None for p in stage.parameters()]
        assert not any(grads) if number < 3 else all(grads)


# --- weight files ---


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "mobilenetv3_small_050", "eva02_tiny_patch14_224"])
@pytest.mark.parametrize("kind", ["weights.pth", "model.safetensors"])
def test_a_file_with_timms_names_is_loaded_and_its_head_left(name, kind, tmp_path):
    whole, path = drawn(name), tmp_path / kind
    state = {key: value.contiguous() for key, value in whole.state_dict().items()}
    if kind.endswith("pth"):
        torch.save({"state_dict": state}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, path)
    network = backbone(f"timm:{name}")
    network.load(load_weights(path))
    held = {own: state[network._published_name(own)] for own in network.state_dict()}
    assert all(torch.equal(value, held[own]) for own, value in network.state_dict().items())


def test_weights_that_do_not_fit_are_named_as_timm_names_them():
    state = dict(drawn("test_resnet").state_dict())
    del state["layer3.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"1 missing \(layer3.0.conv1.weight\); 1 unknown \(layer9.weight\)"):
        backbone("timm:test_resnet").load(state)
    state = dict(drawn("test_vit").state_dict())
    state["pos_embed"] = state["pos_embed"][:, :-5]
    with pytest.raises(UserError, match=r"of another shape \(pos_embed"):
        backbone("timm:test_vit").load(state)


def test_a_damaged_file_of_safetensors_is_told(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00 nothing")
    with pytest.raises(UserError, match="model.safetensors: is not a readable weight file"):
        load_weights(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="weight file not found"):
        load_weights(tmp_path / "other.safetensors")


# --- methods ---


@pytest.fixture(scope="module", params=KINDS)
def classifier(request):
    torch.manual_seed(3)
    return cam_network(f"timm:{request.param}", 3).eval()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8)


def pool(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return images_of(64, 64, seed=step), torch.tensor([[0.0, 1, 0], [0, 0, 1]])


def test_cam_rib_and_advcam_make_maps_and_put_the_network_back(classifier, photo):
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    stride = classifier.stride
    made = {
        "cam": cam_seed(classifier, photo, [0, 2], CamSettings(scales=(1.0, 0.5))),
        "rib": rib_seed(
            classifier, photo, [0, 2], RibSettings(steps=3, scales=(1.0, 0.5), explosion=None, learning_rate=1e-4), pool
        ),
        "paper": rib_seed(
            classifier, photo, [0, 2], RibSettings(variant="paper", steps=2, scales=(1.0,), explosion=None), pool
        ),
        "advcam": advcam_seed(classifier, photo, [0, 2], AdvCamSettings(iterations=3, scales=(1.0,))),
    }
    for maps in made.values():
        assert maps.maps[1.0].shape == (2, -(-48 // stride), -(-70 // stride)) and maps.stride == stride
        assert maps.full().shape == (2, 48, 70) and maps.strided().shape == (2, 12, 18)
        assert maps.full().isfinite().all()
    assert not torch.equal(made["rib"].maps[1.0], made["cam"].maps[1.0]), "the adapted states differ"
    assert all(torch.equal(before[key], value) for key, value in classifier.state_dict().items())


@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5])
def test_grad_cam_reads_every_stage(classifier, photo, stage):
    maps = grad_cam_seed(classifier, photo, [0, 2], GradCamSettings(stage=stage, scales=(1.0,)))
    stride = classifier.backbone.strides[stage - 1]
    assert maps.maps[1.0].shape == (2, -(-48 // stride), -(-70 // stride)) and maps.stride == stride
    if stage == 5:  # a linear classifier on it: Grad-CAM is CAM, scaled
        cam = cam_seed(classifier, photo, [0, 2], CamSettings(scales=(1.0,))).full()
        torch.testing.assert_close(maps.full(), cam, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_irn_psa_and_seam_read_the_taps(name):
    images, body = images_of(48, 70), f"timm:{name}"
    boundary, displacement = IrnNetwork(backbone(body))(images)
    assert boundary.shape == (2, 1, 12, 18) and displacement.shape == (2, 2, 12, 18)
    assert AffinityNetwork(backbone(body))(images).shape == (2, 448, 6, 9)
    maps, refined = SeamNetwork(backbone(body), 3).activations(images)
    assert maps.shape[1] == 3 and refined.shape == (2, 4, *maps.shape[2:])


def test_grids_of_other_patches_lie_where_their_cells_do():
    """A plane that rises with the pixel rises alike after it was brought from 14 pixels to 4."""
    centres = (torch.arange(6) + 0.5) * 14
    plane = centres[:, None] + 0.3 * centres[None]
    found = resize(plane[None, None], 14, 4, (20, 20))[0, 0]
    inside = (torch.arange(20) + 0.5) * 4
    expected = inside[:, None] + 0.3 * inside[None]
    torch.testing.assert_close(found[2:19, 2:19], expected[2:19, 2:19])


@pytest.mark.parametrize("name", KINDS)
def test_deeplab_trains_and_predicts_on_it(name):
    network = deeplab_v2(f"timm:{name}", 4, rates=(1, 2), output_stride=None, scales=(0.5,))
    loss = sum(logits.square().mean() for logits in network.train()(images_of(65, 65)))
    loss.backward()
    assert (
        network.backbone.stages[-1].get_parameter(next(iter(network.backbone.stages[-1].state_dict()))).grad is not None
    )
    assert network.eval()(images_of(65, 81)).shape[:2] == (2, 4)


def test_the_decoder_of_cct_needs_cells_that_doubling_fills():
    assert CctNetwork(backbone("timm:test_vit"), 3, 16, {})(images_of(40, 50)).shape == (2, 3, 40, 50)
    with pytest.raises(UserError, match="are 14 pixels apart: set output_stride to 8"):
        CctNetwork(backbone("timm:eva02_tiny_patch14_224"), 3, 16, {})


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "stride", "words"),
    [
        ("resnet5", None, "no network of this name .did you mean timm:resnet50"),
        ("test_vit.nothing", None, "nothing"),
        ("test_vit_relpos", None, "this one is neither"),
        ("test_maxvit", None, "form no regular grids"),
        ("efficientvit_m0", None, "features at 3 depths"),
        ("test_mambaout", 16, "its output stride is 32 and timm cannot make it 16; set it to 32, or to null"),
        ("test_vit", 32, "patches have 16 pixels, so its output stride cannot be 32"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_in_a_line(name, stride, words):
    with pytest.raises(UserError, match=words) as caught:
        backbone(f"timm:{name}", stride)
    assert "\n" not in str(caught.value) and f"timm:{name}" in str(caught.value)


def test_a_missing_timm_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"this needs timm: pip install 'wsss\[timm\]'"):
        backbone("timm:resnet18")


def check(capsys, classifiers=None, **segmentation) -> tuple[int, str]:
    """Exit status and words of `wsss check`, on a run with a classifier and a network."""
    configuration = {
        "dataset": {"format": "demo"},
        "classifiers": {"bce": {"objective": "bce", "backbone": "timm:test_resnet"} | (classifiers or {})},
        "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
        "refinements": {"crf": {"method": "crf", "seed": "cam"}},
        "segmentations": {"net": {"network": "deeplab_v2", "masks": "crf", "backbone": "small"} | segmentation},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(configuration))
    status = cli.main(["check", "mine.yaml"])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_check_says_what_a_network_of_timm_is_and_refuses_what_does_not_go(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, said = check(capsys)
    assert status == 0 and "classifiers.bce: timm:test_resnet, 0.4 million parameters, output stride 16" in said
    status, said = check(capsys, backbone="timm:test_vit")
    assert status == 0 and "segmentations.net: timm:test_vit, 0.3 million parameters, output stride 8" in said
    status, said = check(capsys, backbone="timm:test_mambaout")
    assert status == 2 and "segmentations.net: backbone timm:test_mambaout: its output stride is 32" in said
    status, said = check(capsys, backbone="timm:test_resnet", variant="official")
    assert status == 2 and "segmentations.net: variant: official exists for resnet50 and resnet101" in said
    status, said = check(capsys, {"weights": "imagenet"})
    assert status == 2 and "classifiers.bce: weights: imagenet is for backbones of torchvision" in said
    status, said = check(capsys, {"backbone": "timm:hf-hub:someone/network"})
    assert status == 2 and "allowed: resnet50" in said and "timm:NAME of a network of timm" in said
    torch.save(drawn("test_resnet").state_dict(), "weights.pth")
    status, said = check(capsys, {"weights": "weights.pth"})
    assert status == 0 and "weights.pth fits the backbone timm:test_resnet" in said
