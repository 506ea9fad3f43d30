"""The table of results, tables of several runs, and figures of ablation studies."""

from __future__ import annotations

import copy
import json
import math
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from wsss_core.cli import main
from wsss_core.config import load, step_json
from wsss_core.data.table import write_manifest
from wsss_core.errors import UserError
from wsss_core.evaluate.confusion import metrics
from wsss_core.evaluate.figures import FigureSettings, Series, series
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.results import ResultRow, Results, combine, read_results, write_results
from wsss_core.evaluate.tables import label_names, write_evaluation
from wsss_core.execution import Execution
from wsss_core.jobs.made import Made
from wsss_core.report.charts import inline
from wsss_core.report.figures import figure_svg
from wsss_core.report.markdown import refinement_table, results_table
from wsss_core.steps import figure as figure_step
from wsss_core.steps import results as results_step
from wsss_core.store.cut import Cut

EXECUTION = Execution(device="cpu")
BENCHMARK = "s\th:m:s\tmax_rss\n{}\t0:0:1\t{}\n"
MATRIX = np.array([[6, 2], [1, 3]])
"""Rows target. IoU 6/9 and 3/6, precision 6/7 and 3/5, recall 6/8 and 3/4, F1 12/15 and 6/9."""
SCORES = {
    "miou": (6 / 9 + 3 / 6) / 2,
    "precision": (6 / 7 + 3 / 5) / 2,
    "recall": 0.75,
    "f1": (12 / 15 + 6 / 9) / 2,
    "f_score": 2 / (1 / ((6 / 7 + 3 / 5) / 2) + 1 / 0.75),
}
RAW = {
    "run": "study",
    "seed": 3,
    "dataset": {"format": "demo"},
    "classifiers": {"bce": {"objective": "bce"}},
    "seeds": {
        "cam": {"method": "cam", "classifier": "bce"},
        "rib": {"method": "rib", "classifier": "bce", "steps": [2, 4], "margin": [None, 600]},
    },
    "refinements": {"irn": {"method": "irn", "seed": "cam"}},
    "segmentations": {"deeplab": {"network": "deeplab_v2", "masks": "irn"}},
}


def raw(**changes) -> dict:
    return copy.deepcopy(RAW) | changes


def scored(path: Path, cut: Cut, split: str = "score", **header) -> None:
    """An evaluation of `MATRIX`."""
    header = ScoreHeader(split, 230, cut=cut, **header)
    write_evaluation(path, header, label_names(["cat"]), metrics(MATRIX))


@pytest.fixture
def finished(tmp_path) -> Path:
    """A folder of a run with evaluations and benchmarks; one of the variants of RIB was not scored."""
    folder = tmp_path / "study"
    for shard in ("00-of-02", "01-of-02"):
        write_manifest(folder / "dataset" / "shards" / "train" / f"{shard}.json", ["cat"], [])
    for name in ("cam", "rib@steps=2@margin=None", "rib@steps=2@margin=600", "rib@steps=4@margin=None"):
        own = folder / "seeds" / name
        scored(own / "evaluation.csv", Cut("heldout", 0.41), choosing=65)
        oracle = {"rule": "heldout", "value": 0.41, "miou": 0.5, "oracle": {"value": 0.46, "miou": 0.61}}
        (own / "threshold.json").write_text(json.dumps(oracle))
        benchmarks = folder / "benchmarks" / "seeds" / name
        benchmarks.mkdir(parents=True)
        (benchmarks / "maps.00-of-02.tsv").write_text(BENCHMARK.format(3.5, 120.25))
        (benchmarks / "maps.01-of-02.tsv").write_text(BENCHMARK.format(5, "NA"))
        (benchmarks / "scores.tsv").write_text(BENCHMARK.format(1, 80))
    own = folder / "refinements" / "irn"
    scored(own / "walk.csv", Cut("fixed", 0.25))
    scored(own / "evaluation.csv", Cut("fixed", 0.27), ignored_in_prediction="background", undecided=17)
    (own / "threshold.json").write_text(json.dumps({"rule": "fixed", "value": 0.25}))
    scored(folder / "segmentations" / "deeplab" / "evaluation.csv", Cut("none"), "val")
    return folder


