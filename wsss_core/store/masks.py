"""Label masks as palette PNGs in the PASCAL VOC colours; 0 is background, 255 is ignored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsss_core.constants import IGNORE
from wsss_core.errors import UserError
from wsss_core.store.atomic import atomic_path


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
    """Write labels, integers in 0..255 of shape [H, W], as a palette PNG."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
        raise ValueError(f"labels must be [H, W] in 0..255, got {labels.shape} up to {labels.max(initial=0)}")
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(voc_palette().tobytes())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


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
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1", "I", "I;16"):
                raise UserError(f"{path}: a mask must be a palette or grey PNG, this one is {image.mode}")
            labels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: mask cannot be read ({error})") from error
    if size is not None and labels.shape != tuple(size):
        raise UserError(f"{path}: mask is {labels.shape[1]}x{labels.shape[0]}, its image is {size[1]}x{size[0]}")
    highest = (IGNORE + 1 if n_labels is None else n_labels) - 1
    wrong = (labels < 0) | ((labels > highest) & (labels != IGNORE))
    if wrong.any():
        listed = np.unique(labels[wrong])[:5].tolist()
        raise UserError(f"{path}: mask holds {listed}, allowed are 0..{highest}{' and 255' * (highest < IGNORE)}")
    return labels.astype(np.uint8)
