"""The HTML page of a run: its arithmetic, and that it copes with whatever a run holds or lacks."""

from __future__ import annotations

import base64
import gc
import io
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import write_classifier, write_step
from wsss_core.config import Configuration, Stage, step_json
from wsss_core.constants import MEAN_ROW
from wsss_core.data.table import ImageRecord, ImageTable, deal, read_table, write_manifest, write_table
from wsss_core.errors import UserError
from wsss_core.evaluate.adaptation import quantile_curves, stop_counts, trajectories
from wsss_core.evaluate.confusion import mask_confusion
from wsss_core.evaluate.embedding import embed
from wsss_core.evaluate.figures import FigureSettings, Series
from wsss_core.evaluate.gains import gains
from wsss_core.evaluate.header import ScoreHeader
from wsss_core.evaluate.localisation import COLUMNS as LOCALISATION_COLUMNS
from wsss_core.evaluate.otsu import otsu_threshold
from wsss_core.evaluate.sizes import object_parts, size_counts, size_ious, smallest_and_largest
from wsss_core.evaluate.tables import write_rows
from wsss_core.execution import Execution
from wsss_core.jobs import run_files
from wsss_core.models import cam_network
from wsss_core.report import overlays
from wsss_core.report.charts import Line, inline, line_chart, swatch, ticks
from wsss_core.report.choose import choose, image_miou, mistakes, sample
from wsss_core.report.figures import Cloud, clouds_svg, figure_svg
from wsss_core.report.graph import Node, graph_svg, layers
from wsss_core.report.page import slug
from wsss_core.report.palette import DARK, LIGHT, VARIABLES
from wsss_core.report.provenance import costs, settings_lines
from wsss_core.report.summary import summarise
from wsss_core.steps import evaluation, features, report, scores
from wsss_core.steps.report import provenance
from wsss_core.store.cut import Cut, write_about
from wsss_core.store.masks import mask_name, write_mask
from wsss_core.store.seeds import SEEDS, SeedMaps
from wsss_core.store.shards import build

CLASSES = ("cat", "dog & <wolf>", "bus")
EXECUTION = Execution(device="cpu")
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\n12.5\t0:00:12\t{memory}\t900\n"


def stage(section: str, name: str, method: str, settings: dict, **upstream: str) -> Stage:
    return Stage(section, name, method, upstream, settings)


SCORES = {"rule": "fixed", "threshold": 0.25}
CUTS = {"refinements": Cut("fixed", 0.3, crf="10 iterations, unary: label"), "segmentations": Cut("none")}
NETWORK = {"train": {}, "predictions": {}, "evaluation": {}}
ORACLE = {"maps": {"steps": 5}, "scores": SCORES | {"rule": "oracle"}}
STAGES = {
    made.name: made
    for made in (
        stage("classifiers", "bce", "bce", {"train": {}}),
        stage("seeds", "cam", "cam", {"maps": {}, "scores": SCORES}, classifier="bce"),
        stage("seeds", "rib@steps=5", "rib", ORACLE, classifier="bce"),
        stage("refinements", "rib-crf", "crf", {"masks": {}, "evaluation": {}}, seed="rib@steps=5"),
        stage("segmentations", "deeplab", "deeplab_v2", NETWORK, masks="rib-crf"),
    )
}


def configuration(stages: dict[str, Stage] = STAGES, **changes) -> Configuration:
    made = Configuration(
        run="made-up",
        results="results",
        seed=0,
        dataset={"format": "table", "root": "photos"},
        stages=stages,
        targets=tuple(stages),
        execution={},
        report={"images": 3},
    )
    return replace(made, **changes)


def write_configuration(folder: Path, made: Configuration) -> Path:
    """Write the settings file of the report."""
    path = folder / "config" / "run" / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(step_json(made, "run", "report"))
    return path


def truth(rng: np.random.Generator, size: tuple[int, int], label: int) -> np.ndarray:
    labels = np.zeros(size, np.uint8)
    top, left = rng.integers(2, 12, 2)
    labels[top : top + 20, left : left + 30] = label
    labels[top + 20 : top + 22, left : left + 30] = 255
    return labels