def made(folder: Path, configuration: dict = RAW) -> Results:
    config = folder / "config" / "results.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(step_json(load(configuration), "run", "results"))
    results_step.run(config=config, run=folder, table=folder / "results.csv", execution=EXECUTION)
    return read_results(folder / "results.csv")


def test_table_has_a_row_for_every_scored_product(finished):
    results = made(finished)
    assert (results.run, results.seed, results.swept) == ("study", 3, ("rib.steps", "rib.margin"))
    assert [(row.stage, row.product) for row in results.rows] == [
        ("cam", "maps"),
        ("rib@steps=2@margin=None", "maps"),
        ("rib@steps=2@margin=600", "maps"),
        ("rib@steps=4@margin=None", "maps"),
        ("irn", "walk"),
        ("irn", "masks"),
        ("deeplab", "predictions"),
    ]
    cam, rib, *_ = results.rows
    for score, value in SCORES.items():
        assert getattr(cam, score) == pytest.approx(value, abs=1e-6)
    assert (cam.split, cam.images, cam.rule) == ("score", 230, "heldout, chosen on 65 other images with masks")
    assert (cam.threshold, cam.oracle_threshold, cam.oracle_miou) == (0.41, 0.46, 0.61)
    assert (cam.seconds, cam.memory_mb) == (9.5, 120.25)
    assert (rib.base, rib.swept, rib.upstream) == ("rib", {"rib.steps": 2, "rib.margin": None}, ("bce",))
    walk, masks, deeplab = results.rows[-3:]
    assert (walk.threshold, masks.threshold, masks.rule) == (0.25, 0.27, "fixed, no masks used")
    assert math.isnan(walk.oracle_miou) and math.isnan(masks.oracle_miou) and math.isnan(masks.seconds)
    assert (masks.undecided, walk.undecided) == (17, 0)
    assert (deeplab.rule, deeplab.split) == ("", "val") and math.isnan(deeplab.threshold)


def test_networks_are_told_as_a_part_of_full_supervision(finished):
    networks = {
        "deeplab": {"network": "deeplab_v2", "masks": "irn"},
        "full": {"network": "deeplab_v2", "masks": "truth"},
        "other": {"network": "dsrg", "masks": "truth"},
        "few": {"network": "cct", "masks": "irn", "truth": "some"},
    }
    truths = {"truth": {"method": "truth"}, "some": {"method": "truth", "images": 0.5}}
    configuration = raw(refinements=RAW["refinements"] | truths, segmentations=networks)
    for name, right in (("full", 9), ("other", 2), ("few", 9)):
        matrix = np.array([[right, 1], [1, right]])
        path = finished / "segmentations" / name / "evaluation.csv"
        write_evaluation(path, ScoreHeader("val", 230), label_names(["cat"]), metrics(matrix))
    results = made(finished, configuration)
    rows = {row.stage: row for row in results.rows if row.section == "segmentations"}
    whole = 9 / 11
    parts = {"deeplab": SCORES["miou"] / whole, "full": 1.0, "other": 0.5 / whole, "few": 1.0}
    assert {name: row.of_full for name, row in rows.items()} == pytest.approx(parts, abs=1e-5)
    assert all(math.isnan(row.of_full) for row in results.rows if row.section != "segmentations")
    assert rows["full"].rule == "built on truth: true masks of 100 % of the images"
    assert rows["few"].rule == "built on some: true masks of 50 % of the images"
    assert rows["deeplab"].rule == ""
    table = results_table([results])
    assert "of full supervision" in table and "| 100.0 |" in table
    assert "of full supervision" not in results_table([made(finished)])


def test_table_says_what_is_hindsight_and_holds_no_nan(finished):
    made(finished)
    text = (finished / "results.csv").read_text()
    assert "# oracle_threshold and oracle_miou: best in hindsight on the scored masks" in text
    assert "nan" not in text


