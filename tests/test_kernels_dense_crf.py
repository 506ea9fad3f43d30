import importlib

import numpy as np
import pytest
import torch

from wsss_core.errors import UserError
from wsss_core.kernels import dense_crf as module
from wsss_core.kernels.dense_crf import dense_crf, dense_crf_batch, unary_from_labels, unary_from_probabilities

SETTINGS = {"gaussian": (3, 3), "bilateral": (20, 10, 10)}


def two_halves(height=12, width=20, noise=0, seed=0):
    """A dark and a light half, and labels of the halves with some pixels wrong."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, width // 2 :] = 200
    labels = np.zeros((height, width), np.int64)
    labels[:, width // 2 :] = 1
    wrong = rng.random(labels.shape) < noise
    return image, np.where(wrong, 1 - labels, labels), labels


def test_without_iterations_the_posterior_is_the_softmax():
    image, labels, _ = two_halves()
    unary = unary_from_labels(labels, 3, 0.7)
    posterior = dense_crf(image, unary, **SETTINGS, iterations=0)
    assert np.allclose(posterior, torch.from_numpy(-unary).softmax(0).numpy(), atol=1e-6)


def test_without_weights_the_posterior_is_the_softmax():
    image, labels, _ = two_halves()
    unary = unary_from_labels(labels, 2, 0.8)
    posterior = dense_crf(image, unary, gaussian=(3, 0), bilateral=(20, 10, 0))
    assert np.allclose(posterior, torch.from_numpy(-unary).softmax(0).numpy(), atol=1e-6)


def test_noise_is_removed_and_the_edge_kept():
    image, noisy, labels = two_halves(30, 40, noise=0.15)
    posterior = dense_crf(image, unary_from_labels(noisy, 2, 0.7), **SETTINGS)
    assert posterior.dtype == np.float32 and np.allclose(posterior.sum(0), 1, atol=1e-5)
    assert (noisy != labels).mean() > 0.1
    assert (posterior.argmax(0) == labels).mean() > 0.99


def test_several_passes_share_the_image():
    image, noisy, labels = two_halves(noise=0.2)
    unaries = np.stack([unary_from_labels(noisy, 2, 0.7), unary_from_labels(labels, 2, 0.9)])
    together = dense_crf(image, unaries, **SETTINGS)
    assert np.array_equal(together, np.stack([dense_crf(image, unary, **SETTINGS) for unary in unaries]))
    assert np.array_equal(together, dense_crf(image, unaries, **SETTINGS, backend="pydensecrf"))


def test_kind_is_kept():
    image, labels, _ = two_halves()
    unary = unary_from_labels(labels, 2, 0.7)
    image.setflags(write=False)
    unary.setflags(write=False)
    posterior = dense_crf(image, unary, **SETTINGS)
    tensor = dense_crf(torch.from_numpy(image.copy()), torch.from_numpy(unary.copy()), **SETTINGS)
    assert isinstance(posterior, np.ndarray) and isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), posterior)
    assert np.array_equal(dense_crf(np.asfortranarray(image), unary[:, ::1].astype(np.float64), **SETTINGS), posterior)


def test_one_label_is_certain():
    image, labels, _ = two_halves()
    assert np.array_equal(unary_from_labels(labels * 0, 1, 0.7), np.zeros((1, 12, 20)))
    assert np.array_equal(dense_crf(image, np.zeros((1, 12, 20), np.float32), **SETTINGS), np.ones((1, 12, 20)))


def test_unaries():
    unary = unary_from_labels(np.array([[0, 2]]), 3, 0.7)
    assert unary.shape == (3, 1, 2) and unary.dtype == np.float32
    assert np.allclose(unary[:, 0, 0], [-np.log(0.7), -np.log(0.15), -np.log(0.15)])
    assert np.allclose(unary[:, 0, 1], [-np.log(0.15), -np.log(0.15), -np.log(0.7)])
    assert np.allclose(unary_from_probabilities(np.array([0.0, 0.5, 2.0])), [-np.log(1e-5), -np.log(0.5), 0])
    assert isinstance(unary_from_labels(torch.zeros(2, 2, dtype=torch.uint8), 2, 0.7), torch.Tensor)


def test_unknown_backends_are_errors():
    image, labels, _ = two_halves()
    with pytest.raises(ValueError, match="unknown dense CRF backend 'fast'"):
        dense_crf(image, unary_from_labels(labels, 2, 0.7), **SETTINGS, backend="fast")


@pytest.fixture
def without_pydensecrf(monkeypatch):
    def absent(name, *_):
        raise ImportError(f"no module {name}")

    monkeypatch.setattr(importlib, "import_module", absent)
    module._has_pydensecrf.cache_clear()
    yield
    module._has_pydensecrf.cache_clear()


def test_without_pydensecrf_torch_is_used_and_the_log_says_so_once(without_pydensecrf, caplog):
    image, noisy, _ = two_halves(noise=0.15)
    unary = unary_from_labels(noisy, 2, 0.7)
    posteriors = [dense_crf(image, unary, **SETTINGS) for _ in range(3)]
    assert np.array_equal(posteriors[0], dense_crf(image, unary, **SETTINGS, backend="torch"))
    (line,) = caplog.messages
    assert "pydensecrf2" in line and "runs in torch" in line
    with pytest.raises(UserError, match="pydensecrf2"):
        dense_crf(image, unary, **SETTINGS, backend="pydensecrf")


def test_wrong_shapes_are_errors():
    image, labels, _ = two_halves()
    unary = unary_from_labels(labels, 2, 0.7)
    with pytest.raises(ValueError, match="uint8"):
        dense_crf(image.astype(np.float32), unary, **SETTINGS)
    with pytest.raises(ValueError, match="does not fit"):
        dense_crf(image, unary[:, 1:], **SETTINGS)


def photo(height=60, width=84, seed=0):
    """Smooth colour regions with texture, and probabilities of three labels that follow them loosely."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    image = (smooth + 12 * torch.randn(smooth.shape, generator=generator)).clamp(0, 255).byte().permute(1, 2, 0)
    logits = smooth / 60 + torch.randn(smooth.shape, generator=generator)
    return image.contiguous().numpy(), unary_from_probabilities(logits.softmax(0)).numpy()


