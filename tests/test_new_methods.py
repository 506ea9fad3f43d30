"""A method is one module and one row of the registry: nothing else changes, from the schema to the report."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.test_workflow import REPORT, RESULTS, Project
from tests.warm import wsss
from wsss_core.constants import IGNORE

pytestmark = pytest.mark.workflow

SEED = '''"""Toy seed: how bright the photo is, the same for every class of its tags."""

from dataclasses import dataclass

import torch

from wsss_core.settings import setting
from wsss_core.store.seeds import SeedMaps


@dataclass(frozen=True)
class ToySeedSettings:
    """Brightness of the photo."""

    power: float = setting(1.0, "exponent of the brightness", exclusiveMinimum=0)


def maker(settings, inputs):
    def make(record, image):
        bright = torch.from_numpy(image).float().mean(2).div(255).pow(settings.power)
        return SeedMaps(record.classes, {1.0: bright.expand(len(record.classes), -1, -1)}, record.size)

    return make
'''

REFINEMENT = '''"""Toy refinement of maps: what is brightest is of the image's first class."""

from dataclasses import dataclass

from wsss_core.refine import MaskMaker, mask_values
from wsss_core.settings import setting
from wsss_core.store.cut import Cut


@dataclass(frozen=True)
class ToyRefinementSettings:
    """Masks of bright pixels."""

    bright: float = setting(0.6, "foreground is brighter than this part of the brightest", minimum=0, maximum=1)


def maker(settings, inputs):
    def mask(record):
        maps = inputs.maps[record.id]
        return mask_values((maps.full() > settings.bright).any(0).int(), maps.classes)

    return MaskMaker(Cut("fixed", settings.bright), lambda records: [mask(record) for record in records])
'''

BORDER = '''"""Toy refinement of masks: the border of a picture is undecided."""

from dataclasses import dataclass

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.refine import MaskMaker
from wsss_core.settings import setting


@dataclass(frozen=True)
class ToyBorderSettings:
    """Masks without a border."""

    width: int = setting(2, "width of the border in pixels", minimum=1)


def maker(settings, inputs):
    width = settings.width

    def mask(record):
        return np.pad(inputs.masks(record)[width:-width, width:-width], width, constant_values=IGNORE)

    return MaskMaker(inputs.cut, lambda records: [mask(record) for record in records])
'''

MODULES = {"seeds/toy_seed": SEED, "refine/toy_refinement": REFINEMENT, "refine/toy_border": BORDER}

ROWS = {
    "seeds": '"toy_seed": _seed("toy_seed", "ToySeedSettings"),',
    "refinements": """\
        "toy_refinement": _refinement(
            _masks("wsss_core.refine.toy_refinement:ToyRefinementSettings", "maps"), seed="seeds"
        ),
        "toy_border": _refinement(
            _masks("wsss_core.refine.toy_border:ToyBorderSettings", "masks"), masks="refinements"
        ),""",
}
"""Section of the registry to the rows added to it."""

STAGES = {
    "seeds": {"bright": {"method": "toy_seed", "classifier": "bce", "power": 2.0}},
    "refinements": {
        "brightest": {"method": "toy_refinement", "seed": "bright", "bright": 0.5},
        "framed": {"method": "toy_border", "masks": "brightest", "width": 3},
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A copy of the project with two new methods, and a finished run of them."""
    made = Project(tmp_path_factory.mktemp("project"))
    for name, text in MODULES.items():
        (made.folder / "wsss_core" / f"{name}.py").write_text(text)
    registry = made.folder / "wsss_core/registry.py"
    text = registry.read_text()
    for section, rows in ROWS.items():
        start = f'    "{section}": {{\n'
        assert text.count(start) == 1
        text = text.replace(start, f"{start}{rows}\n")
    registry.write_text(text)
    shutil.copytree(REPOSITORY / "docs", made.folder / "docs")
    wsss(made.folder, "schema", package=made.folder)
    made.config = {key: made.config[key] for key in ("run", "dataset", "classifiers")} | STAGES
    made.config["dataset"]["shard_size"] = 32
    made.write_config(made.config)
    done = made.snakemake()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return made


def test_their_settings_are_documented_and_checked(project):
    assert "foreground is brighter than this part of the brightest" in (project.folder / "docs/settings.md").read_text()
    page = (project.folder / "docs/architecture.md").read_text()
    assert (
        "`toy_seed`" in page
        and "| `refinements` | `toy_border`, `saliency`, `marks`, `corrected` | `masks` (of `refinements`) |" in page
    )
    listed = wsss(project.folder, "check", "run.yaml", package=project.folder)
    assert "seeds/bright: toy_seed from classifier bce" in listed
    assert "refinements/framed: toy_border from masks brightest" in listed
    wrong = project.write_config(project.changed("refinements.brightest.brigt", 0.5), "wrong.yaml")
    done = project.snakemake("--dry-run", configfile=wrong)
    assert "refinements.brightest.brigt: unknown key (did you mean 'bright'?)" in done.stdout + done.stderr


def test_they_are_scored_and_shown(project):
    scored = pd.read_csv(project.results / "results.csv", comment="#")
    assert set(scored["stage"]) == {"bright", "brightest", "framed"}
    assert set(scored["method"]) == {"toy_seed", "toy_refinement", "toy_border"}
    page = (project.results / "report.html").read_text()
    for name, stage in (STAGES["seeds"] | STAGES["refinements"]).items():
        assert f"<title>{name} {stage['method']} " in page  # the graph of stages
        assert f'alt="{name} on image ' in page


def test_their_masks_are_exported(project, tmp_path):
    wsss(
        project.folder,
        "export",
        "--masks",
        project.results / "refinements/framed/masks",
        "--out",
        tmp_path,
        package=project.folder,
    )
    masks = {path.name: np.asarray(Image.open(path)) for path in tmp_path.glob("*.png")}
    assert len(masks) == project.config["dataset"]["train"]
    for labels in masks.values():
        assert (labels[:3] == IGNORE).all() and (labels[:, -3:] == IGNORE).all()
        assert IGNORE not in labels[3:-3, 3:-3]
    assert any(set(np.unique(labels)) > {0, IGNORE} for labels in masks.values())


def test_what_they_made_is_made_again_when_they_are_edited(project):
    module = project.folder / "wsss_core/refine/toy_refinement.py"
    module.write_text(module.read_text() + "\nEDITED = True\n")
    masks = {"masks brightest from seed maps", "masks framed from masks"}
    scores = {f"scoring the pseudo-masks of {name}" for name in ("brightest", "framed")}
    assert project.jobs() == masks | scores | {REPORT} | RESULTS