def test_table_of_a_run_without_masks(finished):
    for path in finished.glob("*/*/evaluation.csv"):
        write_evaluation(path, ScoreHeader("score", 0), label_names(["cat"]), None)
    row = made(finished).rows[0]
    assert (row.images, row.rule) == (0, "") and math.isnan(row.miou) and math.isnan(row.threshold)
    assert "no masks" in results_table([made(finished)])


def test_time_is_that_of_the_shards_there_are_and_empty_if_one_of_them_is_missing(finished):
    own = finished / "benchmarks" / "seeds" / "cam"
    (own / "maps.00-of-04.tsv").write_text(BENCHMARK.format(1000, 1000))
    cam = made(finished).rows[0]
    assert (cam.seconds, cam.memory_mb) == (9.5, 120.25)
    for name in ("maps.01-of-02.tsv", "scores.tsv"):
        text = (own / name).read_text()
        (own / name).unlink()
        cam = made(finished).rows[0]
        assert math.isnan(cam.seconds) and math.isnan(cam.memory_mb)
        (own / name).write_text(text)


def test_a_job_that_outlived_its_snakemake_has_its_time_in_its_own_record(finished):
    benchmark = finished / "benchmarks/seeds/cam/maps.01-of-02.tsv"
    benchmark.unlink()
    record = finished / "made/seeds/cam/maps.01-of-02.json"
    record.parent.mkdir(parents=True)
    held = Made("settings", "seeds/cam/maps/01-of-02.h5", (0, 0), "product", 7.25, 300.5)
    record.write_text(json.dumps(asdict(held)))
    cam = made(finished).rows[0]
    assert (cam.seconds, cam.memory_mb) == (3.5 + 7.25 + 1, 300.5)


def test_predictions_of_no_validation_images_took_no_time(finished):
    own = finished / "benchmarks" / "segmentations" / "deeplab"
    own.mkdir(parents=True)
    for step in ("train", "evaluation"):
        (own / f"{step}.tsv").write_text(BENCHMARK.format(2, 10))
    assert made(finished).rows[-1].seconds == 4
    write_manifest(finished / "dataset" / "shards" / "val" / "00-of-01.json", ["cat"], [])
    assert math.isnan(made(finished).rows[-1].seconds)


@pytest.mark.parametrize(
    ("cut", "rule"),
    [
        (Cut("oracle", 0.3), "oracle, chosen with the scored masks"),
        (Cut("oracle", 0.3, from_maps=True), "rule oracle of the maps' scores, chosen with the scored masks"),
        (Cut("heldout", 0.3, from_maps=True), "rule heldout of the maps' scores, chosen on 65 other images with masks"),
        (Cut("fixed", 0.3, from_maps=True), "rule fixed of the maps' scores, no masks used"),
        (Cut("band", band=(0.2, 0.3)), "band, background below 0.2, foreground above 0.3, undecided between"),
    ],
)
def test_masks_say_where_their_threshold_comes_from(finished, cut, rule):
    scored(finished / "refinements" / "irn" / "evaluation.csv", cut, choosing=65)
    masks = made(finished).rows[-2]
    assert masks.rule == rule
    assert masks.threshold == cut.threshold or math.isnan(masks.threshold) == (cut.threshold is None)


def test_what_is_built_on_an_oracle_threshold_says_so(finished):
    plain = made(finished).rows[-1]
    irn = {"irn": {"method": "irn", "seed": "cam", "masks": {"threshold": "oracle"}}}
    masks, deeplab = made(finished, raw(refinements=irn)).rows[-2:]
    assert plain.rule == "" and deeplab.rule == "built on irn: oracle, chosen with the masks"
    assert "built on" not in masks.rule


def test_targets_alone_are_in_the_table(finished):
    assert {row.stage for row in made(finished, raw(targets=["bce", "cam", "deeplab"])).rows} == {"cam", "deeplab"}


