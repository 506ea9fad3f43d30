"""PASCAL VOC 2012 with the masks of SBD.

Sources: Everingham et al., The PASCAL Visual Object Classes Challenge (IJCV 2010), and Hariharan et al., Semantic
Contours from Inverse Detectors (ICCV 2011). Addresses and digests are those of torchvision (`datasets.VOCDetection`,
`datasets.SBDataset` and the prototypes beside them); the archive of the test images, for which the organisers' server
asks for an account, has no address here.

The list ``train_aug`` of the literature is what VOC's ``train`` and SBD have masks of, without VOC's ``val``: 10,582
images, all of them among VOC's own. ``SegmentationClassAug`` holds the masks of these and of ``val``: VOC's where VOC
has one, SBD's elsewhere. SBD's are drawn more coarsely and know no ignored pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from wsss_core.data.voc import OBJECTS, VOC_CLASSES
from wsss_core.errors import UserError, whole
from wsss_core.prepare.archives import Archive, Archives
from wsss_core.prepare.counting import lines, missing, names, require
from wsss_core.prepare.unpacking import Member, members, put
from wsss_core.store.atomic import write_text
from wsss_core.store.masks import copy_mask, write_mask
from wsss_core.store.own import require_own

ROOT = PurePosixPath("VOCdevkit/VOC2012")
SBD_ROOT = PurePosixPath("benchmark_RELEASE/dataset")
LISTS = "ImageSets/Segmentation"
PARTS = {"JPEGImages": ".jpg", "Annotations": ".xml", "SegmentationClass": ".png", OBJECTS: ".png"}
AUGMENTED, MASKS = "train_aug", "SegmentationClassAug"


@dataclass(frozen=True)
class Published:
    """The archives, and how many images each list and folder has."""

    trainval: Archive = Archive(
        "VOCtrainval_11-May-2012.tar",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        1_999_639_040,
        "sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        2_000_000_000,
    )
    sbd: Archive = Archive(
        "benchmark.tgz",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        1_419_539_633,
        "sha256:6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
        2_000_000_000,
    )
    test: Archive = Archive("VOC2012test.tar", "", None, "md5:9065beb292b6c291fad82b2725749fda", 2_000_000_000)
    images: int = 17_125
    train: int = 1_464
    val: int = 1_449
    augmented: int = 10_582
    tested: int = 1_456


PUBLISHED = Published()


def prepare(folder: Path, archives: Archives, tell: Callable[[str], None], published: Published = PUBLISHED) -> None:
    """Make ``VOCdevkit/VOC2012`` below a folder; as `wsss_core.prepare.DataSet` has it."""
    root = folder / ROOT
    if _own(root, published):
        _unpack(root, archives, published.trainval)
        if trouble := _own(root, published):
            raise UserError(trouble)
    counts = (("train", published.train), ("val", published.val))
    tell(f"{root}: {published.images} images; " + ", ".join(f"{name} {count}" for name, count in counts))
    if _augmented(root, published):
        _augment(root, archives, published)
        if trouble := _augmented(root, published):
            raise UserError(trouble)
    text = f"{published.augmented} images, their masks and those of val in {MASKS}"
    tell(f"{root / LISTS / AUGMENTED}.txt: {text}")
    if not lines(root / LISTS / "test.txt") and archives.has(published.test):
        _unpack(root, archives, published.test)
    tested = lines(root / LISTS / "test.txt")
    if tested:
        require(len(tested), published.tested, f"{root / LISTS / 'test.txt'}: images")
        if name := missing(tested, names(root / "JPEGImages", ".jpg")):
            raise UserError(f"{root}: the image {name} of the list test is missing")
        tell(f"{root / LISTS / 'test.txt'}: {len(tested)} images without masks")
    else:
        tell(
            f"no test images: {published.test.name}, for which the organisers' server asks for an account, is not there"
        )


def _own(root: Path, published: Published) -> str | None:
    """What is missing of VOC's own files, or None."""
    found = {part: names(root / part, ending) for part, ending in PARTS.items()}
    for name, count in (("train", published.train), ("val", published.val)):
        listed = lines(root / LISTS / f"{name}.txt")
        if len(listed) != count:
            return f"{root / LISTS / name}.txt: {len(listed)} images instead of the published {count}"
        for part, present in found.items():
            if lost := missing(listed, present):
                return f"{root / part}: {lost}{PARTS[part]} of the list {name} is missing"
    for part in ("JPEGImages", "Annotations"):
        if len(found[part]) < published.images:
            return f"{root / part}: {len(found[part])} files instead of the published {published.images}"
    return None