def make_run(
    folder: Path, stages: dict[str, Stage] = STAGES, *, masks: bool = True, splits: tuple[str, ...] = ("train", "val")
) -> Path:
    """A folder of a finished run with made-up pictures; returns the report's settings file."""
    rng = np.random.default_rng(0)
    records, labels = [], {}
    for k in range(10):
        image_id = f"a/{k}.jpg" if k == 3 else f"{k:03d}"
        size = (40, 56) if k % 2 else (56, 40)
        label = k % 4
        labels[image_id] = truth(rng, size, label)
        photo, mask = folder / "photos" / f"{k}.png", folder / "truth" / f"{k}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        shade = np.where(labels[image_id][:, :, None] > 0, 200, 60) + rng.integers(0, 40, (*size, 3))
        Image.fromarray(shade.astype(np.uint8)).save(photo)
        write_mask(mask, labels[image_id])
        role = ("val",) if k >= 7 else ("train", "score")
        records.append(
            ImageRecord(
                image_id,
                str(photo),
                *size,
                splits=role,
                classes=(label - 1,) if label else (),
                mask=str(mask) if masks else "",
            )
        )
    records = [r for r in records if set(r.splits) & set(splits)]
    table = ImageTable(CLASSES, tuple(records))
    write_table(folder / "dataset" / "images.csv", table)
    shards = {split: deal(table.split(split), 4) for split in splits}
    for split, dealt in shards.items():
        for name, part in dealt.items():
            write_manifest(folder / "dataset" / "shards" / split / f"{name}.json", CLASSES, part)
    for made in stages.values():
        _make_stage(folder, made, shards, labels, rng)
    (folder / "benchmarks" / "dataset").mkdir(parents=True)
    (folder / "benchmarks" / "dataset" / "index.tsv").write_text(BENCHMARK.format(memory="NA"))
    (folder / "problems.csv").write_text("image,path,problem,severity,action\n9,x.jpg,is truncated,error,skipped\n")
    return write_configuration(folder, configuration(stages))


def _make_stage(folder: Path, made: Stage, shards: dict, labels: dict, rng: np.random.Generator) -> None:
    section, name = made.section, made.name
    own = folder / section / name
    benchmark = folder / "benchmarks" / section / name
    benchmark.mkdir(parents=True)
    config = folder / "config" / section / f"{name}.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    split = "val" if section == "segmentations" else "train"
    manifests = [folder / "dataset" / "shards" / split / f"{shard}.json" for shard in shards.get(split, {})]
    if section in ("classifiers", "segmentations"):
        own.mkdir(parents=True, exist_ok=True)
        (own / "history.csv").write_text("step,rate,loss,entropy\n20,1.0,0.7,0.5\n40,0.5,0.4,\n")
        (benchmark / "train.tsv").write_text(BENCHMARK.format(memory="321.5"))
    if section == "classifiers" or not manifests:
        return
    if section == "seeds":
        for shard, part in shards[split].items():
            build(
                own / "maps" / f"{shard}.h5",
                SEEDS,
                {r.id: r.id for r in part},
                lambda i: _maps(labels[i], rng, made.method == "rib"),
                {"class_names": CLASSES},
                cache=folder / ".state" / f"{name}-{shard}.h5",
            )
            (benchmark / f"maps.{shard}.tsv").write_text(BENCHMARK.format(memory="100"))
        write_step(config, f"{section}/{name}", made.method, "scores", made.settings["scores"])
        maps = [own / "maps" / f"{shard}.h5" for shard in shards[split]]
        files = {"curve": own / "curve.csv", "evaluation": own / "evaluation.csv", "threshold": own / "threshold.json"}
        scores.run(config=config, manifests=manifests, maps=maps, **files, execution=EXECUTION)
        return
    product = "predictions" if section == "segmentations" else "masks"
    for shard, part in shards[split].items():
        for record in part:
            found = labels[record.id].copy()
            found[:, :18] = 0
            found[:, 30:33] = 255
            write_mask(own / product / shard / mask_name(record.id), found)
        write_about(own / product / shard, CUTS[section])
    write_step(config, f"{section}/{name}", made.method, "evaluation", made.settings["evaluation"])
    folders = [own / product / shard for shard in shards[split]]
    evaluation.run(
        domains=own / "domains.csv",
        config=config,
        manifests=manifests,
        masks=folders,
        evaluation=own / "evaluation.csv",
        execution=EXECUTION,
    )


def _maps(labels: np.ndarray, rng: np.random.Generator, with_statistics: bool) -> SeedMaps:
    classes = sorted({int(v) for v in np.unique(labels)} - {0, 255})
    coarse = np.stack([labels[4::8, 4::8] == c for c in classes]) if classes else np.zeros((0, 7, 5))
    noisy = torch.tensor(coarse + 0.2 * rng.random(coarse.shape), dtype=torch.float32)
    ended = {"stop": "limit" if len(classes) else "no class", "maps": 1 + len(classes)}
    statistics = {**ended, "steps": 5, "target": [1.0, 2.5][: 1 + len(classes)]}
    return SeedMaps(tuple(c - 1 for c in classes), {1.0: noisy}, labels.shape, statistics if with_statistics else {})


@pytest.fixture
def schema(monkeypatch):
    """A schema of two settings, so that these tests need no method's own."""
    steps = {"properties": {"steps": {"type": "integer", "default": 10, "description": "fine-tuning steps K"}}}
    definitions = {"seeds.rib": steps, "dataset.table": {"properties": {"root": {"type": "string"}}}}
    monkeypatch.setattr(provenance, "read_schema", lambda: {"$defs": definitions})


