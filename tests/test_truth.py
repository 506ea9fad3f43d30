"""True masks as a source of supervision: which are taken, what is scored on them, and what is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.scenes import make_masks, write_scene, write_step
from wsss_core.check import look_ahead
from wsss_core.config import load, step_json
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.evaluate.labelled import is_labelled
from wsss_core.evaluate.tables import read_evaluation
from wsss_core.execution import Execution
from wsss_core.segment.samples import checked, samples_of
from wsss_core.steps import evaluation as evaluation_step
from wsss_core.store.cut import read_about
from wsss_core.store.masks import mask_name, read_mask, write_mask

RAW = {
    "run": "semi",
    "dataset": {"format": "demo"},
    "classifiers": {"bce": {"objective": "bce"}},
    "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
    "refinements": {
        "crf": {"method": "crf", "seed": "cam"},
        "all": {"method": "truth"},
        "few": {"method": "truth", "images": 0.25},
        "there": {"method": "truth", "missing": "undecided"},
        "filled": {"method": "fill", "masks": "crf", "segmentation": "cct"},
    },
    "segmentations": {
        "full": {"network": "deeplab_v2", "masks": "all"},
        "little": {"network": "deeplab_v2", "masks": "few"},
        "weak": {"network": "deeplab_v2", "masks": "crf"},
        "cct": {"network": "cct", "masks": "crf", "truth": "few"},
        "everything": {"network": "pseudo_label", "masks": "all", "truth": "few"},
        "same-form": {"network": "pseudo_label", "masks": "crf", "truth": "all", "pseudo_weight": 0.0},
        "some-missing": {"network": "cct", "masks": "crf", "truth": "there"},
    },
}


@pytest.fixture
def scene(tmp_path) -> tuple[Path, list[ImageRecord]]:
    """Eight images of one class in `shard.json`, each with a true mask of its own."""
    records = []
    for name in "abcdefgh":
        labels = np.zeros((6, 8), np.uint8)
        labels[: 1 + ord(name) % 4, 2:] = 1
        labels[5] = 255
        write_mask(tmp_path / "true" / f"{name}.png", labels)
        mask = str(tmp_path / "true" / f"{name}.png")
        records.append(ImageRecord(name, f"{name}.jpg", 6, 8, ("train", "score"), (0,), mask, (), name))
    write_scene(tmp_path, ["cat"], records, {})
    return tmp_path, records


def test_shares_are_nested_and_about_as_large_as_asked():
    names = [f"photo {number}" for number in range(4000)]
    shares = [{name for name in names if is_labelled(name, share, 0)} for share in (0.1, 0.3, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(names)
    assert [len(share) / 4000 for share in shares[:2]] == pytest.approx([0.1, 0.3], abs=0.02)
    other = {name for name in names if is_labelled(name, 0.3, 1)}
    assert len(other & shares[1]) / 4000 == pytest.approx(0.09, abs=0.02)


def test_masks_are_those_of_the_data_set(scene):
    folder, records = scene
    masks = make_masks(folder, "truth", {"images": 1.0})
    for record in records:
        assert (read_mask(masks / mask_name(record.id)) == read_mask(Path(record.mask))).all()
    assert read_about(masks).notes == ("true masks of all images",)


def test_images_that_were_not_drawn_are_undecided_and_left_out_of_training(scene):
    folder, records = scene
    masks = make_masks(folder, "truth", {"images": 0.5})
    drawn = [record for record in records if is_labelled(record.id, 0.5, 0)]
    assert [record.id for record in drawn] == list("bcdgh")
    for record in records:
        labels = read_mask(masks / mask_name(record.id))
        assert (labels == read_mask(Path(record.mask))).all() if record in drawn else (labels == 255).all()
    samples, _ = checked(samples_of(records, [masks]), ["cat"])
    assert [sample.image.stem for sample in samples] == list("bcdgh")
    assert read_about(masks).notes == ("true masks of 50 % of the images",)


def test_missing_masks_stop_with_their_number_or_are_left_out(scene):
    folder, records = scene
    lacking = [replace(record, mask="") if record.id in "bdh" else record for record in records]
    write_scene(folder, ["cat"], lacking, {})
    with pytest.raises(UserError, match="3 of 8 images to learn from have no mask, such as 'b', 'd', 'h'.*undecided"):
        make_masks(folder, "truth", {})
    with pytest.raises(UserError, match="3 of 5 images to learn from have no mask, such as 'b', 'd', 'h'"):
        make_masks(folder, "truth", {"images": 0.5})
    masks = make_masks(folder, "truth", {"missing": "undecided"})
    undecided = {r.id for r in records if (read_mask(masks / mask_name(r.id)) == 255).all()}
    assert undecided == set("bdh")


def test_a_wrong_mask_is_named(scene):
    folder, records = scene
    write_mask(Path(records[2].mask), np.full((6, 8), 2))
    with pytest.raises(UserError, match=r"c.png: mask holds \[2\]"):
        make_masks(folder, "truth", {})


def test_masks_built_on_truth_are_scored_on_other_images(scene):
    """A refinement of true masks would be scored against itself; what is left are the images not learned from."""
    folder, _ = scene
    masks = make_masks(folder, "truth", {})

    def scored(**learned):
        evaluation_step.run(
            config=write_step(folder / "e.json", "refinements/x", "fill", "evaluation", {}, **learned),
            manifests=[folder / "shard.json"],
            masks=[masks],
            evaluation=folder / "evaluation.csv",
            domains=folder / "domains.csv",
            execution=Execution("cpu"),
        )
        return read_evaluation(folder / "evaluation.csv")

    header = scored(labelled=[[0.5, 0]]).header
    assert (header.images, header.learned, header.choosing) == (3, 5, 0)
    assert (
        "learned: 5 (other images with masks, whose masks were learned from)" in (folder / "evaluation.csv").read_text()
    )
    everything = scored(labelled=[[1.0, 0]])
    assert (everything.header.images, everything.header.learned, everything.rows) == (0, 8, {})
    assert (scored().header.images, scored().header.learned) == (8, 0)


def test_a_run_knows_what_true_masks_it_is_built_on():
    configuration = load(RAW)
    assert configuration.fully_supervised == {"full", "same-form"}
    assert "evaluation" not in configuration.stages["all"].settings
    truths = {name: [*configuration.truths_of(name)] for name in configuration.stages}
    assert {name for name, found in truths.items() if not found} == {"bce", "cam", "crf", "weak"}
    assert truths["filled"] == truths["cct"] == ["few"]
    assert truths["everything"] == ["all", "few"]
    assert configuration.learned_truths("cct") == ["built on few: true masks of 25 % of the images"]
    labelled = {
        name: json.loads(step_json(configuration, f"refinements/{name}", "evaluation"))["labelled"]
        for name in ("crf", "filled")
    }
    assert labelled == {"crf": [], "filled": [[0.25, 0]]}
    assert configuration.ancestor("full", "classifiers") is None
    assert configuration.ancestor("cct", "classifiers").name == "bce"


def test_semi_supervised_networks_take_true_masks_from_a_stage_of_them_alone():
    wrong = {**RAW["segmentations"], "cct": {"network": "cct", "masks": "crf", "truth": "crf"}}
    with pytest.raises(UserError, match=r"segmentations.cct.truth: there is no stage 'crf'.*"):
        load({**RAW, "segmentations": wrong})


def test_check_counts_missing_masks_of_the_whole_data_set(tmp_path):
    rows = ["image,labels", *(f"{name}.jpg,cat" for name in "abcdefgh")]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for name in "abcdefgh":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    for name in "ab":
        write_mask(tmp_path / "masks" / f"{name}.png", np.zeros((6, 8)))
    dataset = {"format": "table", "root": str(tmp_path), "labels": "labels.csv", "masks": "masks"}
    configuration = load({**RAW, "dataset": dataset | {"unreadable": "skip"}})
    with pytest.raises(UserError, match="refinements.all: true masks: 6 of 8 images to learn from have no mask"):
        look_ahead(configuration)
