import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.baselines.random_walk_dense import propagate_dense
from benchmarks.baselines.random_walk_steps import propagate_stepwise
from wsss_core.kernels.paths import directions
from wsss_core.kernels.random_walk import (
    boundary_affinities,
    chebyshev_power,
    polynomial_on,
    propagate,
    walk,
)


def inputs(height=13, width=11, classes=2, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    boundary = rng.random((height, width)) ** 6
    return rng.random((classes, height, width)).astype(dtype), boundary.astype(dtype)


@pytest.mark.parametrize(("height", "width"), [(13, 11), (1, 20), (20, 1), (3, 3), (2, 40)])
def test_equals_the_dense_matrix_in_float64(height, width):
    scores, boundary = inputs(height, width)
    dense = propagate_dense(scores, boundary)
    assert np.abs(propagate(scores, boundary) - dense).max() < 1e-11
    assert np.abs(propagate_stepwise(scores, boundary) - dense).max() < 1e-11


@pytest.mark.parametrize(("radius", "beta", "log2_steps"), [(5, 8.0, 6), (3, 1.0, 0), (2, 10.0, 3), (7, 10.0, 10)])
def test_other_settings_equal_the_dense_matrix(radius, beta, log2_steps):
    scores, boundary = inputs()
    settings = {"radius": radius, "beta": beta, "log2_steps": log2_steps}
    dense = propagate_dense(scores, boundary, **settings)
    assert np.abs(propagate(scores, boundary, **settings) - dense).max() < 1e-11


def random_affinities(height, width, radius, seed=0):
    """Affinities [P, h, w], 0 where the neighbour lies outside, and the same as a matrix [hw, hw]."""
    rng = np.random.default_rng(seed)
    affinities = np.zeros((len(directions(radius)), height, width))
    matrix = np.eye(height * width)
    for i, (dy, dx) in enumerate(directions(radius)):
        for y in range(height - dy):
            for x in range(max(0, -dx), width - max(0, dx)):
                affinities[i, y, x] = rng.random() ** 8
                here, there = y * width + x, (y + dy) * width + x + dx
                matrix[here, there] = matrix[there, here] = affinities[i, y, x]
    return affinities, matrix


@pytest.mark.parametrize(("height", "width"), [(9, 11), (1, 20), (20, 1), (3, 3)])
@pytest.mark.parametrize(("radius", "log2_steps"), [(5, 8), (3, 3), (2, 0)])
def test_a_walk_on_given_affinities_equals_the_power_of_the_dense_matrix(height, width, radius, log2_steps):
    affinities, matrix = random_affinities(height, width, radius)
    scores = np.random.default_rng(1).random((2, height, width))
    power = np.linalg.matrix_power(matrix / matrix.sum(0), 2**log2_steps)
    expected = (scores.reshape(2, -1) @ power).reshape(scores.shape)
    walked = walk(scores, affinities, radius=radius, log2_steps=log2_steps)
    assert np.abs(walked - expected).max() < 1e-11
    single = walk(scores.astype(np.float32), affinities, radius=radius, log2_steps=log2_steps)
    assert single.dtype == np.float32 and np.abs(single - expected).max() < 5e-5


def test_boundaries_are_a_walk_on_their_affinities():
    scores, boundary = inputs()
    affinities = boundary_affinities(torch.from_numpy(boundary), 5, 10.0)
    assert affinities.shape == (34, 13, 11)
    assert np.array_equal(walk(scores * (1 - boundary), affinities.numpy()), propagate(scores, boundary))
    both = walk(np.stack([scores, scores]), np.stack([affinities, torch.zeros_like(affinities)]), log2_steps=3)
    assert np.allclose(both[0], walk(scores, affinities.numpy(), log2_steps=3), atol=1e-14)
    assert np.allclose(both[1], scores, atol=1e-14)


def test_one_step_by_hand():
    scores, boundary = np.array([[[1.0, 0.0, 0.0]]]), np.array([[0.0, 0.0, 1.0]])
    assert np.allclose(propagate(scores, boundary, radius=2, beta=10.0, log2_steps=0), [[[0.5, 0.5, 0.0]]], atol=1e-14)


def test_a_walk_without_boundaries_keeps_a_constant():
    constant = np.full((1, 15, 17), 0.7)
    assert np.allclose(propagate(constant, np.zeros((15, 17))), 0.7, atol=1e-12)
    assert np.abs(propagate(constant.astype(np.float32), np.zeros((15, 17), np.float32)) - 0.7).max() < 1e-5


def test_a_closed_boundary_holds_the_walk_back():
    boundary = np.zeros((9, 15))
    boundary[:, 7] = 1.0
    scores = np.zeros((1, 9, 15))
    scores[:, :, :7] = 1.0
    walked = propagate(scores, boundary)
    assert np.allclose(walked[:, :, :7], 1.0) and np.abs(walked[:, :, 7:]).max() < 1e-12


def test_float32_error_stays_below_5e_5():
    scores, boundary = inputs(94, 125, 3, dtype=np.float32)
    boundary = boundary**3
    exact = propagate(scores.astype(np.float64), boundary.astype(np.float64))
    walked = propagate(scores, boundary)
    assert walked.dtype == np.float32
    assert np.abs(walked - exact).max() / exact.max() < 5e-5


def test_batches_equal_single_images():
    scores, boundary = zip(*(inputs(seed=seed, dtype=np.float32) for seed in range(3)), strict=True)
    together = propagate(np.stack(scores), np.stack(boundary))
    alone = np.stack([propagate(s, b) for s, b in zip(scores, boundary, strict=True)])
    assert np.array_equal(together, alone)
    assert np.array_equal(propagate(np.stack(scores), np.stack(boundary)[:, None]), alone)


TRITON = """
import torch
from wsss_core.kernels import random_walk, random_walk_triton

for kind, limit in ((torch.float32, 2e-6), (torch.float64, 1e-14)):
    draw = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 2, 7, 9, generator=draw, dtype=kind)
    boundary = torch.rand(2, 7, 9, generator=draw, dtype=kind)
    expected = random_walk.propagate(scores, boundary, radius=3, log2_steps=3)
    random_walk.polynomial_on = lambda device: random_walk_triton.polynomial
    found = random_walk.propagate(scores, boundary, radius=3, log2_steps=3)
    random_walk.polynomial_on = lambda device: random_walk._polynomial
    assert found.dtype == kind and (found - expected).abs().max() < limit
"""


def test_triton_kernel_equals_torch_in_its_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", TRITON], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_without_triton_the_walk_runs_in_torch_and_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wsss_core.kernels.random_walk_triton", None)
    polynomial_on.cache_clear()
    assert polynomial_on("cuda") is polynomial_on("cpu")
    assert len(caplog.records) == 1 and "without its Triton kernel" in caplog.text
    polynomial_on.cache_clear()


