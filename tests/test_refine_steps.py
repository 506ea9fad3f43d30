"""The steps of refinements on a handful of images: files in, files out."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scenes import Killed, make_masks, write_scene, write_step
from wsss_core.cli import main
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.errors import UserError
from wsss_core.execution import Execution
from wsss_core.jobs import from_maps
from wsss_core.refine import fill
from wsss_core.refine.crf import CrfSettings
from wsss_core.refine.fill import FillSettings, fill_undecided
from wsss_core.refine.irn import labels as irn_labels
from wsss_core.refine.irn import walk as irn_walk
from wsss_core.refine.irn.network import TrainSettings
from wsss_core.refine.irn.walk import WalkSettings
from wsss_core.refine.psa import labels as psa_labels
from wsss_core.refine.threshold import ThresholdSettings
from wsss_core.steps import labels, train, walk
from wsss_core.store import checkpoints, shards
from wsss_core.store.cut import Cut, read_about, write_about
from wsss_core.store.labels import LABELS, LabelMap
from wsss_core.store.masks import mask_name, read_mask, write_mask
from wsss_core.store.scores import SCORES
from wsss_core.store.seeds import SeedMaps
from wsss_core.store.shards import RecordStore

CLASSES = ("round", "long/thin")
CPU = Execution(device="cpu")


@pytest.fixture
def data(tmp_path):
    """Six images with a bright square of class 0 or 1, the last without any; seed maps that find part of it."""
    rng = np.random.default_rng(0)
    records, maps = [], {}
    for i in range(6):
        height, width = 48 + 4 * (i % 2), 65
        pixels = rng.integers(0, 20, (height, width, 3), dtype=np.uint8)
        classes = (i % 2,) if i < 5 else ()
        if classes:
            pixels[10:34, 20:50] = rng.integers(200, 220, (24, 30, 3), dtype=np.uint8)
        name = f"folder/image {i}.png"
        file = tmp_path / f"{i}.png"
        Image.fromarray(pixels).save(file)
        records.append(ImageRecord(name, str(file), height, width, ("train", "score"), classes, digest=str(i)))
        seed = torch.zeros(len(classes), height, width)
        seed[:, 11:33, 22:48] = 1.0
        maps[name] = SeedMaps(classes, {1.0: seed} if classes else {}, (height, width))
    return tmp_path, write_scene(tmp_path, CLASSES, records, maps)


def make_network(folder, settings=None, name="irn", **changes):
    settings = settings or TrainSettings(radius=4, crop=64, batch_size=2, epochs=2)
    arguments = {
        "config": write_step(folder / f"{name}.json", "refinements/x", "irn", "train", settings),
        "table": folder / "images.csv",
        "labels": [folder / "labels.h5"],
        "classifier": folder / "classifier.pt",
        "ood": None,
        "model": folder / f"{name}.pt",
        "state": folder / f"{name}.state",
        "history": folder / f"{name}.csv",
        "execution": CPU,
    }
    train.run(**arguments | changes)
    return folder / f"{name}.pt"


def make_labels(folder, method="irn", **changes):
    settings = {"bilateral": (30.0, 20.0, 10.0)}
    arguments = {
        "config": write_step(folder / "labels.json", "refinements/x", method, "labels", settings),
        "manifest": folder / "shard.json",
        "maps": folder / "seeds.h5",
        "labels": folder / "labels.h5",
        "cache": folder / "labels.cache.h5",
        "execution": CPU,
    }
    labels.run(**arguments | changes)
    return folder / "labels.h5"


def make_scores(folder, model, **changes):
    arguments = {
        "config": write_step(folder / "walk.json", "refinements/x", "irn", "walk", WalkSettings(log2_steps=4)),
        "manifest": folder / "shard.json",
        "maps": folder / "seeds.h5",
        "model": model,
        "scores": folder / "scores.h5",
        "cache": folder / "scores.cache.h5",
        "execution": CPU,
    }
    walk.run(**arguments | changes)
    return (arguments | changes)["scores"]


def test_images_of_a_size_walk_together_on_a_gpu(data, monkeypatch):
    folder, table = data
    make_labels(folder)
    model = make_network(folder)
    alone = dict(RecordStore(make_scores(folder, model), SCORES))
    sizes, together = [], irn_walk.walk
    monkeypatch.setattr(walk, "view_pixels", lambda device: 2**20)
    monkeypatch.setattr(
        irn_walk, "walk", lambda net, images, *rest: sizes.append(len(images)) or together(net, images, *rest)
    )
    file = make_scores(folder, model, scores=folder / "together.h5", cache=folder / "together.cache.h5")
    found = RecordStore(file, SCORES)
    assert max(sizes) > 1 and sum(sizes) == sum(bool(record.classes) for record in table.records)
    assert list(found) == list(alone)
    for image_id, record in alone.items():
        assert found[image_id].classes == record.classes
        torch.testing.assert_close(found[image_id].scores, record.scores, atol=1e-5, rtol=1e-5)


def test_crf_masks(data):
    folder, table = data
    threshold = folder / "threshold.json"
    threshold.write_text(json.dumps({"rule": "fixed", "value": 0.4}))
    settings = CrfSettings(threshold="score", bilateral=(30.0, 20.0, 10.0))
    make_masks(folder, "crf", settings, name="crf", maps=folder / "seeds.h5", threshold=threshold)
    for record in table.records:
        mask = read_mask(folder / "crf" / mask_name(record.id), record.size, 3)
        if record.classes:
            truth = np.zeros(record.size, bool)
            truth[10:34, 20:50] = True
            assert ((mask == record.classes[0] + 1) == truth).mean() > 0.99
        else:
            assert not mask.any()
    cut = read_about(folder / "crf")
    assert cut == Cut("fixed", 0.4, from_maps=True, crf=cut.crf) and "iterations" in cut.crf
    with pytest.raises(UserError, match="no threshold file"):
        make_masks(folder, "crf", settings, name="crf", maps=folder / "seeds.h5")


@pytest.mark.parametrize(("method", "module"), [("irn", irn_labels), ("psa", psa_labels)])
def test_labels_resume_image_by_image(data, method, module, monkeypatch, caplog):
    folder, table = data
    whole = make_labels(folder, method, cache=folder / "whole.cache.h5").read_bytes()
    asked, original = [], module.labels
    monkeypatch.setattr(from_maps, "build", partial(shards.build, save_seconds=0))

    def killed(image, maps, settings):
        if len(asked) == 3:
            raise Killed
        asked.append(image)
        return original(image, maps, settings)

    monkeypatch.setattr(module, "labels", killed)
    with pytest.raises(Killed):
        make_labels(folder, method)
    monkeypatch.setattr(module, "labels", lambda *given: asked.append(given) or original(*given))
    assert make_labels(folder, method).read_bytes() == whole and len(asked) == 6

    caplog.set_level("INFO")
    changed = (replace(table.records[0], digest="other"), *table.records[1:])
    write_manifest(folder / "changed.json", CLASSES, changed)
    make_labels(folder, method, manifest=folder / "changed.json")
    assert "6 records, 5 reused" in caplog.text and len(asked) == 7


def test_the_irn_path(data):
    folder, table = data
    found = RecordStore(make_labels(folder), LABELS)
    assert list(found) == [record.id for record in table.records] and found.attrs["class_names"] == list(CLASSES)
    first = found[table.records[0].id]
    assert first.size == (48, 65) and first.values[20, 30] == 1 and first.values[2, 2] == 0
    assert not found[table.records[5].id].values.any()
    model = make_network(folder)
    assert not (folder / "irn.state").exists() and "loss" in (folder / "irn.csv").read_text()
    state, meta = checkpoints.load_network(model, "irn")
    assert meta["backbone"] == "small" and meta["class_names"] == list(CLASSES)
    assert state["mean_shift"].abs().max() > 0
    again, _ = checkpoints.load_network(make_network(folder, name="again"), "irn")
    assert all(torch.equal(again[key], value) for key, value in state.items())
    scores = RecordStore(make_scores(folder, model), SCORES)
    assert list(scores) == [record.id for record in table.records]
    maps = scores[table.records[0].id]
    assert maps.scores.shape == (1, 12, 17) and torch.isfinite(maps.scores).all() and maps.scores.max() > 0
    make_masks(folder, "irn", ThresholdSettings(band=(0.2, 0.6)), scores=folder / "scores.h5")
    found = {int(v) for r in table.records for v in np.unique(read_mask(folder / "masks" / mask_name(r.id), r.size, 3))}
    assert found == {0, 1, 2, 255}


def test_walks_are_reused_until_something_changes(data, caplog):
    folder, table = data
    make_labels(folder)
    model = make_network(folder)
    caplog.set_level("INFO")
    make_scores(folder, model)
    before = {name: maps.scores for name, maps in RecordStore(folder / "scores.h5", SCORES).items()}
    (folder / "scores.h5").unlink()
    after = RecordStore(make_scores(folder, model), SCORES)
    assert "6 records, 6 reused" in caplog.text
    assert all(torch.equal(after[name].scores, scores) for name, scores in before.items())
    caplog.clear()
    other = make_network(folder, TrainSettings(radius=4, crop=64, batch_size=2, epochs=1), name="other")
    make_scores(folder, other)
    assert "6 records, 0 reused" in caplog.text


def write_labels(folder: Path, values: dict[str, np.ndarray]) -> None:
    """Write ``labels.h5`` as the labels of IRN would be."""
    records, attrs = {image_id: LabelMap(array) for image_id, array in values.items()}, {"class_names": list(CLASSES)}
    cache = folder / "labels.cache.h5"
    cache.unlink(missing_ok=True)
    shards.build(folder / "labels.h5", LABELS, dict.fromkeys(values, "1"), records.__getitem__, attrs, cache=cache)


def test_mistakes_name_the_file(data):
    folder, table = data
    with pytest.raises(UserError, match="6 images have no confident labels, such as 'folder/image 0.png'"):
        make_network(folder, labels=[])
    with pytest.raises(UserError, match="labels.h5: there is no such file"):
        make_network(folder)
    make_labels(folder)
    with pytest.raises(UserError, match="none was given"):
        make_network(folder, classifier=None)
    with pytest.raises(UserError, match="has the backbone small, not mobilenet_v2"):
        make_network(folder, TrainSettings(backbone="mobilenet_v2"))
    with pytest.raises(UserError, match="network.crop: 64 holds no pairs of radius 10; at least 80"):
        make_network(folder, TrainSettings(crop=64))
    with pytest.raises(UserError, match="holds seeds records, not labels"):
        make_network(folder, labels=[folder / "seeds.h5"])
    write_labels(folder, {record.id: np.zeros(record.size, np.uint8) for record in table.records})
    with pytest.raises(UserError, match="hold no foreground: lower labels.foreground"):
        make_network(folder)
    write_labels(folder, {record.id: np.ones(record.size, np.uint8) for record in table.records})
    with pytest.raises(UserError, match="hold no background: raise labels.background"):
        make_network(folder)
    write_labels(folder, {record.id: np.ones((9, 8), np.uint8) for record in table.records})
    with pytest.raises(UserError, match=r"labels are for \(9, 8\)"):
        make_network(folder)
    write_manifest(folder / "other.json", CLASSES[::-1], table.records)
    with pytest.raises(UserError, match="seeds.h5: its class list differs"):
        make_scores(folder, folder / "irn.pt", manifest=folder / "other.json")
    more = ImageRecord("new", "new.png", 4, 4, ("train",), ())
    write_manifest(folder / "more.json", CLASSES, (*table.records, more))
    with pytest.raises(UserError, match="holds nothing of 1 images of the shard, such as 'new'"):
        make_scores(folder, folder / "irn.pt", manifest=folder / "more.json")


def test_export_gathers_the_masks_of_the_shards_there_are(tmp_path, capsys):
    """Beside them may lie those of an earlier dealing of the images, and what a killed job left."""
    masks = tmp_path / "run" / "refinements" / "crf" / "masks"
    for place, label in {"00-of-02/a": 1, "01-of-02/b": 2, "00-of-04/a": 3, ".tmp-9-01-of-02/b": 3}.items():
        write_mask(masks / f"{place}.png", np.full((2, 2), label))

    def exported(name):
        assert main(["export", "--masks", str(masks), "--out", str(tmp_path / name)]) == 0
        return {path.name: int(read_mask(path)[0, 0]) for path in (tmp_path / name).iterdir()}

    assert exported("alone") == {"a.png": 3, "b.png": 2}
    for shard in ("00-of-02", "01-of-02"):
        write_manifest(tmp_path / "run" / "dataset" / "shards" / "train" / f"{shard}.json", CLASSES, [])
    assert exported("dealt") == {"a.png": 1, "b.png": 2}
    assert "2 masks in" in capsys.readouterr().out
    assert main(["export", "--masks", str(tmp_path), "--out", str(tmp_path / "x")]) == 2


def test_fill_keeps_decided_pixels():
    labels = np.array([[0, 255, 2, 255]], np.uint8)
    probabilities = np.array([[[0.5, 0.2, 0.5, 0.3]], [[0.1, 0.3, 0.1, 0.3]], [[0.4, 0.5, 0.4, 0.4]]])
    assert fill_undecided(labels, probabilities, (0,), True).tolist() == [[0, 1, 2, 0]]
    assert fill_undecided(labels, probabilities, (0,), False).tolist() == [[0, 2, 2, 2]]
    assert fill_undecided(labels, probabilities, (), True).tolist() == [[0, 0, 2, 0]]


def test_fill_masks(data, monkeypatch):
    folder, table = data
    write = folder / "undecided"
    for record in table.records:
        labels = np.zeros(record.size, np.uint8)
        labels[:20] = 255
        write_mask(write / mask_name(record.id), labels)
    write_about(write, Cut("band", band=(0.2, 0.3), crf="10 iterations", notes=("first",)))

    class Network:
        class_names = CLASSES

    def predict(network, image, settings):
        return np.stack([np.full(image.shape[:2], p) for p in (0.2, 0.3, 0.5)])

    monkeypatch.setattr(fill, "load_segmenter", lambda path, device: Network())
    monkeypatch.setattr(fill, "predict_probabilities", predict)
    make_masks(folder, "fill", FillSettings(), name="filled", start=write, model=folder / "model.pt")
    for record in table.records:
        mask = read_mask(folder / "filled" / mask_name(record.id), record.size, 3)
        assert (mask[:20] == (record.classes[0] + 1 if record.classes else 0)).all() and not mask[20:].any()
    cut = read_about(folder / "filled")
    assert cut == Cut("none", crf="10 iterations", notes=("first", cut.notes[1])) and "network" in cut.notes[1]
