"""Mask R-CNN: masks that grow, the loss on them, learning from shards of instances, prediction."""

import logging

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.test_detector import picture, scene, trained
from wsss_core import training
from wsss_core.data.decoded import read_record
from wsss_core.data.table import ImageTable
from wsss_core.errors import UserError
from wsss_core.instances.mask_rcnn import (
    InstancePredictSettings,
    MaskRcnnSettings,
    grown,
    grown_mask_loss,
    pasted,
    plan,
    predict,
)
from wsss_core.models.backbones import backbone
from wsss_core.models.detector import summed
from wsss_core.models.mask_rcnn import MaskRcnn, cut_out, open_instance_network
from wsss_core.segment.predict import CrfSettings
from wsss_core.store import shards
from wsss_core.store.checkpoints import save_network
from wsss_core.store.instances import INSTANCES, Instances

TINY = MaskRcnnSettings(backbone="small", channels=16, short_sides=(64,), regions=32, iterations=6, batch_size=2)


def objects_of(record, **changes):
    """The bright ellipse of a record's picture; a band of pixels inside its rim is unknown."""
    box = record.boxes[0]
    whole = read_record(record)[..., box.label] == 250
    mask = cv2.erode(whole.astype(np.uint8), np.ones((7, 7))).astype(bool)
    arrays = {"classes": [box.label], "boxes": [box.corners], "masks": [mask], "ignored": [whole & ~mask]}
    return Instances.of((64, 80), **arrays | changes)


def inputs_of(folder, records, objects=None, class_names=("red", "green")):
    objects = objects or {record.id: objects_of(record) for record in records}
    prints = {name: f"fingerprint {name}" for name in objects}
    attrs = {"class_names": ["red", "green"]}
    shards.build(folder / "a.h5", INSTANCES, prints, objects.__getitem__, attrs, cache=folder / "a.cache.h5")
    table = ImageTable(tuple(class_names), tuple(records))
    return training.Inputs(table, None, 0, "instances/x", labels=[folder / "a.h5"])


def begun(settings, inputs):
    torch.manual_seed(0)
    made = plan(settings, inputs)
    made.network.train()
    return made


def network(**changes):
    torch.manual_seed(0)
    sizes = {"channels": 16, "anchors": (8, 16, 32, 64, 128), "short_side": 64}
    return MaskRcnn(backbone("small", 32), 3, **sizes | changes)


# --- growing and the loss ---


def flooded(known, probabilities, above, below):
    """Growing as it is told: visit the neighbours of given cells until nothing changes."""
    result = known.copy()
    changed = True
    while changed:
        changed = False
        for mask, values in zip(result, probabilities, strict=True):
            for y, x in np.argwhere(mask == 255):
                around = mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                for label, joins in ((1, values[y, x] > above), (0, values[y, x] < below)):
                    if joins and (around == label).any():
                        mask[y, x] = label
                        changed = True
    return result


def random_masks(case, count=3, size=(9, 11)):
    rng = np.random.default_rng(case)
    logits = np.cumsum(rng.normal(0, 2, (count, *size)), 2).astype(np.float32)
    known = np.where(rng.random(logits.shape) < 0.15, rng.integers(0, 2, logits.shape), 255).astype(np.uint8)
    return torch.from_numpy(logits), torch.from_numpy(known)


@pytest.mark.parametrize("case", range(10))
def test_growing_equals_flood_fill(case):
    logits, known = random_masks(case)
    probabilities = logits.sigmoid()
    found = grown(known, probabilities, 0.9, 0.1)
    assert np.array_equal(found, flooded(known.numpy(), probabilities.numpy(), 0.9, 0.1))
    assert torch.equal(found[known != 255], known[known != 255])
    assert (found != known).any()