def test_kind_and_shape_are_kept_and_inputs_untouched():
    scores, boundary = inputs(dtype=np.float32)
    kept = scores.copy(), boundary.copy()
    assert isinstance(propagate(scores, boundary[None]), np.ndarray)
    assert np.array_equal(scores, kept[0]) and np.array_equal(boundary, kept[1])
    tensor = propagate(torch.from_numpy(scores), torch.from_numpy(boundary))
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32
    assert propagate(torch.from_numpy(scores).half(), torch.from_numpy(boundary)).dtype == torch.float16
    assert propagate(scores[:0], boundary).shape == (0, 13, 11)


def test_shapes_that_do_not_match_are_an_error():
    scores, boundary = inputs()
    for wrong in (boundary[:-1], np.stack([boundary, boundary])):
        with pytest.raises(ValueError, match="do not belong together"):
            propagate(scores, wrong)
    with pytest.raises(ValueError, match=r"affinities \(34, 13, 11\) do not belong together"):
        walk(scores, np.zeros((34, 13, 11)), radius=3)


def test_chebyshev_coefficients():
    s = np.linspace(-1, 1, 201)
    for exponent in (0, 1, 2, 7, 64, 256):
        series = np.polynomial.chebyshev.chebval(s, chebyshev_power(exponent, 0.0))
        assert np.abs(series - s**exponent).max() < 1e-13
    shortened = chebyshev_power(256, 1e-6)
    assert len(shortened) == 79 and 0 <= 1 - sum(shortened) <= 1e-6


@pytest.mark.parametrize("name", ["random_walk_20x28", "random_walk_48x64"])
def test_reference(shared, name):
    with np.load(shared / "reference" / f"{name}.npz") as stored:
        cam, boundary, walked = stored["cam"], stored["boundary"], stored["walked"]
        settings = {key: int(stored[key]) for key in ("radius", "beta", "log2_steps")}
    assert np.abs(propagate(cam, boundary, **settings) - walked).max() < 5e-4
    cam, boundary = cam.astype(np.float64), boundary.astype(np.float64)
    exact = propagate(cam, boundary, **settings)
    assert np.abs(exact - propagate_stepwise(cam, boundary, **settings)).max() < 1e-6
    assert np.abs(exact - walked).max() < 1e-4