def test_digest_is_of_the_settings_and_what_they_are_built_on_but_not_of_the_seed():
    def digests(configuration: dict) -> dict[str, str]:
        loaded = load(configuration)
        return {name: loaded.lineage(name) for name in loaded.stages}

    before, other_seed = digests(RAW), digests(raw(seed=4, run="other"))
    changed = digests(raw(classifiers={"bce": {"objective": "bce", "epochs": 4}}))
    cam = digests(raw(seeds=RAW["seeds"] | {"cam": {"method": "cam", "classifier": "bce", "scales": [1.0]}}))
    assert before == other_seed
    assert all(before[name] != changed[name] for name in before)
    assert {name for name in before if before[name] != cam[name]} == {"cam", "irn", "deeplab"}
    assert len(set(before.values())) == len(before)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "# run: x\n# seed: 0\nsection,stage,base\n"])
def test_other_files_are_no_table_of_results(tmp_path, text):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(UserError, match=r"results\.csv: is not a table of results"):
        read_results(tmp_path / "results.csv")
    with pytest.raises(UserError, match="snakemake results"):
        read_results(tmp_path / "none.csv")


def test_swept_values_of_every_kind_are_read_as_they_were_written(tmp_path):
    kinds = {"a.x": 5e-6, "a.y": None, "a.z": [1.0, 0.5], "a.word": "gap", "a.flag": True}
    rows = (
        ResultRow("seeds", "a", "a", "cam", kinds, upstream=("b", "c")),
        ResultRow("seeds", "d", "d", "cam", {"d.k": 2}),
    )
    write_results(tmp_path / "t.csv", Results("r", 1, rows))
    found = read_results(tmp_path / "t.csv").rows
    assert found[0].swept == kinds and found[1].swept == {"d.k": 2} and found[0].upstream == ("b", "c")


def with_scores(run: str, seed: int, **scores: float) -> Results:
    rows = [
        ResultRow("seeds", name, name, "cam", miou=value, images=9, split="score") for name, value in scores.items()
    ]
    return Results(run, seed, tuple(rows))


def test_runs_are_combined_as_mean_and_standard_deviation():
    runs = [with_scores("a", 0, cam=0.50, rib=0.6), with_scores("b", 1, cam=0.52), with_scores("c", 2, cam=0.57)]
    cam, rib = combine(runs)
    assert cam.numbers["miou"].mean == pytest.approx(0.53)
    assert cam.numbers["miou"].deviation == pytest.approx(np.std([0.50, 0.52, 0.57], ddof=1))
    assert (rib.numbers["miou"].mean, rib.numbers["miou"].runs) == (0.6, 1)
    table = results_table(runs)
    assert "| 53.0 ± 3.6 |" in table and "| 60.0 |" in table
    assert table.splitlines()[0].endswith("| runs |") and "over 3 runs" in table


def test_repetitions_are_joined_within_a_run_and_over_runs():
    def run(name, seed, *scores):
        rows = []
        for k, miou in enumerate(scores):
            given = {"miou": miou, "images": 9, "split": "score"}
            swept = {"rib.steps": 5, "rib.repeat": k}
            seed_name = f"rib@steps=5@repeat={k}"
            rows.append(ResultRow("seeds", seed_name, "rib", "rib", swept, "maps", ("bce",), **given))
            crf = f"crf@steps=5@repeat={k}"
            rows.append(ResultRow("refinements", crf, "crf", "crf", swept, "masks", (seed_name,), **given))
        return Results(name, seed, tuple(rows))

    maps, masks = combine([run("a", 0, 0.5, 0.52, 0.57)])
    assert maps.numbers["miou"].deviation == pytest.approx(np.std([0.50, 0.52, 0.57], ddof=1))
    assert (maps.row.stage, masks.row.upstream) == ("rib@steps=5", ("rib@steps=5",))
    assert masks.row.swept == {"rib.steps": 5}
    table = results_table([run("a", 0, 0.5, 0.52, 0.57)])
    assert table.startswith("| stage | rib.steps | scored on |") and "| 53.0 ± 3.6 |" in table
    assert "standard deviation over the repetitions." in table and "over 1 runs" not in table
    assert combine([run("a", 0, 0.5, 0.6), run("b", 1, 0.7)])[0].numbers["miou"].runs == 3
    assert "| rib@steps=5 |  | 55.0" in refinement_table([run("a", 0, 0.5, 0.6)])


