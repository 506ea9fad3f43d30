"""The run files of the papers' rows: each has its own method's published constants, and is on the page of papers."""

from __future__ import annotations

import pytest
import yaml

from tests.conftest import REPOSITORY
from wsss_core.config import load

IRN = {  # run, stage: foreground, background, power, threshold
    ("voc12-cam", "cam-irn"): (0.30, 0.05, 1.0, 0.25),
    ("voc12-advcam", "advcam-irn"): (0.35, 0.15, 1.5, 0.25),
    ("voc12-w-ood", "wood-cam-irn"): (0.30, 0.15, 1.5, 0.22),
    ("voc12-w-ood", "wood-advcam-irn"): (0.30, 0.15, 1.5, 0.22),
    ("voc12-rib-saliency", "rib-irn"): (0.35, 0.17, 1.3, 0.27),
    ("voc12", "rib-irn"): (0.35, 0.17, 1.3, 0.27),
    ("coco14", "cam-irn"): (0.30, 0.05, 1.0, 0.22),
    ("coco14", "rib-irn"): (0.35, 0.17, 1.3, 0.22),
}
RUNS = sorted(path.stem for path in (REPOSITORY / "config").glob("voc12*.yaml")) + ["coco14"]


def given(run: str) -> dict:
    return yaml.safe_load((REPOSITORY / "config" / f"{run}.yaml").read_text())


@pytest.mark.parametrize(("run", "name"), IRN, ids=[f"{run}-{name}" for run, name in IRN])
def test_walks_have_the_constants_of_their_own_paper(run, name):
    stage = next(stage for stage in load(given(run)).stages.values() if stage.name == name)
    labels, walk, masks = (stage.settings[step] for step in ("labels", "walk", "masks"))
    assert (labels["foreground"], labels["background"], walk["power"], masks["threshold"]) == IRN[run, name]


@pytest.mark.parametrize("run", RUNS)
def test_run_is_on_the_page_and_starts_from_weight_files(run):
    assert f"config/{run}.yaml" in (REPOSITORY / "docs" / "papers.md").read_text(encoding="utf-8")
    assert given(run)["run"] == run
    for stage in given(run)["classifiers"].values():
        assert stage["objective"] == "w_ood" or stage["weights"].startswith(("weights/resnet", "weights/vgg16"))
