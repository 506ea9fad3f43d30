"""The blocks of YAML on the pages: each is a configuration, or a part of one, and does what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import REPOSITORY
from wsss_core import cli
from wsss_core.config import load, read_schema
from wsss_core.data.demo import DemoSettings, generate
from wsss_core.models.backbones import backbone
from wsss_core.store.masks import read_mask

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
ASSUMED = """
classifiers:
  bce: {objective: bce}
  wood: {objective: w_ood, init: bce}
seeds:
  cam: {method: cam, classifier: bce}
  rib: {method: rib, classifier: bce}
refinements:
  rib-crf: {method: crf, seed: rib}
instances:
  objects: {method: filled}
"""
"""Stages that parts of configurations on the pages name without describing them."""

SMALL = """
classifiers:
  bce: {epochs: 1, batch_size: 4, long_side: [64, 96], crop: 64, learning_rate: 0.0001, classifier_rate: 10.0,
        tag_scores: {stop: false}}
seeds:
  rib: {scales: [1.0], steps: 1, batch_size: 2, pool_long: [64, 96], pool_crop: 64}
refinements:
  masks: {network: {radius: 5, epochs: 1, batch_size: 4, crop: 64}}
execution: {train_threads: 1}
"""
"""Sizes with which the README's run takes a minute. The rate is for weights that are random: with that for trained
ones a classifier only learns that every class is rare, and no map rises above 0.
"""


def blocks(page: Path) -> list[str]:
    """The blocks of YAML on a page."""
    return re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


BLOCKS = [(page, text) for page in PAGES for text in blocks(page)]
README, FEW = (text for page, text in BLOCKS if page.stem == "README")
CONFIGURATION = next(text for page, text in BLOCKS if page.stem == "configuration")


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations as Snakemake merges them."""
    both = {key: merged(first[key], value) for key, value in second.items() if isinstance(first.get(key), Mapping)}
    return {**first, **second, **both}


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> Path:
    """A folder with what the pages describe: photos with their tags in `photos`, and weight files in `weights`."""
    folder = tmp_path_factory.mktemp("described")
    sizes = DemoSettings(root=str(folder / "drawn"), train=10, val=1, background=0, min_side=64, max_side=80)
    drawn = generate(replace(sizes, more_objects=()))  # every photo is without most classes, as RIB needs some that are
    (folder / "photos").mkdir()
    (folder / "weights").mkdir()
    for path in drawn.glob("JPEGImages/train_*.jpg"):
        shutil.copy(path, folder / "photos")
    lines = (drawn / "labels.csv").read_text().splitlines(keepends=True)
    (folder / "photos/labels.csv").write_text("".join(line for line in lines if not line.startswith("val_")))
    shutil.rmtree(folder / "drawn")
    files = ("resnet50-19c8e357.pth", "resnet101-5d3b4d8f.pth", "mobilenet_v2-b0353104.pth")  # torchvision's names
    for name, file in zip(("resnet50", "resnet101", "mobilenet_v2"), files, strict=True):
        torch.save(random_weights(name), folder / "weights" / file)
    return folder


def random_weights(name: str) -> dict[str, torch.Tensor]:
    """Parameters of a backbone in torchvision's names, whose blocks add little to what they get, as trained ones do."""
    torch.manual_seed(0)
    network = backbone(name)
    state = {network._published_name(key): value for key, value in network.state_dict().items()}
    return {key: 0.2 * value if key.endswith("bn3.weight") else value for key, value in state.items()}


def wsss(folder: Path, *words: str) -> str:
    """Output of a command in a folder; it must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": path}
    command = [sys.executable, "-m", "wsss_core.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(("page", "text"), BLOCKS, ids=[f"{page.stem}-{k}" for k, (page, _) in enumerate(BLOCKS)])
def test_every_block_is_a_configuration_or_a_part_of_one(page, text):
    given = yaml.safe_load(text)
    if given.keys() <= yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text()).keys():
        return
    assert given.keys() <= read_schema()["properties"].keys(), "neither a configuration nor a profile"
    if "run" not in given:
        whole = merged(yaml.safe_load(CONFIGURATION), yaml.safe_load(ASSUMED)) | {"targets": None}
        given = merged(whole | {"dataset": given.get("dataset", whole["dataset"])}, given)
    configuration = load(given)
    for variant in re.findall(r"\b[\w-]+@[\w.=-]+", text):
        assert variant in configuration.stages


@pytest.mark.parametrize("text", [README, FEW, CONFIGURATION], ids=["README", "few", "configuration"])
def test_whole_configurations_pass_the_check_in_the_folder_that_they_describe(text, described, monkeypatch, capsys):
    monkeypatch.chdir(described)
    Path("mine.yaml").write_text(text)
    assert cli.main(["check", "mine.yaml"]) == 0
    said = capsys.readouterr().out
    assert "5 classes: beetle, bird, boat, car, sheep" in said
    assert said.count(" fits the backbone ") == text.count(".pth") and " yet" not in said


@pytest.mark.workflow
@pytest.mark.parametrize("text", [README, FEW, CONFIGURATION], ids=["README", "few", "configuration"])
def test_whole_configurations_are_planned(text, described):
    (described / "mine.yaml").write_text(text)
    output = wsss(described, "run", "mine.yaml", "--dry-run", "--cores", "2")
    assert "training classifier bce" in output and f"the report of run {yaml.safe_load(text)['run']}" in output


@pytest.mark.workflow
def test_the_five_lines_of_the_readme_go_from_photos_to_masks(described):
    (described / "mine.yaml").write_text(README)
    (described / "small.yaml").write_text(SMALL)
    wsss(described, "run", "mine.yaml", "--cores", "2", "--configfile", "small.yaml")
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    wsss(described, *re.search(r"^wsss (export [^#\n]*)", page, re.MULTILINE)[1].split())
    masks = {path.stem: read_mask(path) for path in (described / "masks").glob("*.png")}
    assert masks.keys() == {path.stem for path in (described / "photos").glob("*.jpg")}
    assert all(set(mask.ravel().tolist()) <= {*range(6)} for mask in masks.values())
    assert "<html" in (described / "results/mine/report.html").read_text()
