"""The drawn data set: deterministic, whole, and hard in the ways it promises."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wsss_core.data import demo
from wsss_core.data.demo import DemoSettings
from wsss_core.data.demo_pictures import CLASSES, ELSEWHERE, HABITAT, numbered, picture
from wsss_core.errors import UserError
from wsss_core.keyed import generator


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def settings(root) -> DemoSettings:
    return DemoSettings(root=str(root), train=60, val=10, background=5)


@pytest.fixture(scope="module")
def folder(settings) -> Path:
    return demo.generate(settings)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_layout(folder):
    assert len(list((folder / "JPEGImages").iterdir())) == 75
    assert len(list((folder / "SegmentationClass").iterdir())) == 70
    assert (folder / "classes.txt").read_text().split() == ["background", *CLASSES]
    assert (folder / "ImageSets/Segmentation/background.txt").read_text().split()[0] == "background_0000"
    assert (folder / "labels.csv").read_text().splitlines()[0] == "image,labels"


def test_the_reader_agrees_with_masks_boxes_and_instances(folder, settings):
    reading = demo.read(settings)
    assert not reading.problems and reading.class_names == CLASSES
    for record in reading.records:
        if not record.mask:
            assert record.splits == ("ood",) and record.classes == ()
            continue
        labels = pixels(Path(record.mask))
        instances = pixels(folder / "SegmentationObject" / Path(record.mask).name)
        assert labels.shape == pixels(Path(record.path)).shape[:2]
        assert set(np.unique(labels)) - {0, 255} == {c + 1 for c in record.classes}
        np.testing.assert_array_equal(labels == 255, instances == 255)
        for number, box in enumerate(record.boxes, start=1):
            rows, columns = np.nonzero(instances == number)
            assert (labels[instances == number] == box.label + 1).all()
            assert box.x0 <= columns.min() and columns.max() < box.x1
            assert box.y0 <= rows.min() and rows.max() < box.y1


def test_made_once_and_again_the_same(folder, settings, tmp_path):
    before = (folder / "labels.csv").stat().st_mtime_ns
    assert demo.generate(settings) == folder
    assert (folder / "labels.csv").stat().st_mtime_ns == before
    small = DemoSettings(root=str(tmp_path), train=6, val=1, background=1)
    made = demo.generate(small, workers=2)
    for name in ("JPEGImages/train_0005.jpg", "SegmentationClass/train_0005.png", "Annotations/train_0005.xml"):
        assert (made / name).read_bytes() == (folder / name).read_bytes(), "a picture depends on its name only"


def test_other_settings_get_a_folder_of_their_own(folder, settings, root):
    other = demo.generate(DemoSettings(root=str(root), train=5, val=1, background=0, seed=1))
    assert other != folder and folder.is_dir()
    first, second = (pixels(path / "JPEGImages/train_0000.jpg") for path in (folder, other))
    assert first.shape != second.shape or (first != second).any()
    assert demo.generate(DemoSettings(**vars(settings) | {"shard_size": 7})) == folder


def test_what_makes_it_hard(folder, settings):
    records = [r for r in demo.read(settings).records if "train" in r.splits]
    tags = Counter(c for r in records for c in r.classes)
    assert set(tags) == set(range(len(CLASSES))) and min(tags.values()) >= 10
    assert 0.3 < np.mean([len(r.classes) > 1 for r in records]) < 0.75
    covered = [np.mean((pixels(Path(r.mask)) % 255) > 0) for r in records]
    assert 0.08 < np.mean(covered) < 0.4
    sides = {side for r in records for side in pixels(Path(r.path)).shape[:2]}
    assert min(sides) >= 128 and max(sides) <= 160 and len(sides) > 10


def test_thin_structures_survive_in_the_mask():
    drawn = picture((150, 150), [CLASSES.index("beetle")], "sand", generator(0, "legs"))
    inside = (drawn.labels > 0).astype(np.uint8)
    thick = cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((5, 5), dtype=np.uint8))
    assert 0.03 < (inside - thick).sum() / inside.sum() < 0.5


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_on_every_background(name):
    for place in (HABITAT[name], *ELSEWHERE[name]):
        drawn = picture((128, 160), [CLASSES.index(name)], place, generator(0, name, place))
        assert drawn.image.shape == (128, 160, 3) and drawn.image.dtype == np.uint8
        assert [c for c, _ in drawn.objects] == [CLASSES.index(name)]


def test_backgrounds_alone():
    for number in range(5):
        drawn = numbered(generator(0, number), number, (128, 160), 0.85, (0.4, 0.1), empty=True)
        assert drawn.objects == () and not drawn.labels.any()


def test_fast_enough():
    start = time.process_time()
    for number in range(20):
        numbered(generator(1, number), number, (128, 160), 0.85, (0.42, 0.18))
    assert (time.process_time() - start) / 20 < 15 / 350


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_side": 100}, "dataset.max_side: 100 is less"),
        ({"more_objects": (0.8, 0.4)}, "dataset.more_objects"),
        ({"root": "/proc/nowhere"}, "cannot be written"),
    ],
)
def test_mistakes(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        demo.generate(DemoSettings(**{"root": str(tmp_path)} | change))
