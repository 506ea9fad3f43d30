"""What labels cost and were worth: known answers, and a run read from its folder."""

from __future__ import annotations

import math

import pytest

from wsss_core.errors import UserError
from wsss_core.plan_labels import SECONDS, Learned, csv_text, figure, plan, seconds_of, table, text


def learned(tags: int, boxes: int, masks: int, miou: float, stage: str = "deeplab") -> Learned:
    return Learned("run", stage, {"tags": tags, "boxes": boxes, "masks": masks}, miou)


def as_fitted(tags: int, boxes: int, masks: int) -> Learned:
    """Scores that follow the fitted form: 0.3 without labels, weights 0, 0.1 and 0.05."""
    hours = learned(tags, boxes, masks, 0).hours(SECONDS)
    return learned(tags, boxes, masks, 0.3 + 0.1 * math.log1p(hours["boxes"]) + 0.05 * math.log1p(hours["masks"]))


RUNS = [as_fitted(*images) for images in ((300, 0, 0), (200, 100, 0), (100, 150, 50), (0, 300, 0), (0, 0, 300))]


def test_an_image_costs_its_dearest_label():
    assert learned(180, 0, 15, 0).hours(SECONDS) == pytest.approx({"tags": 1.0, "boxes": 0.0, "masks": 0.99875})


def test_the_fit_finds_what_made_the_scores():
    found = plan(RUNS)
    assert found.base == pytest.approx(0.3) and found.error == pytest.approx(0, abs=1e-9)
    assert found.worth == pytest.approx({"tags": 0.0, "boxes": 0.1, "masks": 0.05}, abs=1e-9)
    best = max(RUNS, key=lambda network: network.miou).hours(SECONDS)
    assert found.next_hour == pytest.approx(
        {"tags": 0.0, "boxes": 0.1 / (1 + best["boxes"]), "masks": 0.05 / (1 + best["masks"])}, abs=1e-9
    )
    assert found.advice == "boxes" and "Spend it on boxes." in found.sentences


def test_other_times_give_another_advice():
    dear = plan(RUNS, seconds_of(["boxes=36000"]))
    assert dear.advice == "masks"


def test_nothing_that_helped_is_said():
    assert "None of them has helped so far." in plan([learned(0, 0, 50, 0.5), learned(0, 0, 100, 0.4)]).sentences


@pytest.mark.parametrize("runs", [[], RUNS[:1], [RUNS[0], RUNS[0]], RUNS[:2]])
def test_too_few_runs_stop_with_what_to_add(runs):
    with pytest.raises(UserError, match=r"too few to tell .*dataset.box_share.*method truth"):
        plan(runs)


@pytest.mark.parametrize("word", ["boxes", "boxes=", "boxes=-1", "boxes=nan", "boxes=inf", "polygons=3"])
def test_times_must_be_of_a_known_kind_and_positive(word):
    with pytest.raises(UserError, match=f"--seconds {word}: give tags=N, boxes=N, masks=N"):
        seconds_of([word])


def test_tables_and_figure_show_every_network():
    rows = table(RUNS)
    assert [row["hours"] for row in rows] == sorted((row["hours"] for row in rows), key=float)
    assert max(rows, key=lambda row: float(row["miou"]))["of_best"] == "100.0"
    assert text(rows).splitlines()[0].split() == list(rows[0]) and len(text(rows).splitlines()) == 6
    assert csv_text(rows).splitlines()[0] == "run,stage,tags,boxes,masks,hours,miou,of_best"
    assert figure(RUNS).startswith("<svg")
