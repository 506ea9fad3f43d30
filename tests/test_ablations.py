"""The shipped ablation studies: valid as they stand and in their form for PASCAL VOC, each with its figure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from wsss_core.boxes.bbam import BbamSettings
from wsss_core.cli import main
from wsss_core.config import Configuration, load

STUDIES = sorted((REPOSITORY / "config" / "ablations").glob("*.yaml"))
PAGE = REPOSITORY / "docs" / "methods" / "ablations.md"


def for_voc(text: str) -> str:
    """What the `sed` command in the head of every study makes of it."""
    lines = [line for line in text.splitlines() if not line.endswith("# demo")]
    return "\n".join(re.sub("# voc[:] ", "", line, count=1) for line in lines)


def both(path: Path) -> tuple[Configuration, Configuration]:
    text = path.read_text()
    return load(yaml.safe_load(text)), load(yaml.safe_load(for_voc(text)))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_is_valid_and_ends_in_its_figure(path):
    drawn, voc = both(path)
    assert (drawn.run, voc.run) == (path.stem, f"{path.stem}-voc")
    assert (drawn.dataset["format"], voc.dataset["format"]) == ("demo", "voc")
    assert [figure["name"] for figure in drawn.figures] == [path.stem]
    assert drawn.figures == voc.figures
    stages = [configuration.stages.values() for configuration in (drawn, voc)]
    assert {stage.base for stage in stages[0]} == {stage.base for stage in stages[1]}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_for_voc_has_the_papers_settings(path):
    """No setting of the drawn pictures is left: networks start from weight files and all scales are used."""
    for stage in both(path)[1].stages.values():
        if stage.section == "classifiers" and stage.method != "w_ood":
            assert stage.settings["train"]["weights"].startswith("weights/resnet")
        if stage.method == "bce":
            assert stage.settings["train"]["learning_rate"] == 0.1
            assert stage.settings["train"]["momentum"] == stage.settings["train"]["weight_decay"]
        if stage.method in ("cam", "rib", "advcam"):
            assert stage.settings["maps"]["scales"] == [1.0, 0.5, 1.5, 2.0]
        if stage.section in ("detectors", "instance_networks", "segmentations"):
            assert stage.settings["train"]["backbone"] == "resnet101"
            assert stage.settings["train"]["weights"].startswith("weights/resnet101")
        if stage.method == "bbam":
            published, given = BbamSettings(), stage.settings["attributions"]
            assert given["iterations"] == published.iterations and given["rate"] == published.rate
            assert given["positives"] == published.positives


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_names_its_own_file_and_is_on_the_page(path):
    head = path.read_text()
    assert f"--configfile config/ablations/{path.name}\n" in head
    assert f"'s/# voc[:] //' config/ablations/{path.name} > {path.stem}-voc.yaml\n" in head
    assert f"`{path.stem}`" in PAGE.read_text()


def test_command_accepts_a_study(capsys):
    assert main(["check", str(STUDIES[0])]) == 0
    assert f"run {STUDIES[0].stem}: demo data" in capsys.readouterr().out
