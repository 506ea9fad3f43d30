"""The step that makes masks, with every refinement: how it says they are cut, and in how many processes it works."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import make_masks, write_scene
from wsss_core.boxes.merge import MergeSettings
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.kernels.dense_crf import PIXELS
from wsss_core.models.deeplab import DeepLabV2, deeplab_v2
from wsss_core.refine import MaskInputs, affinity, fill
from wsss_core.refine.corrected import CorrectedSettings
from wsss_core.refine.crf import CrfSettings
from wsss_core.refine.fill import FillSettings
from wsss_core.refine.marks import MarksSettings
from wsss_core.refine.mixed import MixedSettings
from wsss_core.refine.par import ParSettings
from wsss_core.refine.psa.masks import MasksSettings
from wsss_core.refine.saliency import SaliencySettings
from wsss_core.refine.seed_threshold import SeedThresholdSettings
from wsss_core.refine.threshold import ThresholdSettings
from wsss_core.refine.walk_crf import WalkCrfSettings
from wsss_core.registry import METHODS, imported
from wsss_core.steps import masks
from wsss_core.store import shards
from wsss_core.store.checkpoints import save_network
from wsss_core.store.cut import Cut, read_about, write_about
from wsss_core.store.instances import INSTANCES, Instances
from wsss_core.store.masks import mask_name, read_mask, write_mask
from wsss_core.store.scores import SCORES, ScoreMaps
from wsss_core.store.seeds import SeedMaps

CLASSES = ("round", "long/thin")
SIZES = ((30, 41), (36, 33), (30, 41), (24, 24))
START = Cut("band", band=(0.2, 0.3), crf="once", notes=("first",))
CHOSEN = {"rule": "heldout", "value": 0.4, "oracle": {"value": 0.35, "miou": 0.5}}

CASES: list[tuple[str, Any, tuple[str, ...], Cut]] = [
    (
        "crf",
        CrfSettings(threshold="score", iterations=2),
        ("maps", "threshold"),
        Cut("heldout", 0.4, from_maps=True, crf="2 iterations, unary: label"),
    ),
    ("crf", CrfSettings(unary="soft"), ("maps",), Cut("fixed", 0.3, crf="10 iterations, unary: soft")),
    ("seed_threshold", SeedThresholdSettings(), ("maps", "threshold"), Cut("heldout", 0.4, from_maps=True)),
    ("seed_threshold", SeedThresholdSettings(band=(0.3, 0.6)), ("maps",), Cut("band", band=(0.3, 0.6))),
    ("irn", ThresholdSettings(), ("scores",), Cut("fixed", 0.27)),
    ("threshold", ThresholdSettings(threshold="oracle"), ("scores", "threshold"), Cut("oracle", 0.35)),
    ("threshold", ThresholdSettings(band=(0.3, 0.6)), ("scores",), Cut("band", band=(0.3, 0.6))),
    ("psa", MasksSettings(), ("scores",), Cut("fixed", 0.5)),
    (
        "walk_crf",
        WalkCrfSettings(iterations=2),
        ("scores", "threshold"),
        Cut("heldout", 0.4, from_maps=True, crf="2 iterations, unary: label"),
    ),
    ("crf", CrfSettings(threshold="otsu"), ("maps",), Cut("otsu", crf="10 iterations, unary: label")),
    ("seed_threshold", SeedThresholdSettings(threshold="otsu"), ("maps",), Cut("otsu")),
    ("irn_pretrained", ThresholdSettings(), ("scores",), Cut("fixed", 0.27)),
    ("psa_pretrained", MasksSettings(), ("scores",), Cut("fixed", 0.5)),
    ("affinity", affinity.MasksSettings(), ("scores",), Cut("otsu")),
    ("irn", ThresholdSettings(threshold="otsu"), ("scores",), Cut("otsu")),
    ("psa", MasksSettings(threshold="otsu"), ("scores",), Cut("otsu")),
    (
        "saliency",
        SaliencySettings(folder="saliency", threshold=9),
        ("start",),
        START.noting("pixels that disagree with saliency masks (salient from 9) are undecided"),
    ),
    ("corrected", CorrectedSettings(folder="corrected"), ("start",), START.noting("some masks are corrected by hand")),
    ("marks", MarksSettings(folder="corrected"), ("start",), START.noting("marks by hand")),
    (
        "par",
        ParSettings(threshold="otsu", iterations=2),
        ("maps",),
        Cut("otsu", notes=("pixel-adaptive refinement (2 iterations)",)),
    ),
    (
        "fill",
        FillSettings(),
        ("start", "model"),
        Cut("none", crf="once", notes=("first", "undecided pixels hold a network's predictions")),
    ),
    ("instances", MergeSettings(), ("instances",), Cut("none", notes=("objects in other boxes: win",))),
    (
        "mixed",
        MixedSettings(),
        ("start", "otherwise"),
        Cut("none", notes=("the first source where it is decided, else the second",)),
    ),
]
"""Refinements, their settings, what they are made from, and what they say of their masks."""

FILES = {
    "maps": "seeds.h5",
    "scores": "scores.h5",
    "start": "start",
    "model": "segmentation.pt",
    "threshold": "threshold.json",
    "instances": "objects.h5",
    "otherwise": "decided",
}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Four images of one or two classes, the last of none, with random maps, scores, masks and saliency masks."""
    rng = np.random.default_rng(0)
    records, maps, scores, objects = [], {}, {}, {}
    for number, (size, classes) in enumerate(zip(SIZES, ((0,), (0, 1), (1,), ()), strict=True)):
        name, file = f"a/{number}", tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)
        records.append(ImageRecord(name, str(file), *size, ("train",), classes, digest=str(number)))
        grid = torch.from_numpy(rng.random((3, -(-size[0] // 8), -(-size[1] // 8)), dtype=np.float32))
        maps[name] = SeedMaps(classes, {1.0: grid[: len(classes)]} if classes else {}, size)
        scores[name] = ScoreMaps(classes, grid[: len(classes)], size, 8, grid[2])
        labels = rng.choice([0, *(c + 1 for c in classes), 255], size).astype(np.uint8)
        write_mask(tmp_path / "start" / mask_name(name), labels)
        write_mask(tmp_path / "saliency" / mask_name(name), rng.integers(0, 18, size))
        decided = rng.choice([0, *(c + 1 for c in classes)], size).astype(np.uint8)
        write_mask(tmp_path / "decided" / mask_name(name), decided)
        if number == 1:
            write_mask(tmp_path / "corrected" / mask_name(name), decided)
        whole = [[0, 0, size[1], size[0]]] * len(classes)
        objects[name] = Instances.of(size, classes, whole, [decided == c + 1 for c in classes])
    write_about(tmp_path / "start", START)
    write_scene(tmp_path, CLASSES, records, maps)
    attrs = {"class_names": list(CLASSES)}
    given = (dict.fromkeys(scores, "1"), scores.__getitem__, attrs)
    shards.build(tmp_path / "scores.h5", SCORES, *given, cache=tmp_path / "scores.cache.h5")
    given = (dict.fromkeys(objects, "1"), objects.__getitem__, attrs)
    shards.build(tmp_path / "objects.h5", INSTANCES, *given, cache=tmp_path / "objects.cache.h5")
    (tmp_path / "threshold.json").write_text(json.dumps(CHOSEN))
    torch.manual_seed(0)
    built = {"rates": (1,), "output_stride": 16, "msc_scales": (), "variant": "paper"}
    network = deeplab_v2("small", len(CLASSES) + 1, *built.values())
    meta = network.about | attrs | {"settings": built}
    save_network(tmp_path / "segmentation.pt", DeepLabV2.kind, network.state_dict(), meta)
    return tmp_path


def make(folder: Path, method: str, settings: Any, given: tuple[str, ...], name: str = "masks", **options) -> Path:
    if method in ("saliency", "corrected", "marks"):
        settings = replace(settings, folder=str(folder / settings.folder))
    paths = {what: folder / FILES[what] for what in given}
    return make_masks(folder, method, settings, name=name, **paths, **options)


def test_every_refinement_is_tried():
    """But for that whose masks are given and not made (tests/test_truth.py), and SAM (tests/test_sam.py)."""
    assert {method for method, *_ in CASES} == set(METHODS["refinements"]) - {"truth", "sam"}


@pytest.mark.parametrize(("method", "settings", "given", "cut"), CASES)
def test_what_makes_masks_says_how_they_are_cut(tmp_path, monkeypatch, method, settings, given, cut):
    """And how many pixels it works on together: without a GPU one image, on one only the CRF gains by more."""
    monkeypatch.chdir(tmp_path)
    Path("saliency").mkdir()
    Path("corrected").mkdir()
    Path("corrected/a.png").touch()
    start = {"masks": pytest.fail, "otherwise": pytest.fail, "cut": START, "model": Path("segmentation.pt")}
    monkeypatch.setattr(fill, "load_segmenter", lambda path, device: SimpleNamespace(class_names=CLASSES))
    maker = imported(f"{METHODS['refinements'][method].steps['masks'].module}:maker")
    for device, pixels in (("cpu", 0), ("cuda", PIXELS if method in ("crf", "walk_crf") else 0)):
        made = maker(settings, MaskInputs(CLASSES, torch.device(device), chosen=CHOSEN, **start))
        assert made.cut == cut and made.pixels == pixels


@pytest.mark.parametrize(("method", "settings", "given", "cut"), CASES)
def test_processes_write_the_same_bytes(scene, monkeypatch, method, settings, given, cut):
    alone, started, spread = make(scene, method, settings, given, "alone"), [], masks.in_processes
    monkeypatch.setattr(masks, "in_processes", lambda count, *rest: started.append(count) or spread(count, *rest))
    again = make(scene, method, settings, given, "again", execution=Execution("cpu", threads=2))
    assert started == [2]
    written = {path.name: path.read_bytes() for path in alone.iterdir()}
    assert written == {path.name: path.read_bytes() for path in again.iterdir()} and len(written) == 5
    assert read_about(alone) == cut
    labels = [read_mask(alone / mask_name(f"a/{number}"), size, 3) for number, size in enumerate(SIZES)]
    undecided = cut.rule == "band"
    assert set(np.unique(np.concatenate([one.ravel() for one in labels]))) == {0, 1, 2} | (
        {255} if undecided else set()
    )
    assert set(np.unique(labels[0])) == {0, 1} | ({255} if undecided else set())


def test_a_mistake_in_a_process_is_told_as_one_in_this(scene):
    (scene / "saliency" / mask_name("a/1")).unlink()
    settings = SaliencySettings(folder="saliency")
    for threads in (1, 2):
        with pytest.raises(UserError, match="no mask of image 'a/1'"):
            make(scene, "saliency", settings, ("start",), execution=Execution("cpu", threads=threads))
        assert not (scene / "masks").exists()


def test_a_gpu_is_used_by_one_process(scene, monkeypatch):
    """However many threads it has: each process would hold a network of its own there."""
    load, devices = fill.load_segmenter, []
    monkeypatch.setattr(fill, "load_segmenter", lambda path, device: devices.append(device.type) or load(path))
    monkeypatch.setattr(masks, "in_processes", lambda *given, **options: pytest.fail("another process"))
    found = make(scene, "fill", FillSettings(), ("start", "model"), execution=Execution("cuda", threads=4))
    assert devices == ["cuda"] and read_mask(found / mask_name("a/0"), SIZES[0], 3).max() < 255


def test_what_masks_start_from_must_be_whole(scene):
    (scene / "start" / mask_name("a/1")).unlink()
    with pytest.raises(UserError, match="a%2F1.png: mask cannot be read"):
        make(scene, "fill", FillSettings(), ("start", "model"))
    (scene / "start" / "about.json").unlink()
    with pytest.raises(UserError, match="does not say how the masks were cut"):
        make(scene, "fill", FillSettings(), ("start", "model"))
