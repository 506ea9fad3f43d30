"""Thresholds tried on some photos of a run: what is shown, what is scored, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.scenes import write_step
from tests.test_report import STAGES, configuration, make_run
from wsss_core.errors import UserError
from wsss_core.jobs.run_files import RunFiles
from wsss_core.refine.crf import CrfSettings
from wsss_core.report.tuning import render_tuning
from wsss_core.store.masks import mask_name
from wsss_core.tune import LEVELS, OTSU, scored, tune

CRF = {"masks": {"threshold": 0.3}, "evaluation": {}}
HERE = STAGES | {
    "rib@steps=5": replace(STAGES["cam"], name="rib@steps=5"),
    "rib-crf": replace(STAGES["rib-crf"], settings=CRF),
}
COLUMNS = [f"{level:.2f}" for level in LEVELS.values()] + [OTSU]


@pytest.fixture
def files(tmp_path) -> RunFiles:
    make_run(tmp_path, HERE)
    folder = tmp_path / "config" / "refinements" / "rib-crf"
    folder.mkdir(parents=True)
    write_step(folder / "masks.json", "refinements/rib-crf", "crf", "masks", CrfSettings(iterations=1))
    return RunFiles(tmp_path, configuration(HERE))


@pytest.fixture
def drawn(files, tmp_path) -> Path:
    """Masks of three tagged photos, under the names of their files."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    tagged = [record for record in files.table.split("train") if record.classes]
    for record in tagged[:3]:
        shutil.copy(record.mask, folder / f"{Path(record.path).stem}.png")
    return folder


@pytest.mark.parametrize("name", ["cam", "rib-crf"])
def test_photos_are_shown_at_every_threshold_and_scored_where_they_have_masks(files, drawn, name):
    page = tune(files, name, drawn, 4)
    assert page.columns == COLUMNS and list(page.miou) == COLUMNS
    assert [photo.target is not None for photo in page.photos] == [True, True, True, False]
    for photo in page.photos:
        assert len(photo.pictures) == len(photo.coverage) == len(COLUMNS)
        assert name != "cam" or list(photo.coverage[:-1]) == sorted(photo.coverage[:-1], reverse=True)
    assert page.miou[page.best] == max(page.miou.values())
    assert f"On 3 masks {page.best} is best" in page.words[0]
    assert any("Chosen on all but one photo" in sentence for sentence in page.words)
    assert any("few masks" in sentence for sentence in page.words)
    html = render_tuning(page)
    assert html.count("<td") == 4 * (len(COLUMNS) + 1) and "http" not in html


def test_without_masks_nothing_is_scored_and_otsu_is_proposed(files):
    page = tune(files, "cam", None, 2)
    assert page.miou == {} and page.best == "" and len(page.photos) == 2
    assert page.setting == "seeds: {cam: {score: {rule: otsu}}}"
    assert "No masks were given" in page.words[0]


def test_the_last_target_is_meant_if_none_is_named(files):
    assert tune(files, None, None, 1).stage == "rib-crf"
    assert tune(files, None, None, 1).setting == "refinements: {rib-crf: {threshold: otsu}}"


@pytest.mark.parametrize("name", ["deeplab", "bce", "cm"])
def test_stages_without_a_threshold_are_refused(files, name):
    with pytest.raises(UserError, match=f"{name}: is no seed and no dense CRF of the run; there are cam, rib@steps=5"):
        tune(files, name, None, 1)


def test_masks_of_no_photo_are_refused_with_what_lies_there(files, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="there is no such folder"):
        tune(files, "cam", tmp_path / "nothing", 1)
    with pytest.raises(UserError, match=r"holds no mask of a tagged photo, such as \d\.png, but nothing"):
        tune(files, "cam", tmp_path / "other", 1)
    (tmp_path / "other" / "holiday.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"but holiday\.png"):
        tune(files, "cam", tmp_path / "other", 1)


def test_maps_that_are_not_made_yet_are_named(files):
    shutil.rmtree(files.folder("cam") / "maps")
    with pytest.raises(UserError, match="seed cam: its maps of image '.*' are not made yet"):
        tune(files, "cam", None, 1)


def test_the_honest_figure_is_of_thresholds_chosen_without_the_photo():
    """Two thresholds, of which either suits one photo: chosen on the other photo, each gets the wrong one."""
    good, bad = np.array([[10, 0], [0, 10]]), np.array([[5, 5], [5, 5]])
    found = scored(np.array([[good, bad], [bad, good]]), ["a", "b"])
    assert found.honest == pytest.approx(1 / 3) and found.miou["a"] == found.miou["b"] > found.honest
    assert scored(np.array([[good, bad]]), ["a", "b"]).honest is None


def test_otsu_is_advised_unless_another_threshold_does_better_on_photos_that_did_not_choose_it():
    good, fair, bad = np.array([[10, 0], [0, 10]]), np.array([[9, 1], [1, 9]]), np.array([[5, 5], [5, 5]])
    torn = scored(np.array([[good, bad, fair], [bad, good, fair], [good, bad, fair]]), ["0.10", "0.20", OTSU])
    assert torn.advised == OTSU
    clear = scored(np.array([[good, bad, fair]] * 3), ["0.10", "0.20", OTSU])
    assert clear.best == clear.advised == "0.10"


def test_masks_may_be_named_by_the_ids_of_images(files, drawn, tmp_path):
    record = next(record for record in files.table.split("train") if "/" in record.id)
    named = tmp_path / "named"
    named.mkdir()
    shutil.copy(record.mask, named / mask_name(record.id))
    assert [photo.id for photo in tune(files, "cam", named, 1).photos] == [record.id]
