"""Masks and tags that contradict each other, as a whole and by absence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_index import CLASSES, DataSet
from tests.test_index import data as data  # the fixture
from wsss_core.data.truth import Truth, contradictions, no_accident, unscored
from wsss_core.store.masks import write_mask

NAMES = ("cat", "dog", "owl")


def truths(*pairs: tuple[tuple[int, ...], tuple[int, ...]], times: int = 1) -> list[Truth]:
    """Truths of pairs of tags and the labels in the mask, each as often as asked for."""
    return [Truth(f"{i}-{k}", tags, labels) for i, (tags, labels) in enumerate(pairs) for k in range(times)]


def test_an_honest_data_set_hides_an_object_now_and_then():
    honest = truths(((0,), (0, 1)), ((1,), (0, 2, 255)), ((2, 1), (0, 2, 3)), times=30)
    honest += [Truth("hidden", (0, 1), (0, 2)), Truth("ignored", (2,), (0, 255)), Truth("untagged", (), (0, 3))]
    assert contradictions(NAMES, honest) == [] and unscored(NAMES, honest) == []


def test_no_masks_or_no_tags_say_nothing():
    assert contradictions(NAMES, []) == [] and unscored(NAMES, []) == []
    assert contradictions(NAMES, truths(((), (0, 1)), ((), (0, 2)))) == []


@pytest.mark.parametrize("labels", [(0, 255), (0,), (255,)])
def test_masks_that_hold_no_class_at_all(labels):
    (found,) = contradictions(NAMES, truths(((0,), labels), ((1,), labels)))
    assert found.startswith("none of 2 masks holds a class, only the value")
    assert contradictions(NAMES, [Truth("val", (), labels)]), "also where the evaluated images have no tags"


def test_one_class_saved_in_another_way():
    (found,) = contradictions(NAMES, truths(((0,), (0, 1)), ((1,), (0, 2)), ((2,), (0, 255)), times=4))
    assert found.startswith(
        "no mask holds label 3 (owl), though 4 images with a mask are tagged with it, such as '2-0'"
    )
    assert "their masks hold 0, 255" in found


def test_the_only_mask_of_a_class():
    others = truths(((0,), (0, 1)), ((1,), (0, 2)), times=9)
    assert contradictions(NAMES, [*others, Truth("hidden", (1, 2), (0, 2))]) == []
    assert unscored(NAMES, [*others, Truth("hidden", (1, 2), (0, 2))]) == ["owl"]
    (found,) = contradictions(NAMES, [*others, Truth("x", (2,), (0, 255))])
    assert "1 image with a mask is tagged with it, such as 'x'" in found


def test_a_share_of_the_masks_saved_in_another_way():
    good, bad = truths(((0,), (0, 1)), ((1,), (0, 2)), times=20), truths(((0,), (0, 255)), ((1,), (0, 255)), times=7)
    (found,) = contradictions(NAMES, good + bad)
    assert found.startswith("14 of 54 tagged images have a mask that shows none of their tags") and "0, 255" in found


def test_masks_of_other_images():
    tags = [(k % 3,) for k in range(30)]
    shown = [(0, (k * 7 % 30) // 10 + 1) for k in range(30)]
    assert contradictions(NAMES, [Truth(str(k), *pair) for k, pair in enumerate(zip(tags, shown, strict=True))])


def test_one_label_for_every_object():
    found = contradictions(NAMES, truths(((0,), (0, 1)), ((1,), (0, 1)), ((2,), (0, 1)), times=5))
    assert any(
        "5 of 5 images tagged 'dog' do not hold its label 2 in their masks, 5 of them hold 1 (cat)" in t for t in found
    )


def test_a_class_that_is_drawn_in_half_of_its_images():
    both = truths(((0, 1), (0, 1, 2)), ((0, 1), (0, 1)), ((2,), (0, 3)), times=20)
    assert contradictions(NAMES, both)[0].startswith("20 of 40 images tagged 'dog' do not hold its label 2")


def test_chance_needs_numbers():
    assert no_accident(3, 3, 0.1) and not no_accident(2, 2, 0.1) and not no_accident(0, 0, 0.1)
    assert no_accident(1300, 10000, 0.1) and not no_accident(1000, 10000, 0.1)


def resave(data: DataSet, names: list[str], change) -> None:
    for name in names:
        path = data.root / f"masks/{name}.png"
        labels = np.asarray(Image.open(path))
        path.unlink()
        write_mask(path, change(labels))


def test_masks_of_0_and_255_stop_the_run(data: DataSet):
    everything = [Path(p).stem for p in (data.root / "masks").iterdir()]
    resave(data, everything, lambda labels: np.where(labels > 0, 255, 0))
    data.refused("none of 10 masks holds a class, only the values 0 and 255", unreadable="stop")
    data.refused("none of 10 masks holds a class", unreadable="skip")


def test_masks_of_0_and_255_for_evaluation_alone(data: DataSet):
    for name in [f"t{i}" for i in range(8)]:
        (data.root / f"masks/{name}.png").unlink()
    resave(data, ["v0", "v1"], lambda labels: np.where(labels > 0, 255, 0))
    data.refused("none of 2 masks holds a class")


def test_tags_taken_from_such_masks(data: DataSet):
    (data.root / "images").rename(data.root / "JPEGImages")
    everything = [Path(p).stem for p in (data.root / "masks").iterdir()]
    resave(data, everything, lambda labels: np.where(labels > 0, 255, 0))
    data.refused("none of 10 masks holds a class", method="voc", tags="masks", lists=".")


def test_one_class_of_0_and_255_stops_the_run(data: DataSet):
    owl = CLASSES.index("owl") + 1
    resave(data, ["t2", "t4", "t6"], lambda labels: np.where(labels == owl, 255, labels))
    error = data.refused("no mask holds label 3 (owl), though 3 images with a mask are tagged with it")
    assert "unreadable" not in error


def test_a_mask_that_shows_none_of_the_tags_is_noted(data: DataSet):
    resave(data, ["t5"], lambda labels: np.where(labels > 0, 255, 0))
    data.index()
    (row,) = data.problems()
    assert (row["image"], row["problem"], row["action"]) == ("t5", "the mask shows none of the tags (cat)", "kept")


def test_a_class_without_a_mask_is_noted(data: DataSet):
    for name in ["t2", "t4", "t6"]:
        (data.root / f"masks/{name}.png").unlink()
    data.index()
    (row,) = data.problems()
    assert row["problem"] == "none of 7 masks holds 'owl': never scored" and row["severity"] == "note"