@pytest.mark.parametrize("case", range(3))
def test_the_loss_is_half_the_sum_of_the_means_over_object_and_rest(case):
    logits, known = random_masks(case)
    cells = flooded(known.numpy(), logits.sigmoid().numpy(), 0.9, 0.1)
    costs = {0: [], 1: []}
    for label, logit in zip(cells.ravel(), logits.double().numpy().ravel(), strict=True):
        if label != 255:
            costs[label].append(np.log1p(np.exp(-logit if label else logit)))
    expected = (np.mean(costs[0]) + np.mean(costs[1])) / 2
    assert float(grown_mask_loss(logits, known)) == pytest.approx(expected, rel=1e-5)


def test_without_growing_only_given_cells_count():
    logits, known = random_masks(0)
    assert torch.equal(grown(known, logits.sigmoid(), 1.0, 0.0), known)
    logits.requires_grad_()
    grown_mask_loss(logits, known, 1.0, 0.0).backward()
    assert torch.equal(logits.grad != 0, known != 255)


def test_an_empty_set_costs_nothing():
    logits = torch.full((1, 4, 4), 2.0)
    only_object = torch.ones(1, 4, 4, dtype=torch.uint8)
    assert float(grown_mask_loss(logits, only_object)) == pytest.approx(float(F.softplus(torch.tensor(-2.0))) / 2)
    assert float(grown_mask_loss(logits, torch.full((1, 4, 4), 255, dtype=torch.uint8))) == 0
    nothing = torch.zeros(0, 28, 28, requires_grad=True)
    grown_mask_loss(nothing, torch.zeros(0, 28, 28, dtype=torch.uint8)).backward()


# --- masks in boxes ---


def test_cells_are_the_pixels_at_their_centres():
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.integers(0, 256, (3, 50, 60)).astype(np.uint8))
    boxes = torch.tensor([[4.0, 5.0, 32.0, 33.0], [10.2, 3.7, 41.9, 48.1], [-5.0, 20.0, 30.0, 55.0]])
    found = cut_out(masks, torch.tensor([2, 0, 1]), boxes)
    assert torch.equal(found[0], masks[2, 5:33, 4:32])
    for number, mask in ((1, 0), (2, 1)):
        x0, y0, x1, y1 = boxes[number].tolist()
        for row in range(28):
            for column in range(28):
                y, x = (
                    int(np.floor(y0 + (row + 0.5) / 28 * (y1 - y0))),
                    int(np.floor(x0 + (column + 0.5) / 28 * (x1 - x0))),
                )
                assert found[number, row, column] == masks[mask, min(max(y, 0), 49), min(max(x, 0), 59)]


def test_pasting_is_the_inverse_of_cutting_out():
    mask = torch.rand(28, 28)
    plane = pasted(mask, torch.tensor([4.0, 5.0, 32.0, 33.0]), (50, 60))
    torch.testing.assert_close(plane[5:33, 4:32], mask)
    assert plane.sum() == pytest.approx(float(mask.sum()), rel=1e-5)
    twice = pasted(mask, torch.tensor([-28.0, -28.0, 28.0, 28.0]), (50, 60))  # its lower right quarter is inside
    assert twice[28:].sum() == twice[:, 28:].sum() == 0
    expected = F.interpolate(mask[None, None], scale_factor=2, mode="bilinear", align_corners=False)[0, 0, 28:, 28:]
    torch.testing.assert_close(twice[:28, :28], expected)


# --- the network ---


def test_it_learns_what_the_detector_learns_and_the_masks_of_its_objects():
    made = network().train()
    image, box = picture(np.random.default_rng(1), label=1)
    seen = made.input_of(image)
    x0, y0, x1, y1 = map(int, box.corners)
    plane = torch.zeros(1, 64, 80, dtype=torch.uint8)
    plane[:, y0:y1, x0:x1] = 1
    target = {"boxes": torch.tensor([box.corners], dtype=torch.float32), "labels": torch.tensor([2]), "masks": plane}
    torch.manual_seed(3)
    terms, logits, known = made.examples(seen, [(64, 80)], [dict(target)])
    torch.manual_seed(3)
    torch.testing.assert_close(summed(terms), made.losses(seen, [(64, 80)], [dict(target)]))
    assert logits.shape == known.shape and known.shape[1:] == (28, 28)
    assert (known[-1] == 1).all()  # the last region is the box itself
    logits.sum().backward()
    used = made.mask_predictor.mask_fcn_logits.weight.grad.abs().sum((1, 2, 3)) > 0
    assert used.tolist() == [False, True, False]