def test_seeds_are_set_against_the_refinements_of_each():
    def scored(section, name, method, miou, product, *upstream):
        scores = {"miou": miou, "f1": miou + 0.1, "images": 9, "split": "score"}
        return ResultRow(section, name, name, method, {}, product, upstream, **scores)

    rows = (
        scored("seeds", "cam", "cam", 0.5, "maps", "bce"),
        scored("seeds", "rib", "rib", 0.55, "maps", "bce"),
        scored("refinements", "cam-crf", "crf", 0.6, "masks", "cam"),
        scored("refinements", "rib-irn", "irn", 0.65, "walk", "rib"),
        scored("refinements", "rib-irn", "irn", 0.7, "masks", "rib"),
        scored("refinements", "filled", "fill", 0.8, "masks", "rib-irn", "deeplab"),
    )
    lines = refinement_table([Results("r", 0, rows)]).splitlines()
    assert lines[0] == "| seed | threshold | as it is | crf | irn |"
    assert lines[2] == "| cam |  | 50.0 (60.0) | 60.0 (70.0) |  |"
    assert lines[3] == "| rib |  | 55.0 (65.0) |  | 70.0 (80.0) |"
    assert lines[5].startswith("mIoU (F1), of 9 images (score). Run r (seed 0).")


def test_a_spread_needs_other_seeds_and_the_same_settings():
    with pytest.raises(UserError, match="'a' and 'b' have the same seed 0"):
        combine([with_scores("a", 0, cam=0.5), with_scores("b", 0, cam=0.5)])
    for change, message in {
        "settings": "stage 'rib' has other settings in run 'b' than in 'a'",
        "split": "stage 'rib' is scored on 9 other images in run 'b', on 9 score images in 'a'",
    }.items():
        (row,) = with_scores("b", 1, rib=0.5).rows
        with pytest.raises(UserError, match=message):
            combine([with_scores("a", 0, rib=0.5), Results("b", 1, (replace(row, **{change: "other"}),))])


