"""Several data sets as one: classes by name, what is unknown, ids, masks, and what losses and scores make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wsss_core.check import look_ahead
from wsss_core.classify.tag_scores import Tried, by_domain, tag_scores
from wsss_core.config import load, step_json
from wsss_core.data.augment import tag_loss, tags_of
from wsss_core.data.listing import listing_digest
from wsss_core.data.missing import true_labels
from wsss_core.data.table import ImageRecord, read_manifest, read_table
from wsss_core.errors import UserError
from wsss_core.evaluate.tables import read_rows_of_domains
from wsss_core.execution import Execution
from wsss_core.seeds.pool import AuxiliaryPool
from wsss_core.segment.batches import known_logits
from wsss_core.segment.samples import Sample, checked
from wsss_core.steps import evaluation, index
from wsss_core.store.cut import Cut, write_about
from wsss_core.store.masks import mask_name, read_mask, write_mask

PETS = {"a": ("cat", 1), "b": ("dog", 2), "x": ("", 0), "v": ("cat dog", 1)}
FARM = {"x": ("cow", 1), "y": ("cow dog", 2), "z": ("dog", 2), "w": ("cow", 1)}


def write_part(root: Path, images: dict[str, tuple[str, int]], val: str) -> None:
    """Photos of 20 x 30, each with a mask that holds one label in its upper left."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["image,labels,split"]
    for number, (name, (labels, label)) in enumerate(images.items()):
        Image.new("RGB", (30, 20), (number * 40, len(root.name) * 20, 90)).save(root / "images" / f"{name}.png")
        mask = np.zeros((20, 30), np.uint8)
        mask[:8, :9] = label
        mask[19] = 255
        write_mask(root / "masks" / f"{name}.png", mask)
        rows.append(f"{name}.png,{labels},{'val' if name == val else 'train'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def dataset(folder: Path, **more: object) -> dict:
    pets = {"domain": "pets", "format": "table", "root": str(folder / "pets"), "masks": "masks"}
    farm = {"domain": "farm", "format": "table", "root": str(folder / "farm"), "masks": "masks"} | more
    return {"format": "parts", "parts": [pets, farm]}


def configured(given: dict) -> dict:
    return {"run": "r", "dataset": given, "classifiers": {"bce": {"objective": "bce", "backbone": "small"}}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_part(tmp_path / "pets", PETS, "v")
    write_part(tmp_path / "farm", FARM, "w")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def indexed(given: dict) -> Path:
    """The run's folder after the step `index`."""
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "index.json").write_text(step_json(load(configured(given)), "dataset", "index"))
    paths = {name: out / name for name in ("shards", "drawn")}
    files = {"table": out / "images.csv", "problems": out / "problems.csv", "cache": out / "cache.json"}
    index.run(config=out / "index.json", **paths, **files, execution=Execution())
    return out


def test_classes_are_matched_by_name_and_what_a_part_was_not_annotated_for_is_unknown(folder: Path) -> None:
    table = read_table(indexed(dataset(folder)) / "images.csv")
    assert table.class_names == ("cat", "dog", "cow") and table.domains == ("farm", "pets")
    found = {r.id: (r.domain, r.classes, r.unknown) for r in table.records}
    assert found == {
        "a": ("pets", (0,), (2,)),
        "b": ("pets", (1,), (2,)),
        "x": ("pets", (), (2,)),
        "v": ("pets", (0, 1), (2,)),
        "farm/x": ("farm", (2,), (0,)),
        "y": ("farm", (1, 2), (0,)),
        "z": ("farm", (1,), (0,)),
        "w": ("farm", (2,), (0,)),
    }


def test_a_tag_counts_where_its_class_is_not_annotated_throughout(folder: Path) -> None:
    table = read_table(indexed(dataset(folder, annotated=["cow", "cat"])) / "images.csv")
    unknown = {r.id: r.unknown for r in table.records if r.domain == "farm"}
    assert unknown == {"farm/x": (1,), "y": (), "z": (), "w": (1,)}


def test_masks_are_renumbered_and_kept_while_they_are_as_they_were(folder: Path) -> None:
    out = indexed(dataset(folder))
    first = {r.id: r for r in read_table(out / "images.csv").records}
    assert first["a"].mask == str(folder / "pets/masks/a.png")  # its labels are those of all
    assert np.unique(read_mask(Path(first["y"].mask))).tolist() == [0, 2, 255]  # dog
    assert np.unique(read_mask(Path(first["w"].mask))).tolist() == [0, 3, 255]  # cow
    assert first["y"].mask.startswith("out/drawn/farm/labels")
    made = Path(first["y"].mask).stat().st_mtime_ns
    indexed(dataset(folder))
    assert Path(first["y"].mask).stat().st_mtime_ns == made
    mask = np.zeros((20, 30), np.uint8)
    mask[:4] = 1
    write_mask(folder / "farm/masks/y.png", mask)
    indexed(dataset(folder))
    assert np.unique(read_mask(Path(first["y"].mask))).tolist() == [0, 3]


def test_a_mask_with_a_label_that_its_part_has_not_is_refused_though_the_others_have_it(folder: Path) -> None:
    write_mask(folder / "farm/masks/w.png", np.full((20, 30), 3, np.uint8))
    with pytest.raises(UserError, match=r"mask holds the values \[3\], allowed are 0..2"):
        indexed(dataset(folder))


def test_the_table_and_the_shards_are_read_as_they_were_written(folder: Path) -> None:
    out = indexed(dataset(folder))
    table = read_table(out / "images.csv")
    shards = [read_manifest(path) for split in ("train", "val") for path in (out / "shards" / split).glob("*.json")]
    held = {record.id: record for shard in shards for record in shard.records}
    assert {i: (r.domain, r.unknown) for i, r in held.items()} == {r.id: (r.domain, r.unknown) for r in table.records}


def test_a_change_in_one_part_changes_the_listing_and_no_image_of_the_other_is_opened(folder: Path) -> None:
    given = load(configured(dataset(folder))).dataset
    before = listing_digest(given)
    out = indexed(dataset(folder))
    known = json.loads((out / "cache.json").read_text())["image"]
    Image.new("RGB", (30, 20), (1, 2, 3)).save(folder / "farm/images/z.png")
    assert listing_digest(given) != before
    indexed(dataset(folder))
    now = json.loads((out / "cache.json").read_text())["image"]
    assert [Path(path).name for path in now if now[path] != known[path]] == ["z.png"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"domain": "pets"}, "'pets' is the name of another part"),
        ({"domain": "a/b"}, "allowed"),
        ({"rot": "x"}, "unknown key"),
        ({"shard_size": 3}, "unknown key"),
        ({"format": "parts"}, "not allowed"),
        ({"separator": ""}, "not allowed"),
    ],
)
def test_mistakes_in_a_part_are_told_by_its_key(folder: Path, change: dict, text: str) -> None:
    with pytest.raises(UserError, match=r"dataset\.parts\[1\]") as caught:
        load(configured(dataset(folder, **change)))
    assert text in str(caught.value)


