"""DSRG: seeds that grow, the two losses, and training with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.scenes import kill_segmentation_at, write_step
from wsss_core.data.table import ImageRecord, ImageTable, write_manifest, write_table
from wsss_core.evaluate import confusion, metrics
from wsss_core.execution import Execution
from wsss_core.kernels.dense_crf import dense_crf
from wsss_core.segment.dsrg import (
    BoundarySettings,
    DsrgSettings,
    boundary_loss,
    cells_inside,
    class_probabilities,
    crf_posterior,
    grow,
    loss_terms,
    seeding_loss,
)
from wsss_core.segment.predict import Predictor, load_segmenter
from wsss_core.steps import predictions
from wsss_core.steps import train as train_step
from wsss_core.store.masks import mask_name, read_mask, write_mask

CPU = Execution("cpu")
EVERYWHERE = np.ones((3, 5), bool)


def flooded(seeds, probabilities, present, inside, foreground, background):
    """Growing as the papers tell it: visit the neighbours of labelled cells until nothing changes."""
    grown = seeds.copy()
    height, width = seeds.shape
    changed = True
    while changed:
        changed = False
        for y in range(height):
            for x in range(width):
                if grown[y, x] != 255 or not inside[y, x]:
                    continue
                best = max((c for c in range(len(present)) if present[c]), key=lambda c: probabilities[c, y, x])
                if probabilities[best, y, x] <= (foreground if best else background):
                    continue
                around = grown[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                if (around == best).any():
                    grown[y, x] = best
                    changed = True
    return grown


# --- growing ---


@pytest.mark.parametrize("case", range(30))
def test_growing_equals_flood_fill(case):
    rng = np.random.default_rng(case)
    labels, height, width = 4, 9, 11
    sharp = np.cumsum(rng.normal(0, 1.5, (labels, height, width)), 2)
    probabilities = np.exp(sharp) / np.exp(sharp).sum(0)
    seeds = np.where(rng.random((height, width)) < 0.1, rng.integers(0, labels, (height, width)), 255)
    present = np.array([True, True, rng.random() < 0.5, rng.random() < 0.5])
    inside = np.zeros((height, width), bool)
    inside[:7, 2:] = True
    thresholds = (0.3, 0.6) if case % 2 else (0.6, 0.4)
    expected = flooded(seeds, probabilities, present, inside, *thresholds)
    grown = grow(seeds, probabilities, present, inside, *thresholds)
    np.testing.assert_array_equal(grown, expected)
    assert (grown[seeds != 255] == seeds[seeds != 255]).all()
    assert set(np.unique(grown[(seeds == 255) & (grown != 255)])) <= set(np.flatnonzero(present))


def test_growing_by_hand():
    seeds = np.full((3, 5), 255)
    seeds[0, 0] = 1
    probabilities = np.zeros((3, 3, 5))
    probabilities[1] = [[0.0, 0.2, 0.9, 0.2, 0.9], [0.2, 0.9, 0.2, 0.2, 0.9], [0.2, 0.2, 0.85, 0.9, 0.2]]
    probabilities[0] = 1 - probabilities[1]
    grown = grow(seeds, probabilities, np.array([True, True, False]), EVERYWHERE, 0.85, 0.99)
    # Over the corner to the second row, from there over a corner to the first; 0.85 is not above the threshold.
    assert np.argwhere(grown == 1).tolist() == [[0, 0], [0, 2], [1, 1]]
    assert (grown != 0).all(), "without a background seed nothing becomes background"
    with_threshold_lower = grow(seeds, probabilities, np.array([True, True, False]), EVERYWHERE, 0.84, 0.99)
    assert (with_threshold_lower == 1).sum() == 7


def test_untagged_classes_and_other_seeds_do_not_grow():
    seeds = np.array([[2, 255, 255, 255, 255], [255, 255, 255, 255, 255], [1, 255, 255, 255, 0]])
    probabilities = np.zeros((3, 3, 5))
    probabilities[2] = 1.0
    for present, cells in [((True, True, False), 1), ((True, True, True), 13)]:
        grown = grow(seeds, probabilities, np.array(present), EVERYWHERE, 0.85, 0.99)
        assert (grown == 2).sum() == cells
        assert grown[2, 0] == 1 and grown[2, 4] == 0


# --- grids ---


@pytest.mark.parametrize(("crop", "cells"), [(49, 7), (321, 41), (50, 7)])
def test_cells_are_inside_where_their_label_is(crop, cells):
    rng = np.random.default_rng(crop)
    for _ in range(5):
        top, left = rng.integers(0, crop // 2, 2)
        bottom, right = rng.integers(crop // 2, crop + 1, 2)
        shown = torch.zeros(1, 1, crop, crop)
        shown[:, :, top:bottom, left:right] = 1
        expected = F.interpolate(shown, (cells, cells), mode="nearest-exact")[:, 0].bool()
        found = cells_inside(torch.tensor([[top, bottom, left, right]]), (crop, crop), (cells, cells))
        assert torch.equal(found, expected)


def test_posterior_is_the_crf_of_the_part_inside():
    rng = np.random.default_rng(0)
    probabilities = torch.softmax(torch.from_numpy(rng.normal(0, 1, (2, 3, 6, 7)).astype(np.float32)), 1)
    images = torch.from_numpy(rng.integers(0, 256, (2, 6, 7, 3)).astype(np.uint8))
    inside = torch.zeros(2, 6, 7, dtype=torch.bool)
    inside[0, :5, 2:] = True
    settings = BoundarySettings(iterations=3)
    posterior = crf_posterior(probabilities, images, inside, settings)
    expected = dense_crf(
        images[0, :5, 2:],
        -probabilities[0, :, :5, 2:].log(),
        gaussian=settings.gaussian,
        bilateral=settings.bilateral,
        iterations=3,
    )
    torch.testing.assert_close(posterior[0, :, :5, 2:], expected)
    outside = ~inside[:, None].expand_as(posterior)
    assert torch.equal(posterior[outside], probabilities[outside])


# --- losses ---


def test_losses_by_hand():
    probabilities = torch.tensor([[[0.7, 0.2, 0.1, 0.4]], [[0.2, 0.5, 0.3, 0.1]], [[0.1, 0.3, 0.6, 0.5]]]).permute(
        1, 0, 2
    )
    probabilities = probabilities[:, :, None].repeat(2, 1, 1, 1)
    labels = torch.tensor([[[0, 1, 2, 255]], [[255, 2, 255, 255]]])
    first = -(np.log(0.5) + np.log(0.6)) / 2 - np.log(0.7)
    second = -np.log(0.3)
    assert float(seeding_loss(probabilities, labels)) == pytest.approx((first + second) / 2, rel=1e-6)
    posterior = torch.full((2, 3, 1, 4), 1 / 3)
    posterior[1, :, 0, 1] = torch.tensor([0.0, 1.0, 0.0])
    inside = torch.tensor([[[True, False, False, False]], [[False, True, False, False]]])
    kl = sum(np.log(1 / 3 / p) / 3 for p in (0.7, 0.2, 0.1)) + np.log(1 / 0.5)
    assert float(boundary_loss(probabilities, posterior, inside)) == pytest.approx(kl / 2, rel=1e-6)


def test_probabilities_are_bounded_below():
    probabilities = class_probabilities(torch.tensor([0.0, 100.0, -100.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(probabilities.flatten(), torch.tensor([1e-4, 1.0001, 1e-4]) / 1.0003)


def a_batch(labels, **changes):
    batch = {
        "images": torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)),
        "inside": torch.tensor([[0, 40, 0, 40], [0, 24, 16, 40]]),
        "labels": labels,
        "present": torch.tensor([[True, True, False], [True, False, True]]),
    }
    return batch | changes


def seeds_of_two():
    labels = torch.full((2, 40, 40), 255, dtype=torch.uint8)
    labels[0, :8, :8], labels[0, 24:32, 24:32] = 1, 0
    labels[1, 8:16, 24:32] = 2
    return labels


@pytest.mark.parametrize("grow_by", ["network", "crf"])
def test_loss_is_made_of_its_parts_and_its_gradient_ignores_crf_and_growing(grow_by):
    torch.manual_seed(0)
    settings = DsrgSettings(grow_by=grow_by, foreground=0.4, background=0.5, boundary_weight=0.7)
    batch = a_batch(seeds_of_two())
    logits = (2 * torch.randn(2, 3, 5, 5)).requires_grad_()
    terms = loss_terms([logits], batch, settings)
    terms["loss"].backward()

    fixed = logits.detach().clone().requires_grad_()
    probabilities = class_probabilities(fixed)
    inside = cells_inside(batch["inside"], (40, 40), (5, 5))
    posterior = crf_posterior(probabilities.detach(), batch["images"], inside, settings.crf)
    seeds = F.interpolate(batch["labels"][:, None], (5, 5), mode="nearest-exact")[:, 0].long()
    growing = posterior if grow_by == "crf" else probabilities.detach()
    grown = np.stack(
        [flooded(*(t[k].numpy() for t in (seeds, growing, batch["present"], inside)), 0.4, 0.5) for k in range(2)]
    )
    grown = torch.from_numpy(grown)
    assert (grown != 255).sum() > (seeds != 255).sum(), "the test must grow something"
    assert float(terms["grown"]) == pytest.approx(int((grown != 255).sum()) / (25 + 9))
    expected = seeding_loss(probabilities, grown) + 0.7 * boundary_loss(probabilities, posterior, inside)
    torch.testing.assert_close(terms["loss"], expected)
    expected.backward()
    torch.testing.assert_close(logits.grad, fixed.grad)
    assert not logits.grad[1, :, 3:].any() and not logits.grad[1, :, :, :2].any(), "padding costs nothing"


def test_gradient_of_the_losses_is_that_of_finite_differences():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    posterior = torch.rand(2, 3, 3, 4, dtype=torch.float64).softmax(1)
    labels = torch.tensor([0, 1, 2, 255]).expand(2, 3, 4)
    inside = torch.rand(2, 3, 4) < 0.7

    def loss(values):
        probabilities = class_probabilities(values)
        return seeding_loss(probabilities, labels) + boundary_loss(probabilities, posterior, inside)

    assert torch.autograd.gradcheck(loss, logits)


def test_every_grid_has_its_own_loss():
    torch.manual_seed(0)
    batch, settings = a_batch(seeds_of_two()), DsrgSettings()
    grids = [torch.randn(2, 3, n, n) for n in (5, 3)]
    both, first, second = (loss_terms(some, batch, settings) for some in (grids, grids[:1], grids[1:]))
    torch.testing.assert_close(both["loss"], first["loss"] + second["loss"])
    assert both["grown"] == first["grown"]


def test_batch_without_seeds_or_image_costs_nothing():
    nothing = torch.full((2, 40, 40), 255, dtype=torch.uint8)
    batch = a_batch(nothing, inside=torch.zeros(2, 4, dtype=torch.int64))
    logits = torch.randn(2, 3, 5, 5, requires_grad=True)
    terms = loss_terms([logits], batch, DsrgSettings())
    terms["loss"].backward()
    assert terms["loss"] == 0 and terms["grown"] == 0
    assert not logits.grad.any()


# --- training ---

TINY = {
    "backbone": "small",
    "rates": [1, 2],
    "iterations": 6,
    "batch_size": 3,
    "crop": 49,
    "scales": [1.0],
    "learning_rate": 0.01,
}


@pytest.fixture
def scenes(tmp_path):
    """Seven small images of one disc each, with seeds of a few pixels in the disc and at the border."""
    rng = np.random.default_rng(5)
    records = []
    for index in range(7):
        height, width = 40 + 3 * index, 64 - 2 * index
        rows, columns = np.mgrid[:height, :width]
        radius = np.hypot(rows - height / 2, columns - width / 2)
        truth = np.where(radius < 15, 1 + index % 2, 0)
        seeds = np.where(radius < 6, truth, np.where(radius > 24, 0, 255))
        colours = np.array([[60, 120, 60], [200, 60, 60], [60, 60, 200]])[truth]
        image = np.clip(colours + rng.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)
        path = tmp_path / f"{index}.png"
        Image.fromarray(image).save(path)
        write_mask(tmp_path / "seeds" / mask_name(f"s/{index}"), seeds)
        write_mask(tmp_path / "truth" / mask_name(f"s/{index}"), truth)
        mask = str(tmp_path / "truth" / mask_name(f"s/{index}"))
        records.append(
            ImageRecord(f"s/{index}", str(path), height, width, ("train", "val"), (index % 2,), mask, (), f"d{index}")
        )
    write_table(tmp_path / "images.csv", ImageTable(("red", "blue"), tuple(records)))
    write_manifest(tmp_path / "manifest.json", ("red", "blue"), records)
    return tmp_path, records


def train(folder, settings=None):
    train_step.run(
        config=write_step(folder / "a.json", "segmentations/net", "dsrg", "train", {**TINY, **(settings or {})}),
        table=folder / "images.csv",
        classifier=None,
        labels=[folder / "seeds"],
        ood=None,
        model=folder / "a.pt",
        state=folder / "a.state",
        history=folder / "a.csv",
        execution=CPU,
    )
    return load_segmenter(folder / "a.pt")


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_training_resumes_to_the_same_weights(scenes, monkeypatch):
    folder, _ = scenes
    whole = train(folder)
    steps = kill_segmentation_at(4, monkeypatch, lambda: train(folder))
    assert torch.equal(weights(whole), weights(train(folder)))
    assert steps == [4, 5]


def test_network_learns_from_seeds_and_predicts_through_the_steps(scenes):
    folder, records = scenes
    network = train(folder, {"iterations": 60, "learning_rate": 0.0003})
    assert network.class_names == ("red", "blue")
    rows = [line.split(",") for line in (folder / "a.csv").read_text().splitlines()]
    assert rows[0] == ["step", "rate", "loss", "seeding", "boundary", "grown"]
    assert float(rows[-1][2]) < 0.2 * float(rows[1][2])
    assert float(rows[-1][5]) > float(rows[1][5]) + 0.1, "the regions must grow"
    predictions.run(
        config=write_step(folder / "p.json", "segmentations/net", "dsrg", "predictions", {"crf": None}),
        manifest=folder / "manifest.json",
        model=folder / "a.pt",
        predictions=folder / "out",
        execution=CPU,
    )
    predicted = [read_mask(folder / "out" / mask_name(r.id), r.size, 3) for r in records]
    total = sum(confusion(p, read_mask(Path(r.mask)), 3) for p, r in zip(predicted, records, strict=True))
    assert metrics(total).mean("iou") > 0.6
    labels, _ = Predictor(folder / "a.pt").predict(np.asarray(Image.open(records[0].path)))
    np.testing.assert_array_equal(labels, predicted[0])