def test_command_prints_a_table(finished, capsys):
    made(finished)
    assert main(["table", str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| stage | rib.steps | rib.margin | scored on | threshold | mIoU |")
    assert "| rib | 2 | null | score, 230 images | 0.41, heldout" in lines[3]
    assert "61.0 at 0.46" in lines[3] and "58.3 †" in lines[7]
    assert len({line.count(" | ") for line in lines[:9]}) == 1
    assert main(["table", str(finished / "nothing")]) == 2


# figures


def row(base: str, miou: float, section: str = "seeds", product: str = "maps", **swept) -> ResultRow:
    keys = {key.replace("__", "."): value for key, value in swept.items()}
    name = "".join([base, *(f"@{k}={v}" for k, v in keys.items())])
    return ResultRow(section, name, base, "", keys, product, miou=miou, oracle_miou=miou + 0.1)


TABLE = Results(
    "study",
    0,
    (
        row("cam", 0.4),
        *(
            row("rib", m, rib__steps=k, rib__pooling=p)
            for k, p, m in [(4, "gap", 0.5), (2, "gap", 0.45), (2, "gndrp", 0.6)]
        ),
        row("rib", math.nan, rib__steps=4, rib__pooling="gndrp"),
        row("irn", 0.62, "refinements", "walk", rib__steps=2, rib__pooling="gap"),
        row("irn", 0.61, "refinements", "masks", rib__steps=2, rib__pooling="gap"),
    ),
)


def test_lines_of_a_figure_are_the_values_of_another_key():
    found = series(FigureSettings(name="f", x="rib.steps", lines="rib.pooling"), TABLE)
    assert found == [
        Series("pooling = gap", ((4, 0.5), (2, 0.45))),
        Series("pooling = gndrp", ((2, 0.6),)),
    ]


def test_a_stage_without_the_key_is_a_level():
    settings = FigureSettings(name="f", x="rib.steps", lines="rib.pooling", stages=("rib", "cam"))
    gap, gndrp, cam = series(settings, TABLE)
    assert (gap.label, gndrp.label) == ("rib, pooling = gap", "rib, pooling = gndrp")
    assert cam == Series("cam", ((None, 0.4),), level=True)


def test_masks_of_a_walk_are_shown_and_its_maps_in_hindsight():
    settings = FigureSettings(name="f", x="rib.steps", lines="rib.pooling", stages=("irn",))
    assert series(settings, TABLE)[0].points == ((2, 0.61),)
    assert series(FigureSettings(name="f", x="rib.steps", y="oracle_miou", stages=("irn",)), TABLE)[0].points == (
        (2, pytest.approx(0.72)),
    )


def test_stages_side_by_side():
    table = Results("s", 0, (row("cam", 0.4), row("rib", 0.5)))
    assert series(FigureSettings(name="f"), table) == [Series("", (("cam", 0.4), ("rib", 0.5)))]


def test_several_scores_at_one_point_are_an_error():
    with pytest.raises(UserError, match=r"figure 'f': rib@.* and rib@.* are the same point; name in lines"):
        series(FigureSettings(name="f", x="rib.steps"), TABLE)
    with pytest.raises(UserError, match="no row for x = rib.margin of cam"):
        series(FigureSettings(name="f", x="rib.margin", stages=("cam",)), Results("r", 0, ()))


@pytest.mark.parametrize("settings", [{"x": "rib.steps"}, {"x": "rib.steps", "scale": "log"}, {"x": "rib.pooling"}, {}])
def test_figures_are_drawn_and_the_same_bytes_come_again(settings):
    lines = [
        Series("a <b>", ((2, 0.5), (10, 0.6)) if "steps" in str(settings) else (("gap", 0.5), ("gndrp", 0.6))),
        Series("level", ((None, 0.4),), level=True),
    ]
    drawn = figure_svg(FigureSettings(name="f", title="Steps & pooling", **settings), lines)
    says = "Steps & pooling. mIoU, %, "
    title = ET.fromstring(drawn).findtext("{*}title")
    assert title.startswith(says) and "a <b>: 50.0 at " in title and title.endswith("; level: 40.0.")
    assert "a &lt;b&gt;</text>" in drawn and "url(" not in inline(drawn)
    assert drawn == figure_svg(FigureSettings(name="f", title="Steps & pooling", **settings), lines)


def test_figure_of_a_run_without_masks_says_so():
    table = Results("s", 0, (row("cam", math.nan), row("rib", math.nan)))
    settings = FigureSettings(name="f")
    assert series(settings, table) == []
    svg = figure_svg(settings, [])
    assert "nothing was scored" in svg
    assert "nothing was scored" not in figure_svg(settings, [Series("", (("cam", 0.4),))])


def test_figure_of_a_run_is_a_file(finished):
    figures = [{"name": "steps", "x": "rib.steps", "lines": "rib.margin", "stages": ["rib", "cam"]}]
    configuration = raw(figures=figures)
    made(finished, configuration)
    config = finished / "config" / "steps.json"
    config.write_text(step_json(load(configuration), "figures/steps", "figure"))
    figure = finished / "figures" / "steps.svg"
    figure_step.run(config=config, results=finished / "results.csv", figure=figure, execution=EXECUTION)
    assert ET.parse(figure).getroot().tag.endswith("svg")
    with pytest.raises(UserError, match="is not the settings file of a step"):
        figure_step.run(config=figure, results=finished / "results.csv", figure=figure, execution=EXECUTION)


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"x": "rib.steps"}, "figures[0].name: is missing"),
        (
            {"name": "f", "x": "rib.stepz", "lines": "rib.margin"},
            "'rib.stepz' is not swept; swept keys: rib.steps, rib.margin",
        ),
        ({"name": "f", "x": "rib.steps"}, "rib has several variants for each point, which differ in rib.margin"),
        ({"name": "f", "x": "stage", "stages": ["rib"]}, "differ in rib.margin, rib.steps"),
        ({"name": "f", "x": "rib.steps", "lines": "rib.margin", "stages": ["rob"]}, "there is no stage 'rob'"),
        ({"name": "f", "stages": ["bce"]}, "'bce' is one of the classifiers"),
        (
            {"name": "f", "y": "iou", "stages": ["cam"]},
            'figures[0].y: "iou" is not allowed; allowed: miou, oracle_miou',
        ),
        ({"name": "a/b", "stages": ["cam"]}, 'figures[0].name: "a/b" is not allowed'),
        ({"name": "f", "colour": "red"}, "figures[0].colour: unknown key"),
    ],
)
def test_mistakes_of_figures_are_found_before_anything_runs(figure, message):
    with pytest.raises(UserError) as caught:
        load(raw(figures=[figure]))
    assert message in str(caught.value)


