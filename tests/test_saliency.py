"""Agreement of masks with saliency masks."""

import numpy as np
import pytest
from PIL import Image

from tests.scenes import make_masks
from wsss_core.data.table import ImageRecord, write_manifest
from wsss_core.errors import UserError
from wsss_core.refine.saliency import SaliencySettings, keep_agreeing, read_salient, saliency_file
from wsss_core.store.cut import Cut, read_about, write_about
from wsss_core.store.masks import mask_name, read_mask, write_mask

SIZE = (6, 8)


def record(image_id, path="photos/p.jpg"):
    return ImageRecord(image_id, path, *SIZE, ("train",), (1,))


def write_grey(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def test_pixels_that_disagree_are_undecided():
    labels = np.array([[0, 0, 2, 2, 255, 255]], np.uint8)
    salient = np.array([[False, True, False, True, False, True]])
    kept = keep_agreeing(labels, salient)
    assert kept.dtype == np.uint8 and kept.tolist() == [[0, 255, 255, 2, 255, 255]]


@pytest.mark.parametrize(
    ("image_id", "path", "file"),
    [
        ("2007_000032", "JPEGImages/2007_000032.jpg", "2007_000032.png"),
        ("a/b.jpg", "photos/a/b.jpg", "a%2Fb.jpg.png"),
        ("a/b.jpg", "photos/a/b.jpg", "a/b.jpg.png"),
        ("a/b.jpg", "photos/a/b.jpg", "a/b.png"),
        ("9", "train2014/COCO_train2014_000000000009.jpg", "COCO_train2014_000000000009.png"),
    ],
)
def test_masks_are_found_by_id_or_file_name(tmp_path, image_id, path, file):
    write_grey(tmp_path / file, np.zeros(SIZE))
    assert saliency_file(tmp_path, record(image_id, path)) == tmp_path / file


def test_grey_levels_are_salient_from_the_threshold_on(tmp_path):
    write_grey(tmp_path / "a.png", np.arange(48).reshape(SIZE))
    assert read_salient(tmp_path, record("a"), 1).sum() == 47
    assert read_salient(tmp_path, record("a"), 40).sum() == 8


def test_the_step(tmp_path):
    records = [record("a"), record("b")]
    write_manifest(tmp_path / "shard.json", ("round", "long"), records)
    labels = np.zeros(SIZE, np.uint8)
    labels[:, 4:] = 2
    for r in records:
        write_mask(tmp_path / "masks" / mask_name(r.id), labels)
    write_about(tmp_path / "masks", Cut("oracle", 0.3, notes=("first",)))
    saliency = np.zeros(SIZE, np.uint8)
    saliency[:, 2:6] = 255
    write_grey(tmp_path / "saliency/a.png", saliency)

    def run(folder="saliency"):
        settings = SaliencySettings(folder=str(tmp_path / folder))
        return make_masks(tmp_path, "saliency", settings, name="agreeing", start=tmp_path / "masks")

    with pytest.raises(UserError, match=r"no mask of image 'b'; looked for b\.png, p\.png"):
        run()
    write_grey(tmp_path / "saliency/b.png", np.zeros((6, 7)))
    with pytest.raises(UserError, match=r"b\.png: mask is 7x6, its image is 8x6"):
        run()
    Image.new("RGB", (8, 6)).save(tmp_path / "saliency/b.png")
    with pytest.raises(UserError, match=r"b\.png: a mask must be a palette or grey PNG"):
        run()
    write_grey(tmp_path / "saliency/b.png", np.zeros(SIZE))
    run()
    kept = [read_mask(tmp_path / "agreeing" / mask_name(r.id), SIZE, 3) for r in records]
    assert (kept[0] == [0, 0, 255, 255, 2, 2, 255, 255]).all() and (kept[1] == [0, 0, 0, 0, 255, 255, 255, 255]).all()
    cut = read_about(tmp_path / "agreeing")
    assert cut == Cut("oracle", 0.3, notes=("first", cut.notes[1])) and "saliency" in cut.notes[1]
    with pytest.raises(UserError, match="nowhere: is not a folder"):
        run("nowhere")
