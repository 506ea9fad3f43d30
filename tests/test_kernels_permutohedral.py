import pytest
import torch

from wsss_core.kernels import permutohedral
from wsss_core.kernels.permutohedral import Lattice


def points(n=300, d=2, spread=6.0, seed=0):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize(("d", "tolerance"), [(1, 0.02), (2, 0.03), (5, 0.1)])
def test_normalised_filtering_approximates_the_gaussian(d, tolerance):
    features = points(d=d)
    values = torch.rand(300, 3, generator=torch.Generator().manual_seed(1))
    lattice = Lattice(features)
    filtered = lattice.filter(values) / lattice.filter(torch.ones(300, 1))
    kernel = torch.exp(-(torch.cdist(features, features) ** 2) / 2)
    exact = kernel @ values / kernel.sum(1, keepdim=True)
    assert (filtered - exact).abs().mean() < tolerance < (values - exact).abs().mean()


@pytest.mark.parametrize("d", [2, 5])
def test_corners_of_a_point(d):
    """Weights are barycentric, and equal points share their corners."""
    features = points(50, d, 30.0).repeat(2, 1)
    lattice = Lattice(features)
    assert lattice.weights.min() >= -1e-4 and torch.allclose(lattice.weights.sum(1), torch.ones(100), atol=1e-4)
    assert torch.equal(lattice.corners[:50], lattice.corners[50:])
    assert all(len(set(row)) == d + 1 for row in lattice.corners.tolist())


def test_distant_points_do_not_mix():
    features = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1000.0, -1000.0]])
    values = torch.eye(3)
    filtered = Lattice(features).filter(values)
    assert filtered[2, 0] == filtered[0, 2] == 0 and filtered[0, 1] > 0 and filtered[2, 2] > 0


def test_filtering_is_linear_and_by_channel():
    lattice = Lattice(points())
    a, b = torch.rand(2, 300, 4, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(lattice.filter(2 * a + b), 2 * lattice.filter(a) + lattice.filter(b), atol=1e-4)
    assert torch.allclose(lattice.filter(a)[:, 1:2], lattice.filter(a[:, 1:2].contiguous()), atol=1e-5)


def test_points_too_far_apart_are_an_error():
    features = torch.zeros(2, 5)
    features[1] = 1e6
    with pytest.raises(OverflowError, match="spread too far"):
        Lattice(features)


@pytest.mark.parametrize("d", [2, 5])
def test_images_of_a_joint_lattice_are_filtered_as_alone(d):
    """Three images whose features lie in the same place, or far from each other."""
    parts = [points(120, d, seed=1), points(75, d, seed=2), points(100, d, seed=1) + 40]
    values = torch.rand(295, 2, generator=torch.Generator().manual_seed(3))
    owners = torch.arange(3).repeat_interleave(torch.tensor([120, 75, 100]))
    together = Lattice(torch.cat(parts), owners).filter(values)
    alone = [Lattice(part).filter(own) for part, own in zip(parts, values.split([120, 75, 100]), strict=True)]
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-6)
    values[:120] = 0
    assert not Lattice(torch.cat(parts), owners).filter(values)[:120].any()


def test_a_crowded_corner_is_summed_in_pieces(monkeypatch):
    """All points of a plain area share their corners; the sums do not depend on where the pieces end."""
    features = torch.cat([torch.zeros(1000, 2), points(50)])
    values = torch.rand(1050, 3, generator=torch.Generator().manual_seed(1))
    pieces = Lattice(features).filter(values)
    monkeypatch.setattr(permutohedral, "PIECE", 2000)
    assert torch.allclose(pieces, Lattice(features).filter(values), rtol=1e-5)
    exact = Lattice(features.double()).filter(values.double())
    assert torch.allclose(pieces.double(), exact, rtol=1e-5)