def test_names_of_figures_are_unique():
    with pytest.raises(UserError, match=r"figures\[1\].name: 'f' is taken"):
        load(raw(figures=[{"name": "f", "stages": ["cam"]}] * 2))


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"scores": ["cem"]}, "report.scores: there is no stage 'cem' in seeds, refinements, segmentations"),
        ({"gains": [["cam", "bce"]]}, "report.gains: there is no stage 'bce'"),
        ({"gains": [["cam"]]}, 'report.gains: [["cam"]] is not allowed'),
        ({"adaptation": ["irn"]}, "report.adaptation: there is no stage 'irn' in seeds"),
        ({"sizes": {"limits": [0.5, 0.1]}}, "report.sizes.limits: [0.5, 0.1] is not allowed; the first number must"),
        ({"sizes": {"stages": ["x"]}}, "report.sizes.stages: there is no stage 'x'"),
        ({"features": {"classifiers": ["cam"]}}, "report.features.classifiers: there is no stage 'cam' in classifiers"),
        ({"features": {}}, "report.features.classifiers: [] is not allowed"),
    ],
)
def test_mistakes_of_analyses_are_found_before_anything_runs(report, message):
    with pytest.raises(UserError) as caught:
        load(raw(report=report))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"figures": [{"name": "f", "stages": ["cam"]}]}, "figures[0].stages: 'cam' is not a target"),
        ({"figures": [{"name": "f", "x": "stage"}], "targets": ["bce"]}, "figures[0]: no target is scored"),
        ({"report": {"scores": ["cam"]}}, "report.scores: 'cam' is not a target, so it is not scored"),
        ({"report": {"adaptation": ["rib"]}}, "report.adaptation: no target is built on 'rib', so it is not made"),
        ({"report": {"adaptation": ["cam"], "scores": ["deeplab"], "features": {"classifiers": ["bce"]}}}, None),
    ],
)
def test_what_no_target_scores_cannot_be_shown(shown, message):
    """The table of results holds targets alone; what a target is built on need not be scored, or be up to date."""
    configuration = raw(**({"targets": ["deeplab"]} | shown))
    if message is None:
        assert load(configuration).targets == ("deeplab",)
        return
    with pytest.raises(UserError) as caught:
        load(configuration)
    assert message in str(caught.value)


def test_one_variant_of_a_sweep_is_one_point():
    built_on_one = {"irn": {"method": "irn", "seed": "rib@steps=2@margin=600"}}
    figures = [{"name": "f", "stages": ["irn", "cam"]}]
    assert load(raw(refinements=built_on_one, figures=figures)).figures
    targets = ["cam", "rib@steps=2@margin=600"]
    assert load(raw(targets=targets, figures=[{"name": "f", "stages": ["rib", "cam"]}])).figures


def test_analyses_may_name_stages_with_and_without_swept_values():
    report = {"scores": ["rib", "rib@steps=2@margin=600"], "gains": [["cam", "rib"]], "sizes": {}}
    report["features"] = {"classifiers": ["bce"]}
    configuration = load(raw(report=report))
    assert configuration.report["sizes"]["limits"] == [0.05, 0.2]
    assert json.loads(step_json(configuration, "features", "features"))["settings"]["classifiers"] == ["bce"]
