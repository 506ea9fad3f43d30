"""Photos of several kinds of labels: their numbers in a batch, their weights, and what a training is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.data.boxes import Box
from wsss_core.data.table import ImageRecord, ImageTable
from wsss_core.errors import UserError
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.segment.batches import network_input
from wsss_core.segment.by_source import BySourceSettings, by_source, divided_batch, loss_terms, plan
from wsss_core.segment.deeplab_v2 import loss_terms as plain_terms
from wsss_core.settings import from_mapping
from wsss_core.store.masks import mask_name, write_mask
from wsss_core.training import Inputs

COUNTS = {"masks": 5, "boxes": 20, "tags": 60}
OPEN = dict.fromkeys(COUNTS)
SIZE = (40, 48)


@pytest.mark.parametrize(
    ("batch", "counts", "shares", "numbers"),
    [
        (17, {}, {}, {"masks": 1, "boxes": 4, "tags": 12}),  # 1, 4 and 12 exactly
        (10, {}, {"masks": 0.5, "boxes": 0.25, "tags": 0.25}, {"masks": 5, "boxes": 3, "tags": 2}),  # 2.5 twice
        (10, {}, {"tags": 0.0}, {"masks": 2, "boxes": 8}),
        (4, {}, {"masks": 0.01}, {"masks": 1, "boxes": 1, "tags": 2}),  # one at least
        (10, {"boxes": 0}, {"masks": 0.5, "boxes": 0.3, "tags": 0.2}, {"masks": 7, "tags": 3}),  # 5 : 2
        (8, {"boxes": 0, "tags": 0}, {}, {"masks": 8}),
    ],
)
def test_numbers_in_a_batch_follow_the_shares(batch, counts, shares, numbers):
    assert divided_batch(batch, COUNTS | counts, OPEN | shares) == numbers


@pytest.mark.parametrize(
    ("batch", "shares", "message"),
    [
        (10, {"masks": 0.7, "boxes": 0.6}, "together they are 1.3"),
        (10, {"masks": 0.5, "boxes": 0.5}, "nothing is left for tags"),
        (10, dict.fromkeys(COUNTS, 0.0), "no photo is left"),
        (2, {}, "2 images are fewer than the sources, masks, boxes, tags"),
    ],
)
def test_shares_that_cannot_be_are_refused(batch, shares, message):
    with pytest.raises(UserError, match=message):
        divided_batch(batch, COUNTS, OPEN | shares)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Two photos with true masks, three with boxes, five with tags; masks of tags hold class 1, true ones class 2."""
    records = []
    for number in range(10):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
        boxes = (Box(0, 0, 0, 20, 20),) if number < 5 else ()
        records.append(ImageRecord(str(number), str(path), *SIZE, ("train",), (0, 1), boxes=boxes))
        made = np.zeros(SIZE, np.uint8)
        made[:20, :20] = 1
        write_mask(tmp_path / "made" / mask_name(str(number)), made)
        write_mask(tmp_path / "true" / mask_name(str(number)), made * 2 if number < 2 else np.full(SIZE, 255, np.uint8))
    table = ImageTable(("cat", "dog"), tuple(records))
    return Inputs(table, None, 0, "segmentations/x", labels=[tmp_path / "made"], truth=[tmp_path / "true"])


def settings(**more: object) -> BySourceSettings:
    tiny = {"backbone": "small", "iterations": 10, "batch_size": 5, "crop": 32, "scales": [1.0], "msc_scales": []}
    return from_mapping(BySourceSettings, {**tiny, "rates": [1], **more})


def test_a_photo_is_of_its_dearest_label(inputs: Inputs) -> None:
    names = {source: [s.image.stem for s in found] for source, found in by_source(inputs).items()}
    assert names == {"masks": ["0", "1"], "boxes": ["2", "3", "4"], "tags": ["5", "6", "7", "8", "9"]}


def test_every_batch_has_the_shares_and_each_source_sees_all_its_photos_once_an_epoch(inputs: Inputs) -> None:
    made = plan(settings(shares={"masks": 0.4, "boxes": 0.4, "tags": 0.2}), inputs)
    first = made.batches[0]
    assert {source: len(part["images"]) for source, part in first.items()} == {"masks": 2, "boxes": 2, "tags": 1}
    assert set(first["masks"]["labels"].unique().tolist()) <= {0, 2, 255}
    tags = [made.batches.parts["tags"].batch_names(step)[0] for step in range(5)]
    assert sorted(tags) == ["5.png", "6.png", "7.png", "8.png", "9.png"]
    again = plan(settings(shares={"masks": 0.4, "boxes": 0.4, "tags": 0.2}), inputs).batches[3]
    assert all((again[s]["images"] == part["images"]).all() for s, part in made.batches[3].items())


def test_a_source_of_no_weight_is_left_out(inputs: Inputs) -> None:
    assert set(plan(settings(source_weights={"tags": 0.0}), inputs).batches[0]) == {"masks", "boxes"}


def test_the_loss_weighs_each_source_by_its_weight_and_share(inputs: Inputs) -> None:
    torch.manual_seed(0)
    network = deeplab_v2("small", 3, rates=(1,), scales=())
    batch = plan(settings(), inputs).batches[0]
    numbers = {source: len(part["images"]) for source, part in batch.items()}
    terms = loss_terms(network, batch, {"masks": 1.0, "boxes": 0.5, "tags": 0.25})
    by_hand = sum(w * numbers[s] / 5 * terms[s] for s, w in (("masks", 1.0), ("boxes", 0.5), ("tags", 0.25)))
    torch.testing.assert_close(terms["loss"], by_hand)


def test_at_equal_weights_the_loss_is_that_of_the_whole_batch(inputs: Inputs) -> None:
    torch.manual_seed(0)
    network = deeplab_v2("small", 3, rates=(1,), scales=()).eval()
    batch = plan(settings(), inputs).batches[0]
    for part in batch.values():  # as many decided pixels in every crop
        part["labels"] = torch.where(part["labels"] == 255, 0, part["labels"])
    whole = {key: torch.cat([part[key] for part in batch.values()]) for key in ("images", "inside", "labels")}
    together = plain_terms(network.train()(network_input(whole)), whole["labels"])["loss"]
    torch.testing.assert_close(loss_terms(network, batch, dict.fromkeys(COUNTS, 1.0))["loss"], together)
