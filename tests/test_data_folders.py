"""Folders as they are found: links, loops, unreadable entries, masks under other names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.test_data_readers import by_id, coco_settings, save_image, texts
from tests.test_data_readers import coco_root as coco_root  # fixtures
from tests.test_data_readers import table_root as table_root
from tests.test_data_readers import voc_root as voc_root
from tests.test_index import DataSet
from tests.test_index import data as data
from wsss_core.data import coco, tags, voc
from wsss_core.data.folders import walk
from wsss_core.data.listing import folder_digest, listing_digest
from wsss_core.data.reading import ImageFolder, MaskFolder
from wsss_core.data.tags import TableSettings
from wsss_core.data.voc import VocSettings
from wsss_core.errors import UserError
from wsss_core.store.masks import write_mask


def names(folder: Path) -> list[str]:
    return [entry.name for entry in walk(folder)]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_links_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path / "a/1.jpg", tmp_path / "a/b/2.jpg", tmp_path / "elsewhere/3.jpg")
    folder = tmp_path / "a"
    (folder / "b/up").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "twice").symlink_to(tmp_path / "elsewhere")
    (folder / "0-first-in-order").symlink_to(folder / "b")
    (folder / "itself").symlink_to(folder / "itself")
    assert names(folder) == ["1.jpg", "b/2.jpg", "itself", "linked/3.jpg"]
    assert walk(folder)[2].error


def test_unreadable_entries_are_named_and_the_rest_goes_on(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "z/z.png", tmp_path / ".hidden.png", tmp_path / ".git/x.png")
    (tmp_path / "m.png").symlink_to("nowhere")
    found = {entry.name: entry.error for entry in walk(tmp_path)}
    assert found == {"a.png": "", "m.png": "No such file or directory", "z/z.png": ""}
    assert [entry.error for entry in walk(tmp_path / "nothing")] == ["No such file or directory"]


def rename_all(folder: Path, pattern: str) -> None:
    for path in sorted(folder.iterdir()):
        path.rename(folder / pattern.format(path.stem))


PATTERNS = ["{}_mask.png", "mask-{}.png", "{}.jpg", "{}.tif", "{}.PNG", "{}.jpg.png", "{}_label_ids.png", "{} copy.png"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_folder_without_a_mask_of_these_names_stops(table_root, pattern):
    rename_all(table_root / "masks", pattern)
    with pytest.raises(UserError) as caught:
        tags.read(TableSettings(root=str(table_root), masks="masks"))
    error = str(caught.value)
    assert error.startswith(f"dataset.masks: {table_root / 'masks'} holds no mask of the 40 images")
    assert "looked for 00.png, 01.png, …; 40 files lie there, such as " + pattern.format("00") in error
    assert f"rename them, as {pattern.format('00')} to 00.png" in error


def test_an_empty_folder_or_one_of_other_images_stops(table_root):
    (table_root / "none").mkdir()
    with pytest.raises(UserError, match=r"looked for 00.png, 01.png, …; the folder is empty\. Without masks"):
        tags.read(TableSettings(root=str(table_root), masks="none"))
    touch(table_root / "none/other.png")
    with pytest.raises(UserError, match=r"1 files lie there, such as other.png\. Without masks"):
        tags.read(TableSettings(root=str(table_root), masks="none"))


def test_every_format_looks_alike(voc_root, coco_root):
    rename_all(voc_root / "SegmentationClass", "{}_mask.png")
    with pytest.raises(UserError, match="SegmentationClass holds no mask of the 3 images"):
        voc.read(VocSettings(root=str(voc_root)))
    touch(coco_root / "given/000000000001_mask.png")
    with pytest.raises(UserError, match="given holds no mask of the 3 images"):
        coco.read(coco_settings(coco_root, masks="given"))


def test_single_masks_under_other_names_are_found_out(table_root):
    folder = table_root / "masks"
    (folder / "03.png").rename(folder / "03_mask.png")
    (folder / "05.png").rename(folder / "05.PNG")
    (folder / "sub").mkdir()
    (folder / "07.png").rename(folder / "sub/07.png")
    (folder / "09.png").unlink()
    found = texts(tags.read(TableSettings(root=str(table_root), masks="masks", val_fraction=0)))
    advice = "rename it, or take it out of the folder"
    assert found == [
        f"mask: 03: 03.png: there is no such mask, but 03_mask.png: {advice}",
        f"mask: 05: 05.png: there is no such mask, but 05.PNG: {advice}",
        f"mask: 07: 07.png: there is no such mask, but sub/07.png: {advice}",
    ]


def test_a_mask_of_a_longer_name_is_no_other_images(table_root):
    save_image(table_root / "images/03_b.jpg")
    write_mask(table_root / "masks/03_b.png", np.zeros((6, 8)))
    (table_root / "masks/03.png").unlink()
    found = texts(tags.read(TableSettings(root=str(table_root), masks="masks", val_fraction=0)))
    assert [text for text in found if not text.startswith("note: ")] == []


def test_masks_in_subfolders_or_with_escaped_names(tmp_path):
    touch(tmp_path / "s/a.png", tmp_path / "s%2Fb.png", tmp_path / "c.png")
    masks = MaskFolder(tmp_path)
    assert [masks.find(image) for image in ("s/a", "s/b", "c", "d")] == [
        tmp_path / "s/a.png",
        tmp_path / "s%2Fb.png",
        tmp_path / "c.png",
        None,
    ]


def test_images_behind_links_are_images(table_root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save_image(elsewhere / "far.jpg")
    (table_root / "images/linked").symlink_to(elsewhere)
    (table_root / "images/loop").symlink_to(table_root / "images")
    with open(table_root / "labels.csv", "a") as handle:
        handle.write("\nlinked/far.jpg,dog\n")
    reading = tags.read(TableSettings(root=str(table_root)))
    assert by_id(reading)["linked/far"].classes == (1,) and len(reading.records) == 41
    assert ImageFolder(table_root / "images", "images").find("linked/far") == "linked/far.jpg"


def dead_link(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_upward(path: Path) -> None:
    path.symlink_to(path.parent.parent)


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("odd", [dead_link, link_to_itself, link_upward, pipe])
@pytest.mark.parametrize("folder", ["images", "masks"])
def test_changes_behind_an_odd_entry_are_seen(table_root, folder, odd):
    settings = {"format": "table", "root": str(table_root), "masks": "masks"}
    odd(table_root / folder / "0.png")
    digests = [listing_digest(settings), listing_digest(settings)]
    for path in sorted((table_root / folder).glob("3*")):
        os.utime(path, ns=(1, 1))
    digests.append(listing_digest(settings))
    (table_root / folder / "0.png").unlink()
    digests.append(listing_digest(settings))
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert folder_digest(table_root / folder) != folder_digest(table_root), "also for single folders, such as saliency"


def test_changes_behind_a_link_are_seen(table_root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    touch(elsewhere / "sub/new.png")
    (table_root / "masks/linked").symlink_to(elsewhere)
    before = folder_digest(table_root / "masks")
    os.utime(elsewhere / "sub/new.png", ns=(1, 1))
    assert folder_digest(table_root / "masks") != before


def test_unreadable_entries_are_noted(table_root, voc_root, coco_root):
    for folder in ("images", "masks", "JPEGImages", "SegmentationClass", "photos", "sky"):
        (table_root / folder).mkdir(exist_ok=True)
        dead_link(table_root / folder / "gone")
    save_image(table_root / "sky/a.jpg")
    gone = "gone: cannot be read (No such file or directory)"
    for reading, count in [
        (tags.read(TableSettings(root=str(table_root), masks="masks", ood=("sky",))), 3),
        (voc.read(VocSettings(root=str(voc_root))), 2),
        (coco.read(coco_settings(coco_root)), 1),
    ]:
        assert sum(text == f"note: : {gone}" for text in texts(reading)) == count


def test_an_image_that_leads_nowhere_is_named(data: DataSet):
    (data.root / "images/t5.png").unlink()
    dead_link(data.root / "images/t5.png")
    data.refused("images/t5.png: file cannot be read (No such file or directory)")
    data.index(unreadable="skip")
    assert "t5" not in data.ids("train") and len(data.ids("train")) == 7
    (data.root / "images/t5.png").unlink()
    pipe(data.root / "images/t5.png")
    with pytest.raises(UserError, match="images/t5.png: is not a file"):
        data.index()
