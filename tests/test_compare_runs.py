"""Comparing two runs: what counts as a difference, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.compare_runs import compare_runs, main
from wsss_core import __version__
from wsss_core.store.cut import Cut, write_about
from wsss_core.store.masks import mask_name, write_mask
from wsss_core.store.shards import group_name

LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
MASK = "refinements/crf/masks/00-of-01/a.png"
MAPS = "seeds/cam/maps/00-of-01.h5"
MODEL = "classifiers/bce/model.pt"
EVALUATION = "refinements/crf/evaluation.csv"
RESULTS = "results.csv"


def write_maps(path: Path, changed: float = 0.0, code: str = "1") -> None:
    """Records of two images; those of b are `changed`."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"kind": "seeds", "version": code, "attrs": json.dumps({"settings": code})})
        for image_id, shift in (("a", 0.0), ("b", changed)):
            group = file.create_group(group_name(image_id))
            group.attrs.update({"id": image_id, "fingerprint": f"{code} {image_id}", "classes": [1], "size": [20, 20]})
            group.attrs["statistics"] = '{"losses": [0.5, NaN]}'
            group["scale_1.0"] = np.arange(4, dtype=np.float32).reshape(1, 2, 2) + np.float32(shift)


def write_model(path: Path, weight: float = 1.0, code: str = "1", method: str = "bce") -> None:
    """By hand, as nothing that is not finite is written by `save_network`."""
    state = {"weight": torch.tensor([weight, float("nan")]), "steps": torch.tensor(3)}
    meta = {"method": method, "settings": {"code": code}}
    torch.save({"kind": "classifier", "version": __version__, "meta": meta, "state": state}, path)


def write_run(run: Path, code: str = "1") -> Path:
    """A run with a file of every kind; everything that `code` goes into must not count."""
    for folder in (MASK, MAPS, MODEL, "logs/x", "benchmarks/x", "config/x"):
        (run / folder).parent.mkdir(parents=True, exist_ok=True)
    write_mask(run / MASK, LABELS)
    write_about((run / MASK).parent, Cut("fixed", 0.3, crf="once"))
    write_maps(run / MAPS, code=code)
    write_model(run / MODEL, code=code)
    (run / "seeds/cam/threshold.json").write_text('{"rule": "fixed", "value": 0.3}\n')
    (run / EVALUATION).write_text(f"# rule: {code}\nclass,iou,pixels\ncar,0.250000,7\n")
    (run / RESULTS).write_text(f"# run: x\nstage,miou,seconds,memory_mb,settings\ncrf,0.5,{code},{code},{code}\n")
    for name in ("logs/x.log", "benchmarks/x.tsv", "config/x.json", "report.html", "seeds/cam/curve.svg"):
        (run / name).write_text(code)
    return run


@pytest.fixture
def before(tmp_path) -> Path:
    return write_run(tmp_path / "before")


@pytest.fixture
def after(tmp_path) -> Path:
    return write_run(tmp_path / "after")


def differences(before: Path, after: Path, *arguments, **options) -> dict[str, str]:
    return {c.path: c.difference for c in compare_runs(before, after, *arguments, **options) if c.difference}