def test_names_that_differ_by_their_writing_and_classes_that_there_are_not_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="annotated: there is no class 'cwo'"):
        (folder / "names.txt").write_text("cat\ndog\ncow\n")
        indexed(dataset(folder, annotated=["cwo"]) | {"classes": "names.txt"})
    (folder / "farm/labels.csv").write_text("image,labels,split\nx.png,Dog,train\n")
    with pytest.raises(UserError, match="'Dog' and 'dog' differ by their writing alone"):
        indexed(dataset(folder))


def test_classes_that_a_list_leaves_out_are_background(folder: Path) -> None:
    (folder / "names.txt").write_text("cat\ndog\n")
    table = read_table(indexed(dataset(folder) | {"classes": "names.txt"}) / "images.csv")
    cow = next(r for r in table.records if r.id == "w")
    assert cow.classes == () and np.unique(read_mask(Path(cow.mask))).tolist() == [0, 255]


def test_check_tells_of_every_part_its_classes_and_counts(folder: Path) -> None:
    text = "\n".join(look_ahead(load(configured(dataset(folder)))))
    assert "3 classes: cat, dog, cow" in text
    assert "farm: table data, annotated for 2 of 3 classes; unknown there: cat" in text
    assert "pets: 3 images for training: cat 1, dog 1" in text
    assert "farm: 3 images for training: cow 2, dog 2" in text


def test_a_part_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "farm/labels.csv").unlink()
    with pytest.raises(UserError, match="data set 'farm': dataset.labels: there is no file"):
        indexed(dataset(folder))


def record(tags: tuple[int, ...], unknown: tuple[int, ...]) -> ImageRecord:
    return ImageRecord("i", "i.png", 20, 30, ("train",), tags, unknown=unknown)


def test_the_loss_of_tags_is_the_mean_over_those_that_are_known() -> None:
    tags = tags_of([record((0,), (2,)), record((), (0, 1)), record((1,), ())], 3)
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    by_hand = []
    for n, row in enumerate([[1, 0, None], [None, None, 0], [0, 1, 0]]):
        for c, tag in enumerate(row):
            if tag is not None:
                p = torch.sigmoid(logits[n, c])
                by_hand.append(-torch.log(p if tag else 1 - p))
    loss = tag_loss(logits, tags)
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    loss.backward()
    assert (logits.grad[tags.isnan()] == 0).all() and (logits.grad[~tags.isnan()] != 0).all()


