"""What lies in a folder of photos: photos, their tags, and true masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wsss_core.data import tags
from wsss_core.data.decode import FORMATS, IMAGE_SUFFIXES
from wsss_core.data.label_files import ENDINGS, EXPECTED, LabelFile, read_labels
from wsss_core.data.label_text import check_labels
from wsss_core.data.reading import ImageFolder, MaskFolder, rows_by_file
from wsss_core.errors import UserError

SEPARATORS = (" ", ",", ";", "|", "/")
"""What labels of one cell are taken apart by, in the order in which it is tried."""

MASKS = ("masks", "mask", "truth", "SegmentationClass", "segmentation", "labels", "annotations")
"""Folders in which true masks are looked for."""

LOOKED_AT = 200
"""Photos whose size is read, evenly from all."""

SHARE = 0.5
"""Part of the rows of a file, or of the files of a folder, that must belong to photos for it to be tags or masks."""


@dataclass(frozen=True)
class Found:
    """What lies in a folder of photos.

    Attributes
    ----------
    root
        The folder as it was given.
    labels
        File of tags, as the configuration names it, or "folders".
    file
        What it holds.
    separator
        By which cells of labels were taken apart.
    photos
        Number of photos that the tags name.
    others
        Number of photos that they do not.
    classes
        Class name to the number of photos with it, and the file of one of them.
    untagged
        Number of photos without any class.
    longest
        Median of the longer sides, in pixels.
    masks
        Folder of true masks, as the configuration names it, or None.
    """

    root: str
    labels: str
    file: LabelFile
    separator: str
    photos: int
    others: int
    classes: Mapping[str, tuple[int, str]]
    untagged: int
    longest: int
    masks: str | None


def look(root: Path, labels: Path | None = None) -> Found:
    """Find photos, tags and masks.

    Parameters
    ----------
    root
        Folder of photos.
    labels
        File of tags; None: it is looked for in the folder.

    Raises
    ------
    UserError
        If there is no folder, no photo, or no tags that fit the photos; the message says what was looked at.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder")
    folder = root / "images" if (root / "images").is_dir() else root
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(
            f"{root}: is the current folder, where the results would be too; go to the folder above it "
            f"(cd ..) and give its name ({folder.resolve().name})"
        )
    images = ImageFolder(folder, "images")
    if not images.files:
        raise UserError(f"{folder}: holds no photo (read are {', '.join(IMAGE_SUFFIXES)})")
    masks = _masks(root, images)
    photos = frozenset(f for f in images.files if masks is None or not f.startswith(f"{Path(masks).name}/"))
    name, file, separator = _tags(root, images, photos, labels)
    rows = rows_by_file(file.rows, images, [], needed=False)
    counts = Counter(label for row in rows.values() for label in row.labels)
    examples = {label: found for found, row in reversed(rows.items()) for label in row.labels}
    classes = {label: (counts[label], examples[label]) for label in sorted(counts)}
    if not classes:
        raise UserError(f"{name}: no photo has a tag")
    return Found(
        root=str(root),
        labels=name,
        file=file,
        separator=separator,
        photos=len(rows),
        others=len(photos - rows.keys()),
        classes=classes,
        untagged=sum(not row.labels for row in rows.values()),
        longest=longest_side(folder, sorted(rows)),
        masks=masks,
    )


def _tags(root: Path, images: ImageFolder, photos: Collection[str], given: Path | None) -> tuple[str, LabelFile, str]:
    """The file of tags as the configuration names it, what it holds, and the separator."""
    here = sorted(path for path in root.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    here.sort(key=lambda path: not path.stem.lower().startswith(("label", "tag", "class", "train")))
    tried = []
    for path in [given] if given else here:
        try:
            file, separator = _taken_apart(path)
        except UserError as error:
            tried.append(str(error))
            continue
        fitting = len(rows_by_file(file.rows, images, [], needed=False))
        if file.rows and fitting >= SHARE * len(file.rows):
            return str(path), file, separator
        tried.append(f"{path}: {fitting} of its {len(file.rows)} rows name a photo of {images.folder}")
    inside = sum("/" in file and Path(file).parent.name not in MASKS for file in images.files)
    if not given and inside and inside >= SHARE * len(images.files):
        return tags.FOLDERS, tags.tags_of_folders(images.folder, photos), " "
    looked = "".join(f"\n  {line}" for line in tried) or "\n  nothing that could hold tags"
    raise UserError(
        f"{root}: found {len(images.files)} photos, but no tags for them. Looked at:{looked}\nTags may stand in a file "
        f"({', '.join(ENDINGS)}) with {EXPECTED}; or every photo may lie in a folder that has its class's name. "
        "A file elsewhere: --labels FILE"
    )


def _taken_apart(path: Path) -> tuple[LabelFile, str]:
    """A file of tags, and the first separator by which its labels look whole; any but white space must part some.

    Raises
    ------
    UserError
        If it is no file of tags, or the labels look wrong by every separator; with what is wrong by the first.
    """
    first: UserError | None = None
    for separator in SEPARATORS:
        file = read_labels(path, separator)
        try:
            check_labels([row.labels for row in file.rows], file.separator, None, str(path))
        except UserError as error:
            first = first or error
        else:
            if first is None or any(len(row.labels) > 1 for row in file.rows):
                return file, separator
    assert first is not None
    raise first


def _masks(root: Path, images: ImageFolder) -> str | None:
    """The folder of true masks: one that holds a PNG named as a photo for at least half of its files."""
    ids = {images.id(file) for file in images.files}
    for path in (root / name for name in MASKS):
        if not path.is_dir():
            continue
        files = MaskFolder(path)
        fitting = sum(files.find(image) is not None for image in ids)
        if fitting and fitting >= SHARE * len(files.files):
            return str(path)
    return None


def longest_side(folder: Path, files: Sequence[str]) -> int:
    """Median of the longer sides of some photos, in pixels; those that cannot be opened are left out.

    Raises
    ------
    UserError
        If none can be opened.
    """
    sides = []
    for file in files[:: -(-len(files) // LOOKED_AT)]:
        try:
            with Image.open(folder / file, formats=FORMATS) as image:
                sides.append(max(image.size))
        except Exception:  # noqa: S112  # whatever a decoder raises; the index names each of these photos
            continue
    if not sides:
        raise UserError(f"{folder}: none of the photos can be opened, such as {files[0]}")
    return sorted(sides)[len(sides) // 2]


def trouble(found: Found) -> list[str]:
    """What keeps a classifier from learning, in sentences."""
    everywhere = [name for name, (count, _) in found.classes.items() if count == found.photos]
    lines = []
    if everywhere:
        lines.append(
            f"every photo has the tag {', '.join(everywhere)}, so nothing tells it from what is around it; "
            "add photos without it, with their own tags or an empty cell"
        )
    few = [f"{name} ({count})" for name, (count, _) in found.classes.items() if count < 3]
    if few:
        lines.append(f"too few photos to learn from: {', '.join(few)}")
    return lines
