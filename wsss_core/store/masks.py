"""Label masks as palette PNGs in the PASCAL VOC colours; 0 is background, 255 is ignored.

A mask that is written here carries a stamp, the digest of its labels. No file without a true one is ever replaced: what
somebody drew, or changed, is theirs.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsss_core.constants import IGNORE
from wsss_core.errors import UserError
from wsss_core.store.atomic import atomic_path
from wsss_core.store.own import require_own

STAMP = "wsss"
"""Keyword of the stamp among a PNG's texts."""

MASK_FORMATS = ("BMP", "GIF", "PNG", "TIFF")
"""What Pillow may take the file of a mask for: formats that keep every value."""


def voc_palette() -> np.ndarray:
    """The PASCAL VOC colour map, uint8 [256, 3].

    Examples
    --------
    >>> voc_palette()[[0, 1, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [224, 224, 192]]
    """
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def mask_name(image_id: str) -> str:
    """File name of an image's mask: ids may be any text, so ``/`` is escaped."""
    return image_id.replace("%", "%25").replace("/", "%2F") + ".png"


def tried_names(image_id: str, path: str) -> list[str]:
    """What the mask of an image may be called that comes from elsewhere, in the order in which it is looked for.

    Parameters
    ----------
    path
        File of the image.

    Returns
    -------
    The id escaped as in this program's own masks, the id and the id without its suffix, in sub-folders if it has any,
    and the name of the image's file.

    Examples
    --------
    >>> tried_names("a/b.jpg", "photos/a/b.jpg")
    ['a%2Fb.jpg.png', 'a/b.jpg.png', 'a/b.png', 'b.png']
    """
    names = [mask_name(image_id), f"{image_id}.png", str(Path(image_id).with_suffix(".png")), f"{Path(path).stem}.png"]
    return list(dict.fromkeys(names))


def mask_files(folders: Sequence[Path], image_ids: Iterable[str], what: str) -> dict[str, Path]:
    """Image id to its mask in one of the folders.

    Raises
    ------
    UserError
        If images have none; `what` says what they lack, in the plural.
    """
    found = {path.name: path for folder in folders for path in Path(folder).glob("*.png")}
    names = {image_id: mask_name(image_id) for image_id in image_ids}
    missing = [image_id for image_id, name in names.items() if name not in found]
    if missing:
        where = f"{names[missing[0]]} is in none of {len(folders)} folders"
        raise UserError(f"{len(missing)} of {len(names)} images have no {what}, such as {missing[0]!r}: {where}")
    return {image_id: found[name] for image_id, name in names.items()}


def write_mask(path: Path, labels: np.ndarray) -> None:
    """Write labels, integers in 0..255 of shape [H, W], as a palette PNG.

    Raises
    ------
    UserError
        If there is a file already that was not written by this function, or was changed since.

    Examples
    --------
    >>> write_mask(Path("mask.png"), np.zeros((2, 3)))
    >>> write_mask(Path("mask.png"), np.ones((2, 3)))
    >>> Image.new("L", (3, 2)).save("drawn.png")
    >>> write_mask(Path("drawn.png"), np.ones((2, 3)))
    Traceback (most recent call last):
    wsss_core.errors.UserError: drawn.png: is left as it is, since it was not made here; move it, or write elsewhere
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
        raise ValueError(f"labels must be [H, W] in 0..255, got {labels.shape} up to {labels.max(initial=0)}")
    labels = labels.astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(voc_palette().tobytes())
    _write_stamped(path, image)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture for people, uint8 [H, W, 3], as a PNG with a stamp; errors as for `write_mask`."""
    _write_stamped(path, Image.fromarray(picture))


def _write_stamped(path: Path, image: Image.Image) -> None:
    stamp = PngInfo()
    stamp.add_text(STAMP, _digest(np.asarray(image)))
    check_replaceable(path)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=stamp)


def copy_mask(source: Path, target: Path) -> None:
    """Copy a mask; UserError if another file is there that was not made here."""
    if not (target.is_file() and target.read_bytes() == source.read_bytes()):
        check_replaceable(target)
        with atomic_path(target) as temporary:
            shutil.copy2(source, temporary)


def check_replaceable(path: Path) -> None:
    """Raise UserError if there is a file that `write_mask` did not write, or that was changed since."""
    require_own(path, _is_own)


def _is_own(path: Path) -> bool:
    with Image.open(path, formats=MASK_FORMATS) as image:
        image.load()
        return image.info.get(STAMP) == _digest(np.asarray(image))


def _digest(labels: np.ndarray) -> str:
    return hashlib.sha256(repr(labels.shape).encode() + labels.tobytes()).hexdigest()[:32]


def read_grey(path: Path) -> np.ndarray:
    """Read a grey picture, of 8 or 16 bits, as float32 [H, W] in [0, 1].

    Raises
    ------
    UserError
        If the file is missing, unreadable or in colour.
    """
    try:
        with Image.open(path, formats=MASK_FORMATS) as image:
            mode, values = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing") from None
    except Exception as error:  # whatever a decoder raises
        raise UserError(f"{path}: cannot be read as a grey picture ({error or type(error).__name__})") from error
    if mode not in ("L", "1", "I", "I;16"):
        raise UserError(f"{path}: a grey picture is expected, this one is {mode}")
    return values.astype(np.float32) / (1 if mode == "1" else 255 if mode == "L" else 65535)


def read_mask(path: Path, size: tuple[int, int] | None = None, n_labels: int | None = None) -> np.ndarray:
    """Read a mask, uint8 [H, W].

    Parameters
    ----------
    size
        Expected (H, W), if known.
    n_labels
        Number of labels with background; any other value than 255 above it is an error.

    Raises
    ------
    UserError
        If the file is missing, unreadable, of another size, in colour, or holds a value out of range, which without
        `n_labels` is one above 255.
    """
    try:
        with Image.open(path, formats=MASK_FORMATS) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                raise UserError(f"{path}: a mask must be a palette or grey PNG, this one is {image.mode}")
            labels = np.asarray(image)
    except UserError:
        raise
    except Exception as error:  # whatever a decoder raises is the matter of this file alone
        raise UserError(f"{path}: mask cannot be read ({str(error) or type(error).__name__})") from error
    if size is not None and labels.shape != tuple(size):
        raise UserError(f"{path}: mask is {labels.shape[1]}x{labels.shape[0]}, its image is {size[1]}x{size[0]}")
    highest = (IGNORE + 1 if n_labels is None else n_labels) - 1
    wrong = (labels < 0) | ((labels > highest) & (labels != IGNORE))
    if wrong.any():
        listed = np.unique(labels[wrong])[:5].tolist()
        raise UserError(f"{path}: mask holds {listed}, allowed are 0..{highest}{' and 255' * (highest < IGNORE)}")
    return labels.astype(np.uint8)
