"""The workflow itself: what runs, what runs again after a change, and what bad input does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests import warm
from tests.conftest import REPOSITORY
from tests.tiny_sam import write_sam
from wsss_core.data.demo import DemoSettings, generate
from wsss_core.data.reading import read_class_names
from wsss_core.data.table import shard_of
from wsss_core.models import cam_network
from wsss_core.models.affinity import AffinityNetwork
from wsss_core.models.backbones import backbone
from wsss_core.models.irn import IrnNetwork
from wsss_core.registry import DISCRIMINATOR, METHODS, SCORED_SECTIONS
from wsss_core.status.state import find_run, finished, read_states
from wsss_core.store.checkpoints import save_network
from wsss_core.store.masks import read_mask

pytestmark = pytest.mark.workflow

PROJECT_FILES = ("Snakefile", "config.yaml", "rules", "wsss_core", "schemas", "report", "envs", "profiles", "config")


class Project:
    """A copy of the project, to run `tests/config/tiny.yaml` in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in PROJECT_FILES:
            source, target = REPOSITORY / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self.config = yaml.safe_load((REPOSITORY / "tests/config/tiny.yaml").read_text())
        self.write_config(self.config)

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.config["run"]

    def write_config(self, config: dict, name: str = "run.yaml") -> str:
        (self.folder / name).write_text(yaml.safe_dump(config))
        return name

    def snakemake(self, *arguments: str, configfile: str = "run.yaml") -> subprocess.CompletedProcess:
        command = ["python", "-m", "snakemake", *arguments, "--cores", "2", "--configfile", configfile]
        environment = {"PYTHONPATH": str(self.folder), "PATH": warm.path(), "PYTHONDONTWRITEBYTECODE": "1"}
        options = {"cwd": self.folder, "env": os.environ | environment, "capture_output": True, "text": True}
        return subprocess.run(command, **options, check=False)

    def messages(self, config: dict | None = None) -> set[str]:
        """Messages of the jobs that a dry-run announces, without settings files and targets."""
        name = "run.yaml" if config is None else self.write_config(config, "changed.yaml")
        done = self.snakemake("--dry-run", configfile=name)
        assert done.returncode == 0, done.stdout + done.stderr
        messages = re.findall(r"^Job \d+: (.*?)(?:; log: .*)?$", done.stdout + done.stderr, flags=re.MULTILINE)
        return {message for message in messages if not message.startswith("settings of")}

    def jobs(self, config: dict | None = None) -> set[str]:
        """`messages` without the names of shards."""
        return {re.sub(r", shard .*", "", message) for message in self.messages(config)}

    def draw_photos(self) -> None:
        """Let the run read a folder of pictures in VOC layout, to which others can be added."""
        made = generate(DemoSettings(root=str(self.folder / "drawn"), train=16, val=14, min_side=64, max_side=80))
        shutil.copytree(made, self.folder / "photos")
        self.config["dataset"] = {
            "format": "voc",
            "root": "photos",
            "train": ["train"],
            "tags": "labels.csv",
            "classes": "classes.txt",
            "shard_size": 8,
        }
        self.write_config(self.config)

    def add_photo(self, split: str, shard: int, count: int) -> None:
        """Add a copy of a split's first picture under a new name that falls into the given of `count` shards."""
        photos = self.folder / "photos"
        listed = photos / "ImageSets/Segmentation" / f"{split}.txt"
        source = listed.read_text().split()[0]
        name = next(f"new{n}" for n in range(1000) if shard_of(f"new{n}", count) == shard)
        for folder in ("JPEGImages", "SegmentationClass"):
            path = next((photos / folder).glob(f"{source}.*"))
            shutil.copy(path, path.with_name(name + path.suffix))
        listed.write_text(listed.read_text() + name + "\n")
        tags = photos / "labels.csv"
        row = next(line for line in tags.read_text().splitlines() if line.startswith(source))
        tags.write_text(tags.read_text() + row.replace(source, name, 1) + "\n")

    def changed(self, path: str, value: object) -> dict:
        """The configuration with one dotted key changed."""
        config = yaml.safe_load(yaml.safe_dump(self.config))
        *parents, key = path.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
        return config


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    made.draw_photos()
    done = made.snakemake()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return made


