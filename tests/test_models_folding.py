"""Normalisation folded into convolutions changes nothing but rounding."""

from __future__ import annotations

import pytest
import torch

from wsss_core.models.backbones import FixedBatchNorm, backbone
from wsss_core.models.backbones.folding import folded


@pytest.mark.parametrize(("name", "left"), [("mobilenet_v2", 0), ("resnet50", 0), ("small", 0)])
def test_a_folded_network_computes_the_same(name, left):
    torch.manual_seed(0)
    network = backbone(name, 32).double()
    for module in network.modules():
        if isinstance(module, FixedBatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.3, 0.9)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    image = torch.randn(1, 3, 65, 80, dtype=torch.float64)
    made = folded(network)
    assert sum(isinstance(module, FixedBatchNorm) for module in made.modules()) == left
    with torch.no_grad():
        for ours, plain in zip(made(image), network(image), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
    assert not any(weight.requires_grad for weight in made.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_bias_is_kept_and_so_is_the_layout():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), FixedBatchNorm(4)).to(memory_format=torch.channels_last)
    network[1].running_mean.fill_(0.5)
    made = folded(network)
    image = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(made(image), network(image))
    assert made[0].weight.is_contiguous(memory_format=torch.channels_last)