@pytest.mark.parametrize("bilateral", [(50, 5, 10), (80, 13, 10), (67, 3, 4)])
def test_the_torch_backend_equals_pydensecrf(bilateral):
    image, unary = photo()
    settings = {"gaussian": (3, 3), "bilateral": bilateral}
    ours = dense_crf(image, unary, **settings, backend="torch")
    theirs = dense_crf(image, unary, **settings, backend="pydensecrf")
    assert (ours.argmax(0) == theirs.argmax(0)).mean() >= 0.999
    assert np.quantile(np.abs(ours - theirs), 0.99) < 1e-4
    assert (theirs.argmax(0) != unary.argmin(0)).mean() > 0.05, "the CRF must have something to do"


def test_the_torch_backend_repeats_its_bits_and_shares_lattices():
    image, unary = photo()
    passes = np.stack([unary, unary[::-1]])
    together = dense_crf(image, passes, **SETTINGS, backend="torch")
    assert np.array_equal(together, dense_crf(image, passes, **SETTINGS, backend="torch"))
    alone = dense_crf(image, passes[1], **SETTINGS, backend="torch")
    assert np.abs(together[1] - alone).max() < 1e-6
    assert np.allclose(dense_crf(image, unary, **SETTINGS, iterations=0, backend="torch").sum(0), 1, atol=1e-6)


def several():
    """Images of two sizes with two, three and one label, and two passes for one; as arrays and as a tensor."""
    pairs = [photo(40, 56, 1), photo(60, 32, 2), photo(40, 56, 3), photo(33, 47, 4), photo(20, 24, 5)]
    images, unaries = [image for image, _ in pairs], [unary for _, unary in pairs]
    unaries[1] = np.ascontiguousarray(unaries[1][:2])
    unaries[2] = np.stack([unaries[2], unaries[2][::-1]])
    unaries[3] = torch.from_numpy(unaries[3])
    unaries[4] = unaries[4][:1]
    return images, unaries


