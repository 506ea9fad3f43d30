"""Files that the program did not make are never replaced or deleted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.test_data_readers import by_id, coco_settings, read_coco, read_labels_of, save_image, save_text, texts
from tests.test_data_readers import coco_root as coco_root  # a fixture
from wsss_core import cli
from wsss_core.data import coco
from wsss_core.errors import UserError
from wsss_core.models.deeplab import deeplab_v2
from wsss_core.store.checkpoints import save_network
from wsss_core.store.masks import STAMP, copy_mask, read_mask, write_mask

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools.*")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hand_made(path: Path, labels: np.ndarray | None = None) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30), 7, np.uint8) if labels is None else labels).save(path)
    return path.read_bytes()


def test_own_masks_are_replaced(tmp_path):
    for value in (1, 2):
        write_mask(tmp_path / "m.png", np.full((4, 5), value))
    assert (read_mask(tmp_path / "m.png") == 2).all()


def drawn_by_hand(path: Path) -> None:
    hand_made(path)


def edited(path: Path) -> None:
    """Own pixels changed, and the texts kept, as some programs do."""
    write_mask(path, np.zeros((4, 5)))
    with Image.open(path) as image:
        texts, labels = dict(image.text), np.array(image)
    labels[0, 0] = 1
    info = PngInfo()
    info.add_text(STAMP, texts[STAMP])
    Image.fromarray(labels).save(path, pnginfo=info)


def no_image(path: Path) -> None:
    path.write_text("my notes")


def dead_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [drawn_by_hand, edited, no_image, dead_link])
def test_other_files_are_left_as_they_are(tmp_path, make):
    path = tmp_path / "m.png"
    make(path)
    before = files(tmp_path)
    with pytest.raises(UserError, match="m.png: is left as it is, since it was not made here"):
        write_mask(path, np.zeros((4, 5)))
    assert files(tmp_path) == before


def test_copies_replace_own_masks_and_themselves(tmp_path):
    write_mask(tmp_path / "a.png", np.zeros((4, 5)))
    write_mask(tmp_path / "b.png", np.ones((4, 5)))
    copy_mask(tmp_path / "a.png", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    content = hand_made(tmp_path / "old.png")
    copy_mask(tmp_path / "old.png", tmp_path / "new/old.png")
    copy_mask(tmp_path / "old.png", tmp_path / "new/old.png")
    with pytest.raises(UserError, match="left as it is"):
        copy_mask(tmp_path / "a.png", tmp_path / "new/old.png")
    assert (tmp_path / "new/old.png").read_bytes() == content


def test_coco_draws_over_nothing_in_the_data_folder(coco_root):
    for name in ("000000000001", "000000000002"):
        hand_made(coco_root / f"masks/{name}.png")
    before = files(coco_root)
    reading = read_coco(coco_root)
    assert {name: content for name, content in files(coco_root).items() if not name.startswith("drawn/")} == before
    assert all(Path(record.mask).parent == coco_root / "drawn" for record in reading.records)
    assert {record.mask for record in coco.read(coco_settings(coco_root)).records} == {""}, "no folder, no masks"
    taken = by_id(read_coco(coco_root, masks="masks"))
    assert (read_labels_of(taken["000000000001"]) == 7).all() and taken["000000000003"].mask == ""


def test_a_failing_draw_deletes_nothing_and_gives_no_mask(coco_root):
    read_coco(coco_root)
    content = json.loads((coco_root / "train.json").read_text())
    content["annotations"][0]["segmentation"] = {"counts": [0, 6], "size": [2, 3]}
    save_text(coco_root / "train.json", json.dumps(content))
    before = files(coco_root / "drawn")
    reading = read_coco(coco_root)
    assert by_id(reading)["000000000001"].mask == ""
    assert [text for text in texts(reading) if text.startswith("mask: 000000000001: ")]
    assert {name: c for name, c in files(coco_root / "drawn").items() if name.endswith("png")} == {
        name: c for name, c in before.items() if name.endswith("png")
    }


def test_a_drawn_mask_that_somebody_mended_stays(coco_root):
    read_coco(coco_root)
    mended = hand_made(coco_root / "drawn/000000000002.png")
    read_coco(coco_root)
    content = json.loads((coco_root / "train.json").read_text())
    content["annotations"][3]["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    save_text(coco_root / "train.json", json.dumps(content))
    with pytest.raises(UserError, match="000000000002.png: is left as it is"):
        read_coco(coco_root)
    assert (coco_root / "drawn/000000000002.png").read_bytes() == mended


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    settings = {"rates": [1, 2], "output_stride": 8, "msc_scales": [], "variant": "paper"}
    network = deeplab_v2("small", 3, settings["rates"], scales=())
    meta = {"backbone": "small", "class_names": ["cat", "dog"], "settings": settings}
    save_network(tmp_path / "model.pt", "segmentation", network.state_dict(), meta)
    return tmp_path / "model.pt"


def predict(model: Path, out: Path, *images: Path) -> int:
    return cli.main(["predict", "--device", "cpu", "--model", str(model), "--out", str(out), *map(str, images)])


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        (["a/x.png", "b/x.png"], ["a/x.png", "b/x.png"]),
        (["a/x.jpg", "a/x.png"], ["x.jpg.png", "x.png.png"]),
        (["a/x.jpg", "a/X.jpg", "b/y.jpg"], ["a/X.jpg.png", "a/x.jpg.png", "b/y.jpg.png"]),
        (["a/x.jpg", "a/x.png", "a/x.jpg.png"], ["x.jpg.png", "x.jpg.png.png", "x.png.png"]),
        (["a/x.png", "b/y.png", "a/x.png"], ["a/x.png", "b/y.png"]),
    ],
)
def test_predictions_of_two_photos_are_two_files(tmp_path, model, photos, masks):
    for k, photo in enumerate(photos):
        save_image(tmp_path / photo, (20 + k, 30))
    assert predict(model, tmp_path / "out", *(tmp_path / photo for photo in photos)) == 0
    assert sorted(files(tmp_path / "out")) == masks
    assert predict(model, tmp_path / "out", *(tmp_path / photo for photo in photos)) == 0, "own masks are replaced"


def test_predictions_replace_neither_masks_of_others_nor_the_photo(tmp_path, model, capsys):
    save_image(tmp_path / "x.png", (20, 30))
    save_image(tmp_path / "a/y.png", (20, 30))
    hand_made(tmp_path / "out/a/y.png")
    before = files(tmp_path)
    assert predict(model, tmp_path, tmp_path / "x.png") == 2
    assert predict(model, tmp_path / "out", tmp_path / "x.png", tmp_path / "a/y.png") == 2
    assert files(tmp_path) == before, "nothing is predicted before the refusal"
    assert "y.png: is left as it is" in capsys.readouterr().err


def test_exported_masks_replace_no_others(tmp_path, capsys):
    masks = tmp_path / "run/refinements/x/masks"
    write_mask(masks / "00-of-01/a.png", np.zeros((4, 5)))
    content = hand_made(tmp_path / "mine/a.png")
    assert cli.main(["export", "--masks", str(masks), "--out", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine/a.png").read_bytes() == content
    for _ in range(2):
        assert cli.main(["export", "--masks", str(masks), "--out", str(tmp_path / "new")]) == 0
    assert files(tmp_path / "new") == files(masks / "00-of-01")
