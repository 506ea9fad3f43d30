"""What segmentation networks learn from: images with their label masks, checked before a training begins."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsss_core.constants import IGNORE
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.store.masks import mask_files, read_mask
from wsss_core.store.shards import fingerprint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One image to train on.

    Attributes
    ----------
    size
        (H, W) in pixels, which the mask must have too.
    classes
        The image's tags, 0-based.
    unknown
        Classes that its background may hold, as its data set was not annotated for them.
    """

    image: Path
    mask: Path
    size: tuple[int, int]
    classes: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()


def samples_of(records: Sequence[ImageRecord], folders: Sequence[Path]) -> list[Sample]:
    """The images of records with their masks, which lie in one of the folders; UserError if an image has none."""
    files = mask_files(folders, [record.id for record in records], "masks to train on")
    return [Sample(Path(r.path), files[r.id], r.size, r.classes, r.unknown) for r in records]


def checked(samples: Sequence[Sample], class_names: Sequence[str]) -> tuple[list[Sample], str]:
    """Check every mask.

    Returns
    -------
    The samples whose masks decide a pixel, as nothing can be learned of the others; the digest of all masks.

    Raises
    ------
    UserError
        If a mask is wrong, or the masks hold nothing to learn.
    """
    n_labels = len(class_names) + 1
    pixels, digests, decided = np.zeros(256, dtype=np.int64), [], []
    for sample in samples:
        labels = read_mask(sample.mask, sample.size, n_labels)
        pixels += np.bincount(labels.ravel(), minlength=256)
        digests.append(hashlib.sha256(labels.data).hexdigest())
        held = set(np.unique(labels).tolist())
        known = replace(sample, unknown=tuple(c for c in sample.unknown if c + 1 not in held))
        decided += [] if held == {IGNORE} else [known]
    total, ignored, background = pixels.sum(), pixels[IGNORE], pixels[0]
    if ignored == total:
        raise UserError("the masks ignore (255) every pixel of every image: there is nothing to train on")
    if ignored + background == total:
        raise UserError(
            "the masks hold no foreground pixel: the network would learn to predict background only; lower the "
            "background threshold of the stage that made them"
        )
    log.info(
        "%d masks: %.1f %% background, %.1f %% foreground, %.1f %% ignored",
        len(samples),
        *(100 * part / total for part in (background, total - background - ignored, ignored)),
    )
    if len(decided) < len(samples):
        text = "%d of %d masks are undecided everywhere: no training learns from them"
        log.info(text, len(samples) - len(decided), len(samples))
    empty = [name for name, count in zip(class_names, pixels[1:n_labels], strict=True) if count == 0]
    if empty:
        log.warning("no mask holds a pixel of: %s", ", ".join(empty))
    return decided, fingerprint(digests)