REPORT = "the report of run tiny"
RESULTS = {
    "the table of results of run tiny",
    "signs of health of run tiny",
    "the contact sheet of run tiny",
}
CLASSIFIER = {"training classifier bce", "trying classifier bce on the tags"}
CAM = {"seeds cam", "scoring seeds cam over all thresholds"}
RIB_SCORES = {"scoring seeds rib over all thresholds"}
RIB = {"seeds rib", *RIB_SCORES}
CRF = {"masks rib-crf from seed maps", "scoring the pseudo-masks of rib-crf"}
IRN_MASKS = {"masks rib-irn from walked scores", "scoring the pseudo-masks of rib-irn"}
CONFIDENT = {"masks rib-confident from walked scores", "scoring the pseudo-masks of rib-confident"}
WALK_SCORES = {"scoring the walk of rib-irn over all thresholds"}
WALK = {"random walk rib-irn", *WALK_SCORES}
IRN = {"confident labels for rib-irn", "training the network of rib-irn", *WALK}
PREDICT = {"predictions of deeplab", "scoring the predictions of deeplab"}
DEEPLAB = {"training segmentation network deeplab", *PREDICT}
FILLED = {"masks rib-filled from masks and a network", "scoring the pseudo-masks of rib-filled"}
RETRAINED = {
    "training segmentation network retrained",
    "predictions of retrained",
    "scoring the predictions of retrained",
}
AFTER_CONFIDENT = CONFIDENT | DEEPLAB | FILLED | RETRAINED
AFTER_WALK = WALK | IRN_MASKS | AFTER_CONFIDENT
AFTER_RIB = RIB | CRF | IRN | AFTER_WALK


def test_everything_is_made(project):
    for name in ("seeds/cam", "seeds/rib", "refinements/rib-crf", "refinements/rib-irn", "segmentations/retrained"):
        text = (project.results / name / "evaluation.csv").read_text()
        assert re.search(r"^mean,", text, flags=re.MULTILINE), text
    assert "<html" in (project.results / "report.html").read_text()
    assert_all_done(project)


def assert_all_done(project: Project) -> None:
    """`wsss status` finds what every step makes where the rules put it."""
    states = read_states(find_run(project.results))
    assert {job.state for state in states for job in state.jobs} == {"done"}
    assert finished(states)


def test_touching_nothing_reruns_nothing(project):
    assert project.jobs() == set()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("classifiers.bce.learning_rate", 0.011, CLASSIFIER | CAM | AFTER_RIB),
        ("seeds.cam.scales", [1.0], CAM),
        ("seeds.rib.learning_rate", 2.0e-5, AFTER_RIB),
        ("seeds.rib.score.threshold", 0.31, RIB_SCORES),
        ("refinements.rib-crf.threshold", 0.31, CRF),
        ("refinements.rib-irn.labels.foreground", 0.41, IRN | AFTER_WALK),
        ("refinements.rib-irn.walk.beta", 8.0, AFTER_WALK),
        ("refinements.rib-irn.masks.threshold", 0.22, IRN_MASKS),
        ("refinements.rib-confident.band", [0.1, 0.4], AFTER_CONFIDENT),
        ("segmentations.deeplab.learning_rate", 0.002, DEEPLAB | FILLED | RETRAINED),
        ("segmentations.deeplab.predict.flip", True, PREDICT),
        ("report.images", 2, set()),
    ],
)
def test_a_setting_reruns_its_stage_and_descendants(project, path, value, expected):
    assert project.jobs(project.changed(path, value)) == expected | {REPORT} | (RESULTS if expected else set())


def test_same_meaning_reruns_nothing(project):
    config = project.changed("execution.workers", 1)
    config["seeds"] = {name: dict(reversed(stage.items())) for name, stage in reversed(config["seeds"].items())}
    assert project.jobs(config) == set()


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("wsss_core/seeds/rib.py", AFTER_RIB | {REPORT} | RESULTS),
        ("wsss_core/refine/crf.py", CRF | {REPORT} | RESULTS),
        ("wsss_core/segment/predict.py", PREDICT | FILLED | RETRAINED | {REPORT} | RESULTS),
        ("wsss_core/config/sweeps.py", {REPORT} | RESULTS),
        ("wsss_core/report/page.py", {REPORT}),
    ],
)
def test_edited_code_reruns_what_uses_it(project, file, expected):
    path = project.folder / file
    before = path.read_text()
    try:
        path.write_text(before + "\n# a comment changes nothing\n")
        assert project.jobs() == set()
        path.write_text(before + "\nEDITED = True\n")
        assert project.jobs() == expected
    finally:
        path.write_text(before)


def test_a_sweep_adds_variants_only(project):
    jobs = project.jobs(project.changed("refinements.rib-crf.iterations", [2, 5]))
    variants = [f"rib-crf@iterations={n}" for n in (2, 5)]
    expected = {f"masks {name} from seed maps" for name in variants}
    assert jobs == expected | {f"scoring the pseudo-masks of {name}" for name in variants} | {REPORT} | RESULTS


def test_a_mistake_stops_before_anything_runs(project):
    config = project.changed("seeds.rib.learning_rat", 1.0)
    config["refinements"]["rib-crf"]["seed"] = "rab"
    done = project.snakemake("--dry-run", configfile=project.write_config(config, "wrong.yaml"))
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "seeds.rib.learning_rat: unknown key (did you mean 'learning_rate'?)" in output
    assert "refinements.rib-crf.seed: there is no stage 'rab' (did you mean 'rib'?)" in output


