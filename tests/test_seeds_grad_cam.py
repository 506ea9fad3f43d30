"""Grad-CAM: equal to CAM at the last stage, and to its definition at every stage."""

import numpy as np
import pytest
import torch

from wsss_core.data.augment import scaled_pair
from wsss_core.data.table import ImageRecord
from wsss_core.models import cam_network
from wsss_core.models.backbones import backbone
from wsss_core.models.embedded import EmbeddedCamNetwork
from wsss_core.seeds import Inputs
from wsss_core.seeds.cam import CamSettings, cam_seed
from wsss_core.seeds.grad_cam import GradCamSettings, grad_cam_seed, maker

CLASSES = [3, 1]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return cam_network("small", 4).eval().requires_grad_(False)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("gradient", ["mean", "cell"])
def test_the_last_stage_gives_cam(network, image, gradient):
    maps = grad_cam_seed(network, image, CLASSES, GradCamSettings(gradient=gradient))
    cam = cam_seed(network, image, CLASSES, CamSettings())
    for scale in (1.0, 0.5, 1.5, 2.0):
        torch.testing.assert_close(maps.maps[scale], cam.maps[scale], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps.full(), cam.full(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["small", "vgg16", "embedded"])
@pytest.mark.parametrize(("stage", "kept"), [(2, "mean"), (4, "mean"), (4, "cell")])
def test_a_map_follows_its_definition(image, kind, stage, kept):
    """Written out: stage by stage, one class and one view at a time, the gradient of the pooled logit."""
    torch.manual_seed(0)
    embedded = EmbeddedCamNetwork(backbone("small"), 4, 24) if kind == "embedded" else None
    network = (embedded or cam_network(kind, 4)).eval()
    found = grad_cam_seed(network, image, CLASSES, GradCamSettings(stage, kept, (0.5,)))
    for place, c in enumerate(CLASSES):
        total = 0
        for view in range(2):
            x = torch.from_numpy(scaled_pair(image, 0.5))[[view]]
            for number in range(stage):
                x = network.backbone.stages[number](x)
            features = x.detach().requires_grad_(True)
            x = features
            for number in range(stage, 5):
                x = network.backbone.stages[number](x)
            cells = x.shape[2] * x.shape[3]
            logit = network.classifier(embedded.embedding(x) if embedded else x)[0, c].mean()
            (gradient,) = torch.autograd.grad(logit, features)
            of_channel = [g.mean() if kept == "mean" else g for g in gradient[0]]
            heat = sum(g * features[0, k].detach() for k, g in enumerate(of_channel)).relu()
            total = total + (heat.flip(-1) if view else heat) * cells
        torch.testing.assert_close(found.maps[0.5][place], total, rtol=1e-3, atol=1e-6)
    stride = network.backbone.strides[stage - 1]
    assert found.maps[0.5].shape[1:] == (-(-25 // stride), -(-35 // stride))


def test_the_network_is_left_as_it_was(network, image):
    seed = grad_cam_seed(network, image, CLASSES, GradCamSettings(3, scales=(1.0,)))
    assert not seed.maps[1.0].requires_grad and seed.maps[1.0].min() >= 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(stage._forward_hooks for stage in network.backbone.stages)


def test_the_step_calls_it_with_an_images_classes(network, image):
    record = ImageRecord("0", "0.png", 50, 70, ("train",), (1, 3))
    settings = GradCamSettings(scales=(1.0,))
    maps = maker(settings, Inputs(network, (record,), 0, "seeds/grad_cam"))(record, image)
    assert maps.classes == (1, 3)
    assert torch.equal(maps.maps[1.0], grad_cam_seed(network, image, [1, 3], settings).maps[1.0])
