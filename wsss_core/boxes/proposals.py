"""Masks of objects, fitted to mask proposals that were made elsewhere (MCG, SAM, superpixels).

Lee, Yi, Shin & Yoon, "BBAM", CVPR 2021 (Lee's dissertation, Eq. 5.4). With m_i the proposals and T an object's mask::

    T_r = union of { m_i : m_i within T } and of the m_i with the highest IoU with T

As in the published code, a proposal is within T if more than 95 % of its pixels are; only one of which as much lies in
the box can be the best; proposals that hold a superpixel wholly outside the box enlarged by 5 pixels are dropped; boxes
of fewer than 1,024 pixels stay as they are; the result is cut to the box; and the wide mask, refined, is joined with
the narrow one. Two slips of the published code are not repeated: it adds up the indices of pixels where it means to
count them, and goes on with the box as it was when it has enlarged it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsss_core.boxes.geometry import pixels
from wsss_core.data.outlines import inside, outline_problem
from wsss_core.errors import UserError
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.instances import Instances
from wsss_core.store.masks import MASK_FORMATS, mask_name


@dataclass(frozen=True, kw_only=True)
class ProposalsSettings:
    """Fitting of masks to mask proposals."""

    folder: str = setting(
        REQUIRED,
        "folder of mask proposals, named after the image's id: ID.json, a list of COCO run-length codes; or ID.png, a "
        "number of a superpixel a pixel, beside ID.json, for each proposal a list of its superpixels",
    )
    within: float = setting(
        0.95, "part of a proposal's pixels that must lie in the mask, or in the box", minimum=0, exclusiveMaximum=1
    )
    margin: int = setting(
        5, "pixels by which the box is enlarged before proposals that reach beyond are dropped", minimum=0
    )
    smallest: int = setting(1024, "boxes of fewer pixels stay as they are", minimum=0)


@dataclass(frozen=True)
class MaskProposals:
    """Mask proposals of one image.

    Attributes
    ----------
    superpixels
        Number of every pixel's superpixel in 0..S - 1, int64 [H, W].
    members
        Which superpixels a proposal holds, bool [m, S].
    """

    superpixels: np.ndarray
    members: np.ndarray

    def counts(self, mask: np.ndarray) -> np.ndarray:
        """Pixels of each superpixel in a mask, int64 [S]."""
        return np.bincount(self.superpixels[mask], minlength=self.members.shape[1])

    def pixels(self, mask: np.ndarray) -> np.ndarray:
        """Pixels of each proposal in a mask, int64 [m]."""
        return self.members @ self.counts(mask)

    def union(self, chosen: np.ndarray) -> np.ndarray:
        """Pixels of any of the chosen proposals, bool [H, W]."""
        return self.members[chosen].any(0)[self.superpixels]

    @classmethod
    def of(cls, masks: np.ndarray) -> MaskProposals:
        """From masks, bool [m, H, W]: a superpixel is what the same of them hold.

        Examples
        --------
        >>> MaskProposals.of(np.array([[[1, 1, 0, 0]], [[0, 1, 1, 1]]], bool)).counts(np.ones((1, 4), bool)).tolist()
        [2, 1, 1]
        """
        m, height, width = masks.shape
        flat = masks.reshape(m, height * width)
        columns = np.ascontiguousarray(np.packbits(flat, axis=0).T)
        codes = columns.view(f"V{columns.shape[1]}").ravel() if m else np.zeros(height * width, dtype=np.uint8)
        _, first, numbers = np.unique(codes, return_index=True, return_inverse=True)
        return cls(numbers.reshape(height, width), flat[:, first])


def refined(objects: Instances, proposals: MaskProposals, settings: ProposalsSettings) -> Instances:
    """Objects whose masks are fitted to proposals.

    Returns
    -------
    The same objects. A mask that no proposal fits stays as it was; their number is ``unfitted`` in the statistics,
    beside the number of boxes that were too small for it, ``small``.
    """
    masks, ignored = objects.masks.copy(), objects.ignored.copy()
    small = unfitted = 0
    for number, box in enumerate(objects.boxes):
        place = pixels(box, objects.size)
        if masks[number][place].size < settings.smallest:
            small += 1
            continue
        narrow, wide = (
            fitted(mask, place, proposals, settings) for mask in (masks[number], masks[number] | ignored[number])
        )
        unfitted += narrow is None
        masks[number] = masks[number] if narrow is None else narrow
        wide = objects.masks[number] | objects.ignored[number] if wide is None else wide
        ignored[number] = wide & ~masks[number]
    statistics = {**objects.statistics, "small": small, "unfitted": unfitted}
    return replace(objects, masks=masks, ignored=ignored, statistics=statistics)


def fitted(
    mask: np.ndarray, place: tuple[slice, slice], proposals: MaskProposals, settings: ProposalsSettings
) -> np.ndarray | None:
    """A mask from the proposals that lie within another, and the one that is most like it.

    Parameters
    ----------
    mask
        T, bool [H, W].
    place
        Rows and columns of the box.

    Returns
    -------
    T_r, bool [H, W], cut to the box; None if there is no proposal for it.
    """
    box, around = np.zeros((2, *mask.shape), dtype=bool)
    box[place] = True
    around[tuple(slice(max(0, side.start - settings.margin), side.stop + settings.margin) for side in place)] = True
    sizes = proposals.pixels(np.ones_like(mask))
    beyond = proposals.counts(around) == 0
    usable = (sizes > 0) & ~proposals.members[:, beyond].any(1)
    common = proposals.pixels(mask)
    chosen = usable & (common > settings.within * sizes)
    candidates = usable & (proposals.pixels(box) > settings.within * sizes) & (common > 0)
    if candidates.any():
        ious = common / np.maximum(sizes + mask.sum() - common, 1)
        chosen[np.where(candidates, ious, -1).argmax()] = True
    return proposals.union(chosen) & box if chosen.any() else None


def read_proposals(folder: Path, image_id: str, size: tuple[int, int]) -> MaskProposals:
    """The mask proposals of an image.

    Parameters
    ----------
    folder
        Folder of the proposals; ``/`` in an id is escaped as in the names of masks.
    size
        (H, W) of the image.

    Raises
    ------
    UserError
        If they are missing, cannot be read, or are of another size than the image.
    """
    picture, listed = proposal_files(folder, image_id)
    content = _listed(listed, image_id)
    if picture.is_file():
        return _of_superpixels(picture, listed, content, size)
    masks = np.zeros((len(content), *size), dtype=bool)
    for number, outline in enumerate(content):
        if not isinstance(outline, dict):
            told = f"is no run-length code, and there is no {picture.name} with superpixels beside it"
            raise UserError(f"{listed}: proposal {number} {told}")
        problem = outline_problem(outline, size)
        if problem:
            raise UserError(f"{listed}: proposal {number}: {problem}")
        masks[number] = inside(outline, size)
    return MaskProposals.of(masks)


def proposal_files(folder: Path, image_id: str) -> tuple[Path, Path]:
    """The picture of superpixels, which may be missing, and the list of the proposals of an image."""
    picture = Path(folder) / mask_name(image_id)
    return picture, picture.with_name(f"{picture.name.removesuffix('.png')}.json")


def proposal_digest(folder: Path, image_id: str) -> str:
    """Digest of the files of an image's proposals; "" without any."""
    content = [path.read_bytes() for path in proposal_files(folder, image_id) if path.is_file()]
    return hashlib.sha256(b"".join(content)).hexdigest() if content else ""


