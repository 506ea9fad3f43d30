"""SimpleGrad, SmoothGrad and Grad-CAM of detections, against gradients written out."""

from __future__ import annotations

import numpy as np
import torch

from tests.detectors import NodeDetector, RandomDetector
from wsss_core.boxes import AttributionMethod, Scene, bbam, grad_cam, simple_grad, smooth_grad
from wsss_core.data.boxes import Box

METHODS: tuple[AttributionMethod, ...] = (bbam, grad_cam, simple_grad, smooth_grad)
"""mypy holds each against the protocol."""
SIZE = (40, 56)


def scene() -> Scene:
    view = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Scene.of("photo", view, SIZE, [Box(0, 4, 4, 20, 18), Box(2, 10, 8, 46, 36)])


def score(detector: RandomDetector, one: Scene, number: int, view: torch.Tensor) -> torch.Tensor:
    return detector(view[None], [one.seen_boxes[number : number + 1]])[0][0, one.classes[number] + 1]


def test_simple_grad_is_the_gradient_of_the_class_of_each_box():
    detector, one = RandomDetector(), scene()
    (found,) = simple_grad.attributions(detector, [one], simple_grad.SimpleGradSettings())
    for number in range(2):
        view = one.view.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(detector, one, number, view), view)
        plain = gradient.abs().amax(0)
        np.testing.assert_allclose(found.maps[number], plain / plain.max(), rtol=1e-5)
    assert found.found.all() and found.maps[0].shape == SIZE
    assert all(weight.grad is None for weight in detector.parameters())


def test_smooth_grad_without_noise_is_simple_grad_and_with_noise_the_mean_of_its_draws():
    detector, one = RandomDetector(), scene()
    (plain,) = simple_grad.attributions(detector, [one], simple_grad.SimpleGradSettings())
    (still,) = smooth_grad.attributions(detector, [one], smooth_grad.SmoothGradSettings(3, 0.0), 0, "stage")
    np.testing.assert_allclose(still.maps[1], plain.maps[1], rtol=1e-5)
    settings = smooth_grad.SmoothGradSettings(4, 0.15)
    found = [smooth_grad.attributions(detector, [one], settings, seed, "stage")[0].maps[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3
    assert 1e-3 < np.abs(found[0] - plain.maps[0]).max() < 0.9


def test_grad_cam_weighs_the_features_of_the_level_of_each_box():
    detector, one = RandomDetector(), scene()
    (found,) = grad_cam.attributions(detector, [one], grad_cam.GradCamSettings())
    for number, level in enumerate(["fine", "coarse"]):
        features = {
            name: values.detach().requires_grad_(True) for name, values in detector.pyramid(one.view[None]).items()
        }
        probabilities, _ = detector.judged(features, [one.seen_boxes[number : number + 1]])
        (gradient,) = torch.autograd.grad(probabilities[0, one.classes[number] + 1], features[level])
        cells = (features[level] * gradient.mean((2, 3))[:, :, None, None]).sum(1).relu()
        large = torch.nn.functional.interpolate(cells[None], SIZE, mode="bilinear", align_corners=False)[0, 0]
        np.testing.assert_allclose(found.maps[number], (large / large.max()).detach(), atol=1e-6)


def test_gradients_point_at_the_pixels_that_the_detector_reads():
    weights = torch.zeros(SIZE, dtype=torch.float64)
    weights[10:20, 30:40] = 1.0
    grey = torch.full((3, *SIZE), 0.6, dtype=torch.float64)
    one = Scene.of("photo", grey, SIZE, [Box(0, 4, 4, 20, 18)])
    (found,) = simple_grad.attributions(NodeDetector(weights), [one], simple_grad.SimpleGradSettings())
    np.testing.assert_allclose(found.maps[0], weights, atol=1e-6)


def test_without_boxes_or_gradient_there_is_no_attribution():
    nothing = NodeDetector(torch.ones(SIZE, dtype=torch.float64))
    unseen = Scene.of("photo", scene().view, SIZE, [Box(0, 4, 4, 20, 18)])
    nothing.weights[0, 0], empty = 1.0, Scene.of("photo", scene().view, SIZE, [])
    for method, settings in (
        (simple_grad, simple_grad.SimpleGradSettings()),
        (smooth_grad, smooth_grad.SmoothGradSettings(2)),
    ):
        assert len(method.attributions(nothing, [empty], settings)[0]) == 0
    assert len(grad_cam.attributions(RandomDetector(), [empty], grad_cam.GradCamSettings())[0]) == 0

    def blind(images, proposals):
        return (images.sum() * 0).expand(1, 3) + 1 / 3, torch.zeros(1, 3, 4)

    (found,) = simple_grad.attributions(blind, [unseen], simple_grad.SimpleGradSettings())
    assert not found.found.any() and not found.maps[0].any() and found.statistics == {"without": 1}


def test_a_sure_detection_has_a_gradient_too():
    logits = torch.tensor([[0.0, 60.0, 1.0]], requires_grad=True)
    probabilities = logits.softmax(1)
    assert probabilities[0, 1] == 1
    (gradient,) = torch.autograd.grad(simple_grad.log_odds(probabilities, torch.tensor([1])).sum(), logits)
    others = torch.tensor([0.0, 1.0]).softmax(0)
    torch.testing.assert_close(gradient[0], torch.stack([-others[0], torch.tensor(1.0), -others[1]]))