def _augmented(root: Path, published: Published) -> str | None:
    """What is missing of the list train_aug and its masks, or None."""
    path = root / LISTS / f"{AUGMENTED}.txt"
    listed = lines(path)
    if len(set(listed)) != published.augmented or len(listed) != published.augmented:
        return f"{path}: {len(set(listed))} images instead of the published {published.augmented}"
    if name := missing(listed, names(root / "JPEGImages", ".jpg")):
        return f"{path}: {name} is no image of VOC 2012"
    val = lines(root / LISTS / "val.txt")
    if both := set(listed) & set(val):
        return f"{path}: {min(both)} is in the list val too"
    if name := missing([*listed, *val], names(root / MASKS, ".png")):
        return f"{root / MASKS}: {name}.png is missing"
    return None


def _unpack(root: Path, archives: Archives, archive: Archive) -> None:
    """Write the files of one of VOC's archives that belong to segmentation and boxes."""

    def wanted(name: str) -> bool:
        path = _below(ROOT, name)
        if path is None:
            return False
        return path.suffix == PARTS.get(str(path.parent)) or (str(path.parent) == LISTS and path.suffix == ".txt")

    for member in members(archives.get(archive), archive, wanted):
        put(root / PurePosixPath(member.name).relative_to(ROOT), member)


def _below(folder: PurePosixPath, name: str) -> PurePosixPath | None:
    """The path of a member from a folder of its archive, or None if it lies elsewhere."""
    path = PurePosixPath(name)
    return path.relative_to(folder) if path.is_relative_to(folder) else None


def _augment(root: Path, archives: Archives, published: Published) -> None:
    """Write the masks of SBD and VOC, and the list of the images to train on."""
    train, val = (lines(root / LISTS / f"{name}.txt") for name in ("train", "val"))
    drawn = {*train, *val}
    for name in sorted(drawn):
        copy_mask(root / "SegmentationClass" / f"{name}.png", root / MASKS / f"{name}.png")

    def wanted(name: str) -> bool:
        path = _below(SBD_ROOT, name)
        return path is not None and str(path.parent) == "cls" and path.suffix == ".mat"

    others = set()
    for member in members(archives.get(published.sbd), published.sbd, wanted):
        name = PurePosixPath(member.name).stem
        others.add(name)
        if name not in drawn:
            _write_mask(root, name, labels_of(member))
    augmented = sorted((others | set(train)) - set(val))
    require(len(augmented), published.augmented, f"{published.sbd.name}: images to train on")
    text = "".join(f"{name}\n" for name in augmented)
    path = root / LISTS / f"{AUGMENTED}.txt"
    require_own(path, lambda found: found.read_text(encoding="utf-8") == text)
    write_text(path, text)


def _write_mask(root: Path, name: str, labels: np.ndarray) -> None:
    image, mask = root / "JPEGImages" / f"{name}.jpg", root / MASKS / f"{name}.png"
    if not image.is_file():
        raise UserError(f"{image}: SBD has a mask of it, but it is no image of VOC 2012")
    with Image.open(image, formats=["JPEG"]) as opened:
        width, height = opened.size
    if labels.shape != (height, width):
        raise UserError(f"{image}: has {width}x{height} pixels, its mask of SBD {labels.shape[1]}x{labels.shape[0]}")
    write_mask(mask, labels)


def labels_of(member: Member) -> np.ndarray:
    """The labels in a file of SBD's folder ``cls``: the field ``Segmentation`` of ``GTcls``.

    Returns
    -------
    uint8 [H, W], 0 background, c + 1 class c of VOC.

    Raises
    ------
    UserError
        If the file is not as SBD's are.
    """
    from scipy.io import loadmat  # half a second

    content = io.BytesIO(b"".join(member.chunks()))
    try:
        found = loadmat(content, variable_names=["GTcls"], squeeze_me=True, struct_as_record=False)
        labels = np.asarray(found["GTcls"].Segmentation)
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise UserError(f"{member.name}: is no annotation of SBD ({whole(error)})") from error
    if labels.ndim != 2 or labels.dtype.kind not in "ui" or labels.min() < 0 or labels.max() > len(VOC_CLASSES):
        raise UserError(f"{member.name}: its labels are no classes of VOC")
    return labels.astype(np.uint8)