def write_page(folder: Path, config: Path) -> str:
    report.run(config=config, run=folder, report=folder / "report.html", execution=EXECUTION)
    return (folder / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects tags and checks that they close in order."""

    VOID = {"meta", "link", "img", "br", "hr", "line", "circle", "rect", "path"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, make_run(folder)


def test_page_of_a_whole_run_shows_everything_and_loads_nothing(finished, schema):
    page = write_page(*finished)
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {"results", "pictures", "thresholds", "classes", "training", "graph", "costs", "settings", "problems"}
    assert wanted <= set(ids)
    links = [attributes["href"] for tag, attributes in reader.found if tag == "a"]
    assert links and all(link[1:] in ids for link in links)
    for _, attributes in reader.found:
        assert all(not str(attributes.get(key, "")).startswith(("http", "/")) for key in ("src", "href"))
    assert not re.search(r"url\(|@import|<script|<link", page)
    images = [attributes for tag, attributes in reader.found if tag == "img"]
    assert len(images) == 3 * 5 + 2 * 3
    assert all(i["src"].startswith("data:image/webp;base64,") and i["alt"] for i in images)
    assert "dog &amp; &lt;wolf&gt;" in page and "<wolf>" not in page
    assert "is truncated" in page
    assert "<mark>5</mark>" in page
    assert "MB" in page and "321" in page


def test_oracle_threshold_is_flagged_and_the_fixed_one_is_not(finished, schema):
    page = write_page(*finished)
    rows = dict(
        re.findall(r"<tr>\s*<th scope=\"row\"><span class=\"stage\">.*?</span>([\w@=-]+)</span>(.*?)</tr>", page, re.S)
    )
    flag = "chosen with the scored masks"
    assert flag in rows["rib@steps=5"]
    assert flag not in rows["cam"] and "0.25, fixed, no masks used" in rows["cam"]
    assert "10 iterations, unary: label" in rows["rib-crf"] and "0.3, fixed, no masks used" in rows["rib-crf"]
    assert flag not in rows["rib-crf"] + rows["deeplab"]


def test_seeds_that_are_cut_at_otsu_are_told_and_drawn_so(tmp_path, schema):
    stages = STAGES | {"cam": replace(STAGES["cam"], settings={"maps": {}, "scores": SCORES | {"rule": "otsu"}})}
    page = write_page(tmp_path, make_run(tmp_path, stages))
    assert "otsu, no masks used, each image has a threshold of its own" in page and "(otsu, their median)" in page
    files = run_files.RunFiles(tmp_path, configuration(stages))
    reader = run_files.Labels(files, files.shards("train"))
    told = files.threshold("cam")["values"]
    for record in files.table.split("train"):
        maps, classes = reader.maps("cam", record.id)
        assert reader.threshold("cam", maps) == pytest.approx(told.get(record.id, 0.0), abs=1e-6)
        foreground = maps.amax(0) > otsu_threshold(maps) if classes else torch.zeros(record.size, dtype=torch.bool)
        assert np.array_equal(reader.labels("cam", record) > 0, foreground)
    assert len(told) == 5 and max(told.values()) - min(told.values()) > 1e-3


ANALYSES = {
    "images": 0,
    "scores": ["cam", "rib"],
    "gains": [["cam", "rib"], ["rib", "deeplab"]],
    "sizes": {"stages": [], "limits": [0.2, 0.3], "classes": 2},
    "adaptation": ["rib", "cam"],
    "features": {"classifiers": ["bce"]},
}


def test_page_shows_the_analyses_and_figures_that_were_asked_for(finished, schema):
    folder, config = finished
    plain = config.read_text()
    steps = FigureSettings(name="steps", x="rib.steps", title="Steps K")
    clouds = [Cloud("bce", np.arange(8).reshape(4, 2))]
    for name, drawn in {
        "figures/steps.svg": figure_svg(steps, [Series("rib $", ((2, 0.45), (4, 0.5)))]),
        "analyses/features.svg": clouds_svg(clouds, ["dog & <wolf>", "bus", "bus", "bus"], [False, True, False, True]),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(drawn)
    figure = {"name": "steps", "title": "Steps K"}
    figures = (figure, figure | {"name": "not drawn"})
    write_configuration(folder, configuration(report=ANALYSES, figures=figures))
    try:
        page = write_page(folder, config)
    finally:
        config.write_text(plain)
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert {"figures", "analyses"} <= set(ids) and len(ids) == len(set(ids))
    assert not any(tag in ("img", "script") for tag, _ in reader.found) and not re.search(r"url\(|@import", page)
    said = [
        attributes["aria-label"] for tag, attributes in reader.found if "chart" in attributes.get("class", "").split()
    ]
    assert "Steps K. mIoU, %, over rib.steps: rib $: 45.0 at 2, 50.0 at 4." in said
    assert "4 images in the plane, as seen by bce, in groups: dog & <wolf>, bus." in said
    assert "ring: holds no class</text>" in page and "Features of training images</figcaption>" in page
    shown = page[page.index('id="analyses"') :]
    for title in ("Precision, recall and F1", "Gains by class", "cam → rib@steps=5", "rib@steps=5 → deeplab"):
        assert title in shown
    assert "Not the same images: 7 score images against 3 val images" in shown
    for title in ("small, below 20 %", "large, from 30 %", "smallest objects: ", "How rib@steps=5 went"):
        assert title in shown
    assert "How cam went" not in shown
    assert not re.search(r"\bnan\b", shown[: shown.index("</section>")])


def test_page_without_analyses_has_no_section_for_them(finished, schema):
    page = write_page(*finished)
    assert 'id="analyses"' not in page and 'id="figures"' not in page


def test_sizes_of_objects_by_hand():
    """60 labelled pixels: class 1 covers 6 (a tenth), class 2 covers 30 (half); class 3 is not there."""
    matrix = np.array([[20, 4, 0, 0], [2, 3, 0, 1], [0, 10, 20, 0], [0, 0, 0, 0]])
    parts = object_parts(matrix.sum(1))
    assert parts.tolist() == [0.1, 0.5, 0.0]
    counts = size_counts(matrix, parts, (0.1, 0.6))
    expected = np.zeros((3, 3, 4), int)
    expected[1, 0] = (1, 3, 14, 3)
    expected[1, 1] = (1, 20, 0, 10)
    assert (counts == expected).all()
    ious = size_ious(counts)
    assert ious[1] == pytest.approx((3 / 20 + 20 / 30) / 2)
    assert np.isnan(ious[[0, 2]]).all()
    assert (size_counts(matrix, parts, (0.11, 0.5))[[0, 2], [0, 1]] == expected[1, [0, 1]]).all()
    skipped = matrix - [[0, 0, 0, 0], [2, 3, 0, 1], [0, 0, 19, 0], [0, 0, 0, 0]]
    counts = size_counts(skipped, parts, (0.1, 0.6))
    assert counts[1].tolist() == [[1, 0, 14, 0], [1, 1, 0, 10], [0, 0, 0, 0]], "undecided pixels shrink no object"


def test_smallest_and_largest_classes_never_overlap():
    assert smallest_and_largest([0.3, 0.1, 0.2], 10) == ([1], [0])
    assert smallest_and_largest([0.3, 0.1, 0.2, 0.4], 1) == ([1], [3])
    assert smallest_and_largest([0.3], 1) == ([], [])


def test_gains_leave_out_what_one_stage_lacks():
    found = gains({"cat": 0.5, "dog": float("nan"), "bus": 0.2, "cow": 0.1}, {"cat": 0.6, "dog": 0.1, "bus": 0.5})
    assert [(g.label, round(g.difference, 6)) for g in found] == [("bus", 0.3), ("cat", 0.1)]


def test_trajectories_and_their_quantiles():
    records = [
        ("a", {"stop": "steps", "maps": 3, "target": [1, 2, 6]}),
        ("b", {"stop": "margin", "maps": 2, "target": [3, 8]}),
        ("c", {"stop": "steps", "maps": 3, "target": [5, 8, 10]}),
        ("no class", {}),
    ]
    found = trajectories(records)
    assert [one.id for one in found] == ["a", "b", "c"]
    assert stop_counts(found) == {"steps": {3: 2}, "margin": {2: 1}}
    assert quantile_curves(found, (0.0, 0.5)).tolist() == [[1, 2, 6], [3, 8, 8]]
    assert quantile_curves([], (0.5,)).shape == (1, 0)


def test_embedding_separates_clusters_and_comes_again():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(24, 6)) + np.repeat([[0.0], [30.0]], 12, axis=0)
    places = embed(values, 30, seed=5)
    assert (places == embed(values, 30, seed=5)).all()
    assert np.abs(places.mean(0)).max() < 1e-5 and np.square(places).mean() == pytest.approx(1, abs=1e-4)
    near = np.linalg.norm(places[:12] - places[:12].mean(0), axis=1).max()
    assert np.linalg.norm(places[:12].mean(0) - places[12:].mean(0)) > 2 * near


@pytest.fixture
def classifier_files(tmp_path):
    """A table of drawn photos, also without a class, and the checkpoints of two random classifiers."""
    make_run(tmp_path / "run", {})
    table = read_table(tmp_path / "run" / "dataset" / "images.csv")
    records = [replace(r, splits=("ood",)) if "train" in r.splits and not r.classes else r for r in table.records]
    write_table(tmp_path / "images.csv", ImageTable(CLASSES, tuple(records)))
    for seed in (0, 1):
        torch.manual_seed(seed)
        write_classifier(tmp_path / f"{seed}.pt", cam_network("small", len(CLASSES)), CLASSES)
    return tmp_path


def features_config(folder: Path, **settings) -> Path:
    given = {"classifiers": ["one", "two"], "images": 9, "classes": [], "perplexity": 2.0} | settings
    return write_step(folder / "features.json", "features", "features", "features", given)


def run_features(folder: Path, **settings) -> list[list[str]]:
    made = {"features": folder / "features.csv", "figure": folder / "features.svg"}
    features.run(
        config=features_config(folder, **settings),
        table=folder / "images.csv",
        classifiers=[folder / "0.pt", folder / "1.pt"],
        execution=EXECUTION,
        **made,
    )
    assert "<svg" in made["figure"].read_text()
    return [line.split(",") for line in made["features"].read_text().splitlines()]


def test_features_of_the_same_images_for_each_classifier(classifier_files):
    head, *rows = run_features(classifier_files)
    assert head == ["image", "role", "class", "classifier", "x", "y"]
    one, two = ([row for row in rows if row[3] == name] for name in ("one", "two"))
    assert [row[:3] for row in one] == [row[:3] for row in two] and len(one) == 7
    assert {row[1] for row in rows} == {"train", "ood"} and {row[2] for row in rows} <= set(CLASSES)
    assert [row[4:] for row in one] != [row[4:] for row in two]
    assert run_features(classifier_files) == [head, *rows]


def test_features_of_unknown_classes_or_too_few_images(classifier_files):
    with pytest.raises(UserError, match="there is no class cow; known: cat"):
        run_features(classifier_files, classes=["cow"])
    with pytest.raises(UserError, match="four are needed"):
        run_features(classifier_files, classes=["bus"])


def test_page_without_masks_scores_nothing(tmp_path, schema):
    stages = STAGES | {"rib@steps=5": replace(STAGES["cam"], name="rib@steps=5")}
    page = write_page(tmp_path, make_run(tmp_path, stages, masks=False))
    Reader(page)
    assert "There are no true masks, so nobody can say how good that is" in page
    training, validation = page.split("Validation images</h3>")
    assert "The classes in turn. There are no true masks" in training
    assert "The classes in turn" not in validation and 'class="reason' not in validation
    assert 'id="results"' not in page and 'href="#results"' not in page
    assert "truth" not in page
    assert 'id="pictures"' in page and 'id="classes"' not in page and 'id="thresholds"' not in page


def test_page_without_validation_images_or_refinements(tmp_path, schema):
    stages = {name: STAGES[name] for name in ("bce", "cam")}
    page = write_page(tmp_path, make_run(tmp_path, stages, splits=("train",)))
    Reader(page)
    assert "Validation images" not in page and "Training images" in page


def test_page_of_a_run_with_missing_files_leaves_them_out(tmp_path, schema):
    config = make_run(tmp_path)
    for path in sorted(tmp_path.glob("seeds/cam/maps/*.h5"))[:1]:
        path.unlink()
    (tmp_path / "seeds/rib@steps=5/evaluation.csv").unlink()
    (tmp_path / "seeds/rib@steps=5/curve.csv").write_text("# images: 0\nthreshold,miou,precision,recall,f1\n")
    (tmp_path / "classifiers/bce/history.csv").write_text("step,rate,loss\n")
    (tmp_path / "problems.csv").unlink()
    page = write_page(tmp_path, config)
    Reader(page)
    assert "not made" in page
    assert 'id="problems"' not in page


def test_files_of_an_earlier_dealing_do_not_count(tmp_path, schema):
    """Shards change their number when a data set grows; a killed job may leave a temporary file."""
    config = make_run(tmp_path)
    page = write_page(tmp_path, config)
    own = tmp_path / "seeds" / "rib@steps=5" / "maps"
    shutil.copy(next(own.glob("*.h5")), own / "00-of-64.h5")
    (own / ".tmp-7-00-of-64.h5").write_bytes(b"half")
    benchmarks = tmp_path / "benchmarks" / "seeds" / "rib@steps=5"
    shutil.copy(next(benchmarks.glob("maps.*")), benchmarks / "maps.00-of-64.tsv")

    def lasting(text):
        return re.sub(r"\d\d:\d\d [A-Z]+", "", text)

    assert lasting(write_page(tmp_path, config)) == lasting(page)


def test_few_files_are_open_at_a_time(finished, schema, monkeypatch):
    monkeypatch.setattr(run_files, "OPEN", 1)
    folder, _ = finished
    files = run_files.RunFiles(folder, configuration())
    reader = run_files.Labels(files, files.shards("train"))
    gc.collect()
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    for record in files.table.split("train"):
        for name in ("cam", "rib@steps=5"):
            maps, _ = reader.maps(name, record.id)
            assert maps.shape[1:] == record.size
            assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) <= before + 1
    assert reader.maps("cam", record.id) is not None
    reader.shards = dict.fromkeys(reader.shards, min(reader.shards.values()))
    assert sum(reader.maps("cam", i) is None for i in reader.shards) > 0


def test_masks_of_a_stage_that_is_no_target_may_leak_too(tmp_path, schema):
    make_run(tmp_path)
    oracle = replace(STAGES["rib-crf"], settings={"masks": {"threshold": "oracle"}, "evaluation": {}})
    made = configuration(STAGES | {"rib-crf": oracle}, targets=("cam", "deeplab"))
    page = write_page(tmp_path, write_configuration(tmp_path, made))
    rows = dict(
        re.findall(r"<tr>\s*<th scope=\"row\"><span class=\"stage\">.*?</span>(\w+)</span>(.*?)</tr>", page, re.S)
    )
    assert "built on rib-crf" in rows["deeplab"] and "chosen with the scored masks" in rows["deeplab"]
    assert "chosen with the scored masks" not in rows["cam"]


def test_page_of_a_data_set_alone(tmp_path, schema):
    page = write_page(tmp_path, make_run(tmp_path, {}))
    Reader(page)
    assert "No masks were asked for." in page and 'id="results"' not in page


def test_stages_that_no_target_needs_are_not_shown(tmp_path, schema):
    make_run(tmp_path)
    page = write_page(tmp_path, write_configuration(tmp_path, configuration(targets=("cam",))))
    assert "rib-crf" not in re.sub(r"<svg class=\"graph\".*?</svg>", "", page, flags=re.S)
    assert 'class="box refinements aside"' in page


def test_broken_configuration_is_a_user_error(tmp_path):
    path = tmp_path / "report.json"
    path.write_text('{"run": "x"}')
    with pytest.raises(UserError, match="report.json"):
        report.run(config=path, run=tmp_path, report=tmp_path / "r.html", execution=EXECUTION)


def test_choice_is_best_median_worst_in_order():
    scores = {f"{k:02d}": k / 20 for k in range(20)} | {"nan": float("nan")}
    chosen = choose(scores, 9)
    assert [c.id for c in chosen] == ["19", "18", "17", "11", "10", "09", "02", "01", "00"]
    assert [c.reason for c in chosen] == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    for count in range(12):
        found = [c.id for c in choose(scores, count)]
        assert len(found) == len(set(found)) == count


def test_sample_keeps_order_and_does_not_depend_on_what_else_is_there():
    ids = [str(k) for k in range(100)]
    kept = sample(ids, 10)
    assert len(kept) == 10 and kept == sorted(kept, key=ids.index)
    assert set(sample(ids[:50] + ids[51:], 10)) >= set(kept) - {"50"}


def test_undecided_pixels_count_as_background_or_not_at_all():
    target = np.array([[1, 1, 0, 255]], np.uint8)
    prediction = np.array([[1, 255, 255, 1]], np.uint8)
    assert mask_confusion(prediction, target, 2, skip_ignored=False).tolist() == [[1, 0], [1, 1]]
    assert mask_confusion(prediction, target, 2, skip_ignored=True).tolist() == [[0, 0], [0, 1]]
    assert image_miou(np.array([[1, 0], [1, 1]])) == pytest.approx(0.5)


def test_mistakes_are_parts_of_the_true_label():
    found = mistakes(np.array([[90, 10, 0], [0, 5, 15], [0, 0, 0]]), 5)
    assert [(m.target, m.prediction, m.part) for m in found] == [(1, 2, 0.75), (0, 1, 0.1)]


def test_overlay_colours_classes_and_hatches_ignored_pixels():
    image = np.full((12, 12, 3), 100, np.uint8)
    labels = np.zeros((12, 12), np.uint8)
    labels[4:8, 4:8] = 2
    labels[10:] = 255
    drawn = overlays.mask_overlay(image, labels)
    expected = 100 + overlays.OPACITY * (overlays.PALETTE[2] - 100.0)
    assert np.abs(drawn[5, 5] - expected).max() <= 1
    assert (drawn[1, 1] == 100).all() and (drawn[5, 7] == 255).all()
    assert len({tuple(p) for p in drawn[11]}) == 2
    assert image.max() == 100


def test_heat_overlay_is_strongest_where_the_map_is_and_survives_no_class():
    image = np.full((8, 8, 3), 128, np.uint8)
    maps = np.zeros((2, 8, 8), np.float32)
    maps[1, :4] = 1.0
    drawn = overlays.heat_overlay(image, maps, [0, 4], 0.5).astype(int)
    plain = overlays.heat_overlay(image, maps[:0], []).astype(int)
    assert np.abs(drawn[0, 0] - overlays.PALETTE[5]).max() < 30
    assert (drawn[7] == plain[7]).all() and (drawn[3] < 40).all()


def test_data_uri_holds_the_picture():
    image = np.zeros((20, 30, 3), np.uint8)
    head, _, data = overlays.data_uri(image).partition(",")
    assert head == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (30, 20)


def test_chart_leaves_out_undefined_points_and_draws_nothing_from_nothing():
    line = Line("a <b>", [(0, 0.1), (0.5, float("nan")), (1, 0.4)], mark=(0.5, 0.3), best=(1, 0.4))
    chart = ET.fromstring(line_chart([line], title="t", x_label="x", y_label="y", percent=True))
    curve = next(group for group in chart.iter("g") if group.findtext("title") == "a <b>")
    assert curve.find("path").get("d").count("L") == 1, "two points, one stroke"
    assert len(round_marks(chart)) == 2
    assert line_chart([replace(line, points=[(0, float("nan"))])], title="t", x_label="x", y_label="y") == ""
    alone = ET.fromstring(line_chart([Line("one", [(3, 2)])], title="t", x_label="x", y_label="y"))
    assert len(round_marks(alone)) == 1 and "3" in texts(alone)


def round_marks(chart: ET.Element) -> list[ET.Element]:
    """Dots and rings of a chart, of which ticks are none."""
    circles = {f"#{path.get('id')}" for path in chart.iter("path") if path.get("id") and "C" in path.get("d")}
    return [use for use in chart.iter("use") if use.get("href") in circles]


def texts(chart: ET.Element) -> list[str]:
    return ["".join(text.itertext()) for text in chart.iter("text")]


CHART = {"title": "Loss & more, at the end 0.1", "x_label": "step", "y_label": "loss"}


def test_chart_takes_all_colours_and_its_font_from_the_page():
    lines = [Line(f"line {k}", [(0, k), (1, k + 1)], k, mark=(0, k), best=(1, k + 1)) for k in range(9)]
    svg = line_chart(lines, **CHART)
    styles = "; ".join(element.get("style", "") for element in ET.fromstring(svg).iter())
    assert set(re.findall(r"(?:fill|stroke): ([^;]+)", styles)) <= {"none", *VARIABLES.values()}
    assert {f"var(--s{k})" for k in range(8)} <= set(re.findall(r"var\([\w-]+\)", styles))
    assert not re.search(r"font(-family)?:|clip|url|<style|<metadata|xlink|xmlns", svg)


def test_chart_says_what_it_is_and_keeps_text_as_text():
    chart = ET.fromstring(line_chart([Line("line", [(0, 0), (10, 1)])], **CHART))
    assert (chart.get("role"), chart.get("aria-label")) == ("img", CHART["title"]) and chart[0].text == CHART["title"]
    assert {"step", "loss", "0", "10"} <= set(texts(chart))


def test_charts_of_one_page_share_no_id():
    drawn = [ET.fromstring(line_chart([Line("a", [(0, 0), (1, k)])], **CHART)) for k in (1, 2)]
    ids = [[element.get("id") for element in chart.iter() if element.get("id")] for chart in drawn]
    assert all(ids) and not set(ids[0]) & set(ids[1])
    for chart, own in zip(drawn, ids, strict=True):
        assert {use.get("href") for use in chart.iter("use")} == {f"#{name}" for name in own}


def test_chart_is_small():
    """Dozens of them stand on a page: what is drawn around a curve takes less than 5 kB, a point less than 15 bytes."""
    waves = [(float(k), np.sin(k)) for k in range(1000)]
    assert len(line_chart([Line("a", waves)], **CHART)) < 5000 + 15 * len(waves)


def test_inline_reads_the_styles_of_older_matplotlib():
    """Before 3.11 size and family of a font stand in one declaration."""
    text = (
        """<text style="font: 12px 'DejaVu Sans', sans-serif; text-anchor: end; fill: #5b626c" x="1" y="2">a</text>"""
    )
    svg = inline(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{text}</svg>')
    assert '<text style="font-size: 12px; text-anchor: end; fill: var(--muted)" x="1" y="2">a</text>' in svg


def test_swatches_are_dashed_like_their_lines():
    for series in (0, 8, 17, 25):
        dashed = re.search(r'stroke-dasharray="([^"]+)"', swatch(series))[1].replace(" ", ",")
        drawn = line_chart([Line("a", [(0, 0), (1, 1)], series)], **CHART)
        assert (f"stroke-dasharray: {dashed};" in drawn) == (dashed != "none")
        assert f"series-{series % 8}" in swatch(series)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1e-9), (-3, 12345), (0.2, 0.21), (5, 5)])
def test_ticks_enclose_the_range_in_even_steps(low, high):
    found = ticks(low, high, 5)
    assert found[0] <= low and found[-1] >= high and 2 <= len(found) <= 12
    assert np.allclose(np.diff(found), found[1] - found[0])


@pytest.mark.parametrize("last", [7, 1999, 120_000, 9_999_999])
@pytest.mark.parametrize("width", [330, 760, 1000])
def test_numbers_under_the_axis_do_not_overlap(last, width):
    svg = line_chart([Line("a", [(0, 0), (last, 1)])], **CHART, size=(width, 220))
    under = [t for t in ET.fromstring(svg).iter("text") if "middle" in t.get("style") and t.text[0].isdigit()]
    places = sorted((float(t.get("x")), 7.7 * len(t.text)) for t in under)
    assert len(places) > 2
    for (x, long), (beside, other) in zip(places, places[1:], strict=False):
        assert x + long / 2 < beside - other / 2


def test_graph_draws_every_stage_and_edge_once_and_nothing_overlaps():
    edges = {"d": [], "c": ["d"], "s1": ["c"], "s2": ["c"], "r": ["s2"], "g": ["r"], "f": ["r", "g"], "h": ["f"]}
    nodes = {name: Node(name) for name in edges}
    svg = graph_svg(nodes, edges, "stages")
    assert layers(edges)["h"] == 6
    assert svg.count('class="edge"') == sum(map(len, edges.values()))
    boxes = [tuple(map(float, b)) for b in re.findall(r'<rect[^>]* x="([\d.]+)" y="([\d.]+)"', svg)]
    assert len(boxes) == len(nodes) == len(set(boxes))
    assert graph_svg({}, {}, "empty").startswith("<svg")


def test_settings_are_compared_with_their_defaults_also_nested():
    crf = {"type": "object", "properties": {"iterations": {"type": "integer", "default": 10}}}
    schema = {
        "properties": {
            "scales": {"type": "array", "default": [1.0, 0.5]},
            "crf": {"anyOf": [crf, {"type": "null"}], "default": None},
            "root": {"type": "string"},
        }
    }
    given = {"scales": (1.0, 0.5), "crf": {"iterations": 5}, "root": "x"}
    lines = {line.key: (line.value, line.default, line.changed) for line in settings_lines(given, schema)}
    assert lines == {
        "scales": ("[1.0, 0.5]", "[1.0, 0.5]", False),
        "crf.iterations": ("5", "10", True),
        "root": ("x", None, True),
    }
    assert settings_lines({"crf": None}, schema)[0].changed is False


def test_costs_add_up_over_shards():
    text = "s\th:m:s\tmax_rss\n{}\t0:0:1\t{}\n"
    files = [
        ("seeds/rib/maps.00-of-02.tsv", text.format(3, 120.5)),
        ("seeds/rib/maps.01-of-02.tsv", text.format(5, "NA")),
        ("seeds/rib/scores.tsv", text.format(1, "-")),
    ]
    maps, scores = costs(files)
    assert (maps.step, maps.jobs, maps.seconds, maps.longest, maps.memory) == ("maps", 2, 8.0, 5.0, 120.5)
    assert (scores.step, scores.memory) == ("scores", None)


def test_summary_takes_whatever_was_recorded():
    records = [
        {"stop": "limit", "scales": {"1.0": 2}, "logits": [[1, 3], [5]], "odd": [[], "x"]},
        {"stop": "never", "scales": {"1.0": 4}, "logits": [[4]], "fine": True},
        {},
    ]
    summary = summarise(records)
    assert summary.images == 2
    assert summary.counts == {"stop": {"limit": 1, "never": 1}, "fine": {"True": 1}}
    assert summary.numbers == {"scales.1.0": (3.0, 2.0, 4.0)}
    assert summary.curves["logits"] == ((3.0, 2), (5.0, 1))


def test_slugs_differ_where_names_differ():
    names = ["rib@steps=5", "rib-steps-5", "rib.steps", "rib_steps", "rib"]
    assert len({slug(name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", slug(name)) for name in names)


def test_text_is_readable_in_both_colour_schemes():
    """WCAG AA: contrast of 4.5 between text and what is behind it."""
    assert LIGHT.keys() == DARK.keys() and len(VARIABLES) == len(LIGHT)
    for colour in (LIGHT, DARK):
        pairs = [("ink", "bg"), ("ink", "card"), ("ink", "bar"), ("muted", "bg"), ("muted", "card"), ("accent", "bg")]
        pairs += [("mark-ink", "mark"), ("flag", "flag-bg"), *((f"s{k}", "card") for k in range(8))]
        for front, back in pairs:
            assert contrast(colour[front], colour[back]) >= (3 if front.startswith("s") else 4.5), (front, back)


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_scores_of_localisation_are_a_table_of_the_page(tmp_path):
    config = make_run(tmp_path)
    rows = {name: dict.fromkeys(LOCALISATION_COLUMNS, value) for name, value in (("cat", 0.25), (MEAN_ROW, 0.125))}
    rows[MEAN_ROW]["px_ap"] = float("nan")
    write_rows(tmp_path / "seeds/cam/localisation.csv", ScoreHeader("score", 3), LOCALISATION_COLUMNS, rows)
    report.run(config=config, run=tmp_path, report=tmp_path / "report.html", execution=EXECUTION)
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("Localisation by maps") :]
    assert "BoxAcc V2" in table and "12.5" in table and "PxAP" not in table[: table.index("</table>")]