def test_a_key_that_stands_twice_stops_before_anything_runs(project):
    text = yaml.safe_dump(project.config) + "classifiers: {bce: {objective: bce}}\n"
    (project.folder / "twice.yaml").write_text(text)
    done = project.snakemake("--dry-run", configfile="twice.yaml")
    assert done.returncode != 0
    assert "twice.yaml: a key that stands twice counts once" in done.stdout + done.stderr


def test_added_images_rerun_their_shard_and_what_trains_on_them(project):
    """Last, because it changes the finished run."""
    project.add_photo("val", shard=1, count=2)
    done = project.snakemake("dataset")
    assert done.returncode == 0, done.stdout + done.stderr
    touched = {f"predictions of {name}, shard 01-of-02" for name in ("deeplab", "retrained")}
    scored = {f"scoring the predictions of {name}" for name in ("deeplab", "retrained")}
    assert project.messages() == touched | scored | {REPORT} | RESULTS
    project.add_photo("train", shard=0, count=2)
    done = project.snakemake("dataset")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.jobs() >= CLASSIFIER | CAM | AFTER_RIB


@pytest.mark.timeout(1800)
def test_every_method_runs(tmp_path):
    """All of them in one graph, on the same few pictures."""
    made = Project(tmp_path)
    made.config = yaml.safe_load((REPOSITORY / "tests/config/methods.yaml").read_text())
    used = {section: {stage[DISCRIMINATOR[section]] for stage in made.config[section].values()} for section in METHODS}
    assert used == {section: set(methods) - {"fill"} for section, methods in METHODS.items()}
    if find_spec("segmentation_models_pytorch") is None:  # the extra wsss[smp]
        del made.config["segmentations"]["smp"]
    if find_spec("transformers") is None:  # the extra wsss[foundation]
        del made.config["refinements"]["sam"], made.config["instances"]["boxed-sam"]
    else:
        write_sam(tmp_path / "tiny-sam")
    drawn = {key: value for key, value in made.config["dataset"].items() if key != "format"}
    pictures = generate(DemoSettings(**drawn | {"root": str(tmp_path / "data/demo")}))
    (tmp_path / "saliency").mkdir()
    for path in (pictures / "SegmentationClass").glob("*.png"):
        Image.fromarray((read_mask(path) > 0).astype("uint8")).save(tmp_path / "saliency" / path.name)
    shutil.copytree(pictures / "SegmentationClass", tmp_path / "drawn")
    names = read_class_names(pictures / "classes.txt")
    released = cam_network("small", len(names))
    about = released.about | {"class_names": list(names)}
    save_network(tmp_path / "released.pt", released.kind, released.state_dict(), about)
    for name, network in (("irn", IrnNetwork(backbone("small"))), ("psa", AffinityNetwork(backbone("small")))):
        about = network.about | {"class_names": list(names)}
        save_network(tmp_path / f"released-{name}.pt", network.kind, network.state_dict(), about)
    (tmp_path / "proposals").mkdir()
    for path in (pictures / "SegmentationObject").glob("train*.png"):  # superpixels that are the very objects
        shutil.copy(path, tmp_path / "proposals" / path.name)
        numbers = [[int(number)] for number in np.unique(np.asarray(Image.open(path)))]
        (tmp_path / "proposals" / f"{path.stem}.json").write_text(json.dumps(numbers))
    done = made.snakemake(configfile=made.write_config(made.config))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    scored = pd.read_csv(made.results / "results.csv", comment="#")
    assert set(scored["stage"]) == {name for section in SCORED_SECTIONS for name in made.config[section]} - {"truth"}
    true = pd.read_csv(made.results / "instances/true-objects/instance_scores.csv", comment="#", index_col="class")
    assert true.loc["mean", ["ap", "ap50", "abo", "iou"]].tolist() == pytest.approx([1, 1, 1, 1])
    for name in ("detectors/detector/box_scores", "instances/walked/instance_scores"):
        assert "mean" in pd.read_csv(made.results / f"{name}.csv", comment="#", index_col="class").index
    assert made.jobs(made.config) == set()
    assert_all_done(made)
    made.config["instances"]["attributed"]["iterations"] = 3
    again = made.jobs(made.config)
    assert {"masks of the objects attributed from attributions", "masks objects from the masks of objects"} <= again
    assert {"masks of the objects fitted fitted to proposals", "scoring the masks of the objects attributed"} <= again
    assert not any(word in job for job in again for word in ("detector", "bbam", "filled", "mask-rcnn", "deeplab"))