def test_with_all_tags_known_the_loss_is_the_usual_one() -> None:
    tags, logits = tags_of([record((0,), ()), record((), ())], 2), torch.tensor([[1.0, -2.0], [0.3, 4.0]])
    torch.testing.assert_close(tag_loss(logits, tags), F.binary_cross_entropy_with_logits(logits, tags))


def test_background_may_be_an_unknown_class_and_other_labels_keep_their_probability() -> None:
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    unknown = torch.tensor([[False, True, False, True], [False] * 4])
    before, after = logits.softmax(1), known_logits(logits, unknown).softmax(1)
    torch.testing.assert_close(after[0, 0], before[0, 0] + before[0, 1] + before[0, 3])
    torch.testing.assert_close(after[0, 2], before[0, 2])
    assert (after[0, [1, 3]] == 0).all()
    torch.testing.assert_close(after[1], before[1])


def test_no_gradient_falls_on_unknown_classes_beside_background_and_none_is_nan() -> None:
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    merged = known_logits(logits, torch.tensor([[False, True, False]]))
    F.cross_entropy(merged, torch.zeros(1, 1, 1, dtype=torch.long)).backward()
    background, unknown, known = logits.grad.flatten().tolist()
    assert background < 0 and unknown < 0 < known  # both explain the background; the third does not


def test_a_class_that_a_mask_shows_is_known_there(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.array([[0, 1], [3, 255]], np.uint8))
    (sample,), _ = checked([Sample(tmp_path / "i", tmp_path / "m.png", (2, 2), (0,), (1, 2))], ["a", "b", "c"])
    assert sample.unknown == (1,)


def test_background_of_a_part_that_lacks_classes_is_not_scored(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.zeros((20, 30), np.uint8))
    one = replace(record((0,), (1,)), mask=str(tmp_path / "m.png"))
    assert (true_labels(one, 3) == 255).all() and (true_labels(replace(one, unknown=()), 3) == 0).all()


def test_scores_are_told_by_data_set(folder: Path) -> None:
    out = indexed(dataset(folder, annotated=["cat", "dog", "cow"]))
    manifests = list((out / "shards/train").glob("*.json"))
    (masks := folder / "made").mkdir()
    for image in (r for path in manifests for r in read_manifest(path).records):
        labels = read_mask(Path(image.mask)) if image.domain == "farm" else np.zeros((20, 30), np.uint8)
        write_mask(masks / mask_name(image.id), labels)
    write_about(masks, Cut("none"))
    configuration = load(
        configured(dataset(folder))
        | {
            "seeds": {"cam": {"method": "cam", "classifier": "bce"}},
            "refinements": {"m": {"method": "crf", "seed": "cam"}},
        }
    )
    (folder / "e.json").write_text(step_json(configuration, "refinements/m", "evaluation"))
    evaluation.run(
        config=folder / "e.json",
        manifests=manifests,
        masks=[masks],
        evaluation=folder / "e.csv",
        domains=folder / "d.csv",
        execution=Execution(),
    )
    rows = read_rows_of_domains(folder / "d.csv")
    assert list(rows) == ["farm", "pets"]
    assert rows["farm"]["mean"]["iou"] == 1 and rows["pets"]["cat"]["iou"] == 0
    # pets: 3 images without cow annotated, so that nothing but the two objects of 72 pixels is scored
    assert rows["pets"]["mean"]["pixels"] == 2 * 72


def test_the_tags_of_a_classifier_are_scored_where_they_are_known_and_by_data_set() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 2)).astype(np.float32)
    tried = Tried(logits, logits, logits)
    labels = (logits > 0).astype(np.float32)
    labels[:20, 1] = np.nan
    logits[:20, 1] = -logits[:20, 1]  # as wrong as can be, where nobody knows
    names, domains = ["a", "b"], np.array(["one"] * 20 + ["two"] * 20)
    found = tag_scores(tried, labels, names, np.arange(40) % 5)
    assert found["b"]["images"] == int((labels[20:, 1] == 1).sum()) and found["b"]["precision"] == 1
    told = by_domain(tried, labels, names, domains)
    assert told["one"]["images"] == 20 and told["one"]["precision"] == told["two"]["precision"] == 1


def test_photos_of_which_a_class_is_unknown_are_no_background_photos_of_the_pool(tmp_path: Path) -> None:
    records = []
    for number, (tags, unknown) in enumerate([((1,), ()), ((1,), (0,)), ((0,), ()), ((), ())]):
        Image.new("RGB", (30, 20)).save(tmp_path / f"{number}.png")
        path = str(tmp_path / f"{number}.png")
        records.append(ImageRecord(str(number), path, 20, 30, ("train",), tags, unknown=unknown))
    pool = AuxiliaryPool(
        records, 2, eligible="disjoint", batch_size=2, long_side=(32, 32), crop=32, seed=0, stage="seeds/rib"
    )
    assert sorted(pool.order("2", (0,)).tolist()) == [0, 3]