def test_images_without_objects_crowds_and_slivers_are_left_out(tmp_path, caplog):
    records = scene(tmp_path, 4)
    objects = {record.id: objects_of(record) for record in records}
    objects["1"] = Instances.of((64, 80))
    objects["2"] = objects_of(records[2], crowd=[True])
    objects["3"] = objects_of(records[3], boxes=[[4, 4, 5, 40]])
    with caplog.at_level(logging.WARNING):
        batches = plan(TINY, inputs_of(tmp_path, records, objects)).batches
    assert batches.names == ["0"] and "3 of 4 images hold no object" in caplog.text
    masks = batches[0]["targets"][0]["masks"]
    assert masks.dtype == torch.uint8 and set(masks.unique().tolist()) == {0, 1, 255}
    with pytest.raises(UserError, match="the masks hold no object"):
        plan(TINY, inputs_of(tmp_path, records[1:], objects))


def test_wrong_shards_are_named(tmp_path):
    records = scene(tmp_path, 2)
    objects = {record.id: objects_of(record) for record in records}
    with pytest.raises(UserError, match="1 images have no masks of single objects, such as '1'"):
        plan(TINY, inputs_of(tmp_path, records, {"0": objects["0"]}))
    with pytest.raises(UserError, match=r"a.h5: image '1' is \(64, 80\), its masks are for \(50, 60\)"):
        plan(TINY, inputs_of(tmp_path, records, objects | {"1": Instances.of((50, 60))}))
    with pytest.raises(UserError, match="its class list differs"):
        plan(TINY, inputs_of(tmp_path, records, objects, ("red", "blue")))


def test_resumed_equals_uninterrupted(tmp_path):
    inputs = inputs_of(tmp_path, scene(tmp_path, 4))
    whole = begun(TINY, inputs)
    history = trained(whole)
    assert set(history[-1]) >= {"loss", "objectness", "proposals", "classes", "boxes", "masks"}
    killed = begun(TINY, inputs)
    loss, calls = killed.loss, []

    def failing(batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(batch)

    with pytest.raises(KeyboardInterrupt):
        trained(training.Plan(**vars(killed) | {"loss": failing}), tmp_path / "state.pt")
    resumed = begun(TINY, inputs)
    assert history == trained(resumed, tmp_path / "state.pt")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_it_learns_masks_of_bright_ellipses_and_predicts_them(tmp_path):
    settings = MaskRcnnSettings(
        backbone="small",
        channels=16,
        short_sides=(64,),
        regions=32,
        iterations=140,
        batch_size=4,
        learning_rate=0.02,
        decay_at=(0.9,),
    )
    made = begun(settings, inputs_of(tmp_path, scene(tmp_path, 24)))
    trained(made)
    meta = made.network.about | {"class_names": ["red", "green"]}
    save_network(tmp_path / "model.pt", made.network.kind, made.network.state_dict(), meta)
    reopened = open_instance_network(tmp_path / "model.pt")
    rng = np.random.default_rng(99)
    ious = []
    for number in range(10):
        image, _ = picture(rng, size=(96, 120), label=number % 2)
        found = predict(reopened, image)
        assert found.size == (96, 120) and len(found) <= 100 and found.masks.any((1, 2)).all()
        true = image[..., number % 2] == 250
        ious.append((found.masks[0] & true).sum() / (found.masks[0] | true).sum() if len(found) else 0.0)
    assert np.median(ious) > 0.5
    cut = predict(reopened, image[:48, :60], InstancePredictSettings(crf=CrfSettings(iterations=1)))
    assert cut.masks.shape[1:] == (48, 60)
    strict = predict(reopened, image, InstancePredictSettings(threshold=0.95))
    assert 0 < strict.masks[0].sum() < found.masks[0].sum() and not (strict.masks[0] & ~found.masks[0]).any()