def test_equal_runs(before, after, capsys):
    assert main([str(before), str(after)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "JSON: 2 files compared, 0 differ; 0 only before, 0 only after",
        "checkpoints: 1 files compared, 0 differ; 0 only before, 0 only after",
        "pictures: 1 files compared, 0 differ; 0 only before, 0 only after",
        "records: 1 files compared, 0 differ; 0 only before, 0 only after",
        "tables: 2 files compared, 0 differ; 0 only before, 0 only after",
    ]


def test_digests_costs_and_comments_do_not_count(before, tmp_path, capsys):
    other = write_run(tmp_path / "other", code="2")
    assert (before / MAPS).read_bytes() != (other / MAPS).read_bytes()
    assert main([str(before), str(other)]) == 0
    assert f"{EVALUATION}: note, does not count: rule: '1' -> '2'" in capsys.readouterr().out.splitlines()
    assert main([str(before), str(other), "--headers"]) == 1


def test_a_changed_pixel(before, after, capsys):
    labels = LABELS.copy()
    labels[2, 3] = 15
    write_mask(after / MASK, labels)
    assert main([str(before), str(after), "--tolerance", "10"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MASK}: 1 of 12 pixels differ, by up to 4"
    assert "pictures: 1 files compared, 1 differ by up to 4; 0 only before, 0 only after" in lines


def test_a_changed_map(before, after):
    write_maps(after / MAPS, changed=0.5, code="2")
    assert list(differences(before, after)) == [MAPS]
    words = differences(before, after)[MAPS]
    assert words.startswith("4 of 18 numbers differ, by up to 0.5, in 1 of 2 records (b scale_1.0: ")
    assert not differences(before, after, tolerance=0.5)


def test_a_changed_attribute_of_a_record(before, after):
    with h5py.File(after / MAPS, "r+") as file:
        file["a"].attrs["statistics"] = '{"losses": [0.5]}'
    assert differences(before, after)[MAPS].endswith("(a statistics losses 1: nan -> nothing)")


def test_a_record_that_is_missing(before, after):
    with h5py.File(after / MAPS, "r+") as file:
        del file["a"]
    assert "in 1 of 2 records" in differences(before, after)[MAPS]


def test_a_changed_weight(before, after):
    write_model(after / MODEL, weight=1.25)
    assert differences(before, after) == {
        MODEL: "1 of 3 numbers differ, by up to 0.25, in 1 of 2 tensors "
        "(weight: float32 [1.0, nan] -> float32 [1.25, nan])"
    }


def test_a_number_that_became_nan(before, after):
    write_model(after / MODEL, weight=float("nan"))
    assert "by up to inf" in differences(before, after, tolerance=1.0)[MODEL]


def test_meta_data_of_a_checkpoint_is_only_noted(before, after):
    write_model(after / MODEL, method="seam")
    assert not differences(before, after, headers=True)
    notes = {c.path: c.notes for c in compare_runs(before, after) if c.notes}
    assert notes == {MODEL: ("meta method: 'bce' -> 'seam'",)}


def test_changed_cells_and_columns(before, after):
    (after / EVALUATION).write_text("# rule: 1\nclass,iou,pixels\ncar,0.50,7.0\n")
    (after / RESULTS).write_text("# run: x\nstage,miou,seconds\ncrf,0.5,1\nirn,0.75,1\n")
    assert differences(before, after) == {
        EVALUATION: "1 of 6 cells differ, by up to 0.25 (row 1 iou: 0.25 -> 0.5)",
        RESULTS: "2 of 6 cells differ (row 2 stage: nothing -> 'irn')",
    }


def test_changed_json(before, after):
    write_about((after / MASK).parent, Cut("fixed", 0.3, crf="twice"))
    (after / "seeds/cam/threshold.json").write_text(json.dumps({"value": 0.5, "rule": "fixed"}))
    assert differences(before, after) == {
        "refinements/crf/masks/00-of-01/about.json": "1 of 6 values differ (crf: 'once' -> 'twice')",
        "seeds/cam/threshold.json": "1 of 2 values differ, by up to 0.2 (value: 0.3 -> 0.5)",
    }


def test_files_of_one_run_only(before, after):
    (after / MASK).unlink()
    (after / "problems.csv").write_text("image,path\n")
    assert differences(before, after) == {MASK: "only before", "problems.csv": "only after"}


def test_a_renamed_file(before, after, capsys):
    (after / EVALUATION).rename(after / "refinements/crf/masks.csv")
    assert len(differences(before, after)) == 2
    assert main([str(before), str(after), "--rename", "crf/evaluation=crf/masks"]) == 0


def test_label_pictures_become_records(before, after):
    folder, path = before / "refinements/irn/labels/00-of-01", after / "refinements/irn/labels/00-of-01.h5"
    folder.mkdir(parents=True)
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.attrs["kind"] = "labels"
        for image_id in ("2007_1", "a/b.jpg"):
            write_mask(folder / mask_name(image_id), LABELS)
            group = file.create_group(group_name(image_id))
            group.attrs["id"] = image_id
            group["labels"] = LABELS
    assert not differences(before, after)

    with h5py.File(path, "r+") as file:
        file[group_name("a/b.jpg")]["labels"][0, 0] = 255
    changed = differences(before, after)["refinements/irn/labels/00-of-01.h5"]
    assert changed.startswith("1 of 24 pixels differ, by up to 255, in 1 of 2 images (a%2Fb.jpg.png labels)")

    with h5py.File(path, "r+") as file:
        del file["2007_1"]
    changed = differences(before, after)["refinements/irn/labels/00-of-01.h5"]
    assert "in 2 of 2 images" in changed


def test_a_damaged_file_differs(before, after):
    for name in (MASK, MAPS, MODEL, "seeds/cam/threshold.json"):
        (after / name).write_bytes(b"{")
    changed = differences(before, after)
    assert len(changed) == 4 and all(words.startswith("cannot be compared") for words in changed.values())


@pytest.mark.parametrize("arguments", (["--rename", "labels"], ["--rename", "=x"], ["--tolerance", "-1"]))
def test_misuse(before, after, arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([str(before), str(after), *arguments])
    assert exit_.value.code == 2


def test_folders_without_a_run(before, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folders in ((before, tmp_path / "nowhere"), (tmp_path / "empty", tmp_path / "empty")):
        with pytest.raises(SystemExit) as exit_:
            main([str(folder) for folder in folders])
        assert exit_.value.code == 2


def test_two_files_renamed_to_one(before, after, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([str(before), str(after), "--rename", f"{EVALUATION}={RESULTS}"])
    assert exit_.value.code == 2 and "both are renamed to" in capsys.readouterr().err
