"""What labels cost and were worth: known answers, and a run read from its folder."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import yaml

from wsss_core import cli
from wsss_core.data.table import ImageRecord, ImageTable, write_table
from wsss_core.errors import UserError
from wsss_core.evaluate import metrics
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.labelled import is_labelled
from wsss_core.evaluate.tables import write_evaluation
from wsss_core.plan_labels import SECONDS, TITLE, Learned, csv_text, figure, plan, seconds_of, table, text


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
    drawn = ET.fromstring(figure(RUNS))
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"  # a file of its own, not a part of a page
    title = drawn.findtext("{http://www.w3.org/2000/svg}title")
    assert title.startswith(f"{TITLE}. mIoU, %, over hours of labelling: ") and all(run.stage in title for run in RUNS)


RUN = {
    "run": "mine",
    "dataset": {"format": "demo"},
    "classifiers": {"bce": {"objective": "bce"}},
    "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
    "refinements": {"crf": {"method": "crf", "seed": "cam"}, "few": {"method": "truth", "images": 0.5}},
    "instances": {"objects": {"method": "truth"}},
    "segmentations": {"weak": {"network": "deeplab_v2", "masks": "crf"}},
}
RUN["refinements"] |= {"merged": {"method": "instances", "instances": "objects"}}
RUN["segmentations"] |= {
    "mixed": {"network": "pseudo_label", "masks": "crf", "truth": "few"},
    "full": {"network": "deeplab_v2", "masks": "merged"},
}


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """Configuration of a run of ten images, three networks of which are scored."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(RUN))
    folder = Path("results/mine")
    records = [ImageRecord(str(k), f"{k}.png", 4, 5, ("train",), (0,), "", (), "d") for k in range(10)]
    write_table(folder / "dataset/images.csv", ImageTable(("cat",), tuple(records)))
    for name, right in {"weak": 5, "mixed": 7, "full": 9}.items():
        scores = metrics(np.array([[right, 10 - right], [10 - right, right]]))
        write_evaluation(
            folder / f"segmentations/{name}/evaluation.csv", ScoreHeader("val", 3), ["background", "cat"], scores
        )
    return Path("mine.yaml")


def test_a_run_is_read_and_true_objects_are_masks(run, capsys):
    assert cli.main(["plan-labels", str(run)]) == 0
    rows = {line.split()[1]: line.split()[2:5] for line in capsys.readouterr().out.splitlines() if "mine" in line}
    drawn = sum(is_labelled(str(k), 0.5, 0) for k in range(10))
    assert rows == {"weak": ["10", "0", "0"], "mixed": [str(10 - drawn), "0", str(drawn)], "full": ["0", "0", "10"]}


@pytest.mark.parametrize("option", ["--csv", "--figure"])
def test_own_files_are_replaced_and_others_are_left(run, option, capsys):
    words = ["plan-labels", str(run), "--csv", "hours.csv", "--figure", "hours.svg"]
    assert cli.main(words) == cli.main(words) == 0
    Path("labels.csv").write_text("image,labels\na.jpg,cat\n")
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert cli.main([*words, option, "labels.csv"]) == 2
    assert "labels.csv: is left as it is, since it was not made here" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before