def _listed(path: Path, image_id: str) -> list[Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; every image needs its mask proposals, also {image_id!r}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, list):
        raise UserError(f"{path}: must hold a list with an entry for each mask proposal")
    return content


def _of_superpixels(picture: Path, listed: Path, content: list[Any], size: tuple[int, int]) -> MaskProposals:
    try:
        with Image.open(picture, formats=MASK_FORMATS) as image:
            numbers = np.asarray(image).astype(np.int64)
    except Exception as error:  # whatever a decoder raises is the matter of this file alone
        raise UserError(f"{picture}: cannot be read ({str(error) or type(error).__name__})") from error
    if numbers.shape != tuple(size):
        raise UserError(
            f"{picture}: must be grey and of the image's {size[1]}x{size[0]} pixels, not {list(numbers.shape)}"
        )
    present, dense = np.unique(numbers, return_inverse=True)
    index = {int(value): k for k, value in enumerate(present)}
    members = np.zeros((len(content), len(present)), dtype=bool)
    for number, held in enumerate(content):
        if not isinstance(held, list) or any(type(value) is not int for value in held):
            raise UserError(f"{listed}: proposal {number} is no list of numbers of superpixels")
        strange = next((value for value in held if value not in index), None)
        if strange is not None:
            raise UserError(f"{listed}: proposal {number} holds superpixel {strange}, which {picture.name} has not")
        members[number, [index[value] for value in held]] = True
    return MaskProposals(dense.reshape(numbers.shape), members)