@pytest.mark.parametrize("pixels", [0, 40 * 56 + 33 * 47, 2**20])
def test_a_batch_in_torch_equals_each_image_alone(pixels):
    images, unaries = several()
    together = dense_crf_batch(images, unaries, **SETTINGS, backend="torch", pixels=pixels)
    again = dense_crf_batch(images, unaries, **SETTINGS, backend="torch", pixels=pixels)
    for image, unary, posterior, second in zip(images, unaries, together, again, strict=True):
        alone = dense_crf(image, unary, **SETTINGS, backend="torch")
        assert type(posterior) is type(unary) and posterior.shape == unary.shape
        assert np.abs(np.asarray(posterior) - np.asarray(alone)).max() <= 1e-6
        assert np.array_equal(np.asarray(posterior), np.asarray(second))
    assert (together[4] == 1).all()


def test_images_with_as_many_labels_share_a_lattice(monkeypatch):
    made = []
    lattice = module.Lattice
    monkeypatch.setattr(
        module, "Lattice", lambda features, owners: made.append(len(features)) or lattice(features, owners)
    )
    images, unaries = several()
    dense_crf_batch(images, unaries, **SETTINGS, backend="torch")
    joint = 40 * 56 + 33 * 47
    assert made == [joint, joint, 60 * 32, 60 * 32, 40 * 56, 40 * 56]


def test_a_batch_in_pydensecrf_is_one_image_after_another():
    images, unaries = several()
    for image, unary, posterior in zip(images, unaries, dense_crf_batch(images, unaries, **SETTINGS), strict=True):
        assert np.array_equal(np.asarray(posterior), np.asarray(dense_crf(image, unary, **SETTINGS)))
    assert dense_crf_batch([], [], **SETTINGS) == []


def test_a_batch_equals_pydensecrf_on_photos(shared):
    """Label and soft unaries of several photos, in one lattice."""
    images, unaries = [], []
    for name in ("crf_im1_label", "crf_im2_soft"):
        with np.load(shared / "reference" / f"{name}.npz") as stored:
            image, probability = stored["image"], stored["probability"].astype(np.float32)
        images += [image, np.ascontiguousarray(image.transpose(1, 0, 2))]
        unaries.append(unary_from_probabilities(probability))
        turned = probability.argmax(0).T
        unaries.append(unary_from_labels(turned, len(probability), 0.7))
    settings = {"gaussian": (3, 3), "bilateral": (50, 5, 10)}
    ours = dense_crf_batch(images, unaries, **settings, backend="torch")
    for image, unary, posterior in zip(images, unaries, ours, strict=True):
        theirs = dense_crf(image, unary, **settings, backend="pydensecrf")
        assert (posterior.argmax(0) == theirs.argmax(0)).mean() >= 0.999


@pytest.mark.parametrize("backend", ["pydensecrf", "torch"])
@pytest.mark.parametrize(("name", "bilateral"), [("crf_im1_label", (50, 5, 10)), ("crf_im2_soft", (80, 13, 10))])
def test_reference(shared, name, bilateral, backend):
    with np.load(shared / "reference" / f"{name}.npz") as stored:
        image, probability, expected = stored["image"], stored["probability"].astype(np.float32), stored["posterior"]
    unary = unary_from_probabilities(probability)
    if name.endswith("label"):
        unary = unary_from_labels(probability.argmax(0), 3, 0.7)
    posterior = dense_crf(image, unary, gaussian=(3, 3), bilateral=bilateral, backend=backend)
    error = np.abs(posterior - expected.astype(np.float32))
    assert (posterior.argmax(0) == expected.argmax(0)).mean() > 0.9999
    assert np.quantile(error, 0.99) < 1e-3, "the stored probabilities are rounded to float16, so a few labels differ"
