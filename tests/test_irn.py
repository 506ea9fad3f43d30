"""The inter-pixel relation network: shapes, gradients, losses, batches."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.baselines.pair_labels import relation_loss_by_tables
from wsss_core.models.irn import IrnNetwork, resize
from wsss_core.refine.irn.network import (
    TrainSettings,
    estimate_mean_shift,
    optimizer,
    reduce_labels,
    relation_loss,
    relation_sample,
)
from wsss_core.refine.training import SampleBatches


class Taps(nn.Module):
    """Five convolutions of given strides, each from the image."""

    def __init__(self, strides=(4, 4, 8, 16, 16)):
        super().__init__()
        self.strides, self.channels = strides, (3, 4, 5, 6, 7)
        self.stages = nn.ModuleList(
            nn.Conv2d(3, c, 3, stride=s, padding=1) for c, s in zip(self.channels, strides, strict=True)
        )
        self.batch_norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return [stage(self.batch_norm(x)) for stage in self.stages]


def network(strides=(4, 4, 8, 16, 16)):
    torch.manual_seed(0)
    return IrnNetwork(Taps(strides))


@pytest.mark.parametrize("strides", [(4, 4, 8, 16, 16), (2, 4, 8, 16, 16), (2, 2, 4, 8, 8), (4, 8, 16, 32, 32)])
@pytest.mark.parametrize("size", [(64, 64), (37, 50), (33, 31)])
def test_both_outputs_have_stride_4(strides, size):
    boundary, displacement = network(strides)(torch.randn(2, 3, *size))
    rows, columns = (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1
    assert boundary.shape == (2, 1, rows, columns) and displacement.shape == (2, 2, rows, columns)


def test_resize_enlarges_and_averages():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert resize(ramp, 4, 4, (8, 8)) is not None and torch.equal(resize(ramp, 4, 4, (8, 8)), ramp)
    assert torch.equal(resize(ramp, 2, 4, (4, 4))[0, 0, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))
    assert torch.equal(resize(ramp, 8, 4, (16, 15))[0, 0, 3, 1:5], torch.tensor([0.25, 0.75, 1.25, 1.75]))
    odd = resize(torch.ones(1, 1, 5, 5), 2, 4, (3, 3))
    assert torch.equal(odd, torch.ones(1, 1, 3, 3))


def test_the_backbone_is_frozen():
    net = network().train()
    assert not net.backbone.training and net.edge_taps.training
    boundary, displacement = net(torch.randn(2, 3, 48, 48))
    (boundary.sum() + displacement.sum()).backward()
    assert all(p.grad is None for p in net.backbone.parameters())
    branches = [*net.edge_parameters(), *net.displacement_parameters()]
    assert all(p.grad is not None for p in branches)
    assert len(branches) + len(list(net.backbone.parameters())) == len(list(net.parameters()))


def test_the_optimiser_has_no_real_momentum_and_two_rates():
    groups = optimizer(network(), TrainSettings()).param_groups
    assert [g["lr"] for g in groups] == [0.1, 1.0]
    assert all(g["momentum"] == 1e-4 and g["weight_decay"] == 1e-4 and not g["nesterov"] for g in groups)


def random_batch(height, width, seed=0, batch=2):
    torch.manual_seed(seed)
    logits = torch.randn(batch, 1, height, width, dtype=torch.float32, requires_grad=True)
    shifts = torch.randn(batch, 2, height, width, dtype=torch.float32, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (batch, -(-height // 4), -(-width // 4)))]
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width]
    return logits, shifts, labels.to(torch.uint8)


@pytest.mark.parametrize(("height", "width", "radius"), [(12, 15, 3), (20, 22, 5), (24, 21, 10)])
def test_the_loss_equals_the_one_by_index_tables(height, width, radius):
    logits, shifts, labels = random_batch(height, width)
    ours = relation_loss(logits, shifts, labels, radius)["loss"]
    theirs = relation_loss_by_tables(logits, shifts, labels, radius, n_labels=21)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    gradients = torch.autograd.grad(ours, (logits, shifts)), torch.autograd.grad(theirs, (logits, shifts))
    for mine, their in zip(*gradients, strict=True):
        assert mine.abs().max() > 1e-4 and torch.allclose(mine, their, atol=1e-7)


def test_the_loss_by_hand():
    """One source pixel, radius 2, every destination of another label or the same."""
    labels = torch.tensor([[[9, 1, 1], [0, 1, 255]]], dtype=torch.uint8)
    edge = torch.tensor([[[[0.9, 0.1, 0.2], [0.3, 0.4, 0.5]]]])
    shifts = torch.zeros(1, 2, 2, 3)
    terms = relation_loss(torch.logit(edge), shifts, labels, 2)
    # pairs of (0, 1): (0, 2) same, path max .2; (1, 0) other, path is the 2x2 block on the left, max .9;
    # (1, 1) same, path max .4; (1, 2) unknown
    same = (-np.log(1 - 0.2 + 1e-5) - np.log(1 - 0.4 + 1e-5)) / (2 + 1e-5)
    other = -np.log(0.9 + 1e-5) / (1 + 1e-5)
    displacement = (1 + 1) / (2 * 2 + 1e-5)
    assert np.isclose(terms["boundary"].item(), same / 2 + other, rtol=1e-5)
    assert np.isclose(terms["displacement"].item(), displacement, rtol=1e-5)
    assert np.isclose(terms["loss"].item(), (same / 2 + other + displacement) / 2, rtol=1e-5)


def test_unknown_labels_cost_nothing():
    logits, shifts, labels = random_batch(12, 15)
    loss = relation_loss(logits, shifts, torch.full_like(labels, 255), 5)["loss"]
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_displacements_to_the_centroid_are_free():
    """A disc of one class, everything else of another: displacements to its centre fulfil every pair."""
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(22.0), indexing="ij")
    labels = torch.ones(1, 20, 22, dtype=torch.uint8)
    shifts = torch.stack([10 - rows, 11 - columns])[None]
    assert relation_loss(torch.zeros(1, 1, 20, 22), shifts, labels, 5)["displacement"] < 1e-6


def test_reduced_labels_are_nearest_exact():
    labels = torch.randint(0, 255, (64, 96), dtype=torch.uint8)
    nearest = nn.functional.interpolate(labels[None, None], (16, 24), mode="nearest-exact")[0, 0]
    assert np.array_equal(reduce_labels(labels.numpy()), nearest.numpy())


def load(name):
    rng = np.random.default_rng(int(name))
    return rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), rng.integers(0, 3, (50, 70), dtype=np.uint8)


def batches(count=7, seed=0):
    settings = TrainSettings(crop=64)
    names = [str(i) for i in range(count)]

    def sample(name, rng):
        return relation_sample(*load(name), settings, rng)

    return SampleBatches(names, sample, epochs=2, batch_size=3, seed=seed, stage="irn")


def test_batches_are_a_map_of_the_step():
    some = batches()
    assert len(some) == 4
    images, labels = some[3]
    assert images.shape == (3, 3, 64, 64) and images.dtype == torch.float32
    assert labels.shape == (3, 16, 16) and labels.dtype == torch.uint8
    again = batches()
    again[0]
    assert torch.equal(again[3][0], images) and torch.equal(again[3][1], labels)
    assert not torch.equal(batches(seed=1)[3][0], images)
    names = [name for step in (0, 1) for name in some.batch_names(step)]
    assert len(set(names)) == 6
    with pytest.raises(IndexError):
        some[4]


def test_fewer_images_than_a_batch():
    few = batches(count=2)
    assert len(few) == 2 and few[0][0].shape[0] == 2


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    net = network().train()
    images, labels = batches()[0]
    descent = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        loss = relation_loss(*net(images), labels, 5)["loss"]
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_mean_shift_centres_the_displacements():
    net = network()
    images = torch.randn(4, 3, 48, 48)
    net.mean_shift.fill_(5.0)
    estimate_mean_shift(net, [images[:2], images[2:]])
    assert not net.training
    assert net(images)[1].mean((0, 2, 3)).abs().max() < 1e-6
    assert net.train()(images)[1].mean((0, 2, 3)).abs().max() > 1e-4
    assert "mean_shift" in net.state_dict()
