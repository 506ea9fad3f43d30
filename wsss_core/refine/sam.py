"""Label masks by SAM or SAM 2: the maps say what and where, the network where it ends.

Each piece of a class's map above the threshold becomes one prompt: its highest points, its box and itself as a rough
mask. What the network answers takes the label of the class. Where masks M_k of several classes meet, the one of the
highest score wins::

    s_k = (predicted IoU of M_k) (mean of the class's map over M_k)

Pixels of no mask are background. Networks: `wsss_core.models.sam`. The prompts and this score are this project's;
points of maps as prompts are in Chen & Sun (arXiv 2305.05803), scores of SAM's masks by maps in Chen et al. (SEPL,
arXiv 2305.01275).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from wsss_core.data.decoded import read_image_of
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.models.sam import NO_POINT, Prompts, Sam
from wsss_core.refine import MaskInputs, MaskMaker, Threshold, cut_at, highest_label, threshold_of
from wsss_core.settings import REQUIRED, setting

SURE = 8.0
"""Logit of a rough mask where it is surest, and less of it where it is surely not the object."""


@dataclass(frozen=True, kw_only=True)
class SamSettings:
    """Masks of SAM or SAM 2 for prompts mined from seed maps."""

    weights: str = setting(
        REQUIRED, "folder of a SAM or SAM 2 checkpoint as transformers saves it, on this machine; nothing is fetched"
    )
    threshold: Threshold = setting(
        0.3,
        "background threshold on maps in [0, 1], above which the pieces lie; otsu: that of each image's own maps, no "
        "masks used; score: what the seed's score rule chose; oracle: the best value in hindsight, which uses the "
        "masks",
        minimum=0,
        maximum=1,
    )
    points: int = setting(3, "most points of a piece; 0: none", minimum=0)
    box: bool = setting(True, "whether the box around a piece is given too")
    mask: bool = setting(True, "whether the piece is given as a rough mask too")
    candidates: Literal[1, 3] = setting(
        1, "masks that the network makes of a prompt, of which the one of highest predicted IoU is taken"
    )
    smallest: float = setting(
        0.001, "pieces of a smaller part of the image's pixels are left out, but for a class's largest", minimum=0
    )
    at_once: int = setting(16, "most prompts that pass the decoder together; bounds memory", minimum=1)


@dataclass(frozen=True)
class Piece:
    """A connected piece of a class's map above the threshold.

    Attributes
    ----------
    number
        Index of the class among those present.
    inside
        Its pixels, bool [H, W].
    """

    number: int
    inside: np.ndarray


def maker(settings: SamSettings, inputs: MaskInputs) -> MaskMaker:
    """Masks of SAM.

    Raises
    ------
    UserError
        If nothing is to be prompted with, the checkpoint cannot be loaded or the threshold asked for is not known;
        making masks: if an image cannot be read.
    """
    if not (settings.points or settings.box or settings.mask):
        raise UserError("points 0, box false and mask false leave nothing to prompt with")
    network = Sam(Path(settings.weights), inputs.device)
    given = [f"{settings.points} points"] * (settings.points > 0) + ["box"] * settings.box + ["mask"] * settings.mask
    described = f"{network.kind} ({Path(settings.weights).name}), prompts: {', '.join(given)}"
    cut = replace(cut_at(settings.threshold, inputs.chosen), notes=(described,))

    def make(records: Sequence[ImageRecord]) -> list[np.ndarray]:
        return [one(record) for record in records]

    def one(record: ImageRecord) -> np.ndarray:
        maps = inputs.maps[record.id]
        image, full = read_image_of(record, maps.size), maps.full().cpu()
        return sam_mask(network, image, full.numpy(), maps.classes, threshold_of(cut, full), settings)

    return MaskMaker(cut, make)


def sam_mask(
    network: Sam, image: np.ndarray, maps: np.ndarray, classes: Sequence[int], threshold: float, settings: SamSettings
) -> np.ndarray:
    """Label mask of one image.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    maps
        Seed maps at full resolution, each class scaled to [0, 1], float [K, H, W].
    classes
        The K present classes, 0-based.
    threshold
        Background threshold.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c.
    """
    found = pieces(maps, threshold, settings.smallest)
    masks, iou = network.masks(
        image, prompts_of(found, maps, threshold, settings), settings.candidates, settings.at_once
    )
    return merged(masks, iou, [piece.number for piece in found], maps, classes)


def pieces(maps: np.ndarray, threshold: float, smallest: float) -> list[Piece]:
    """Connected pieces (of 8 neighbours) of the labels that maps give above the threshold, class by class.

    Parameters
    ----------
    maps
        float [K, H, W].
    smallest
        Part of the pixels below which a piece is left out, unless it is the largest of its class.

    Examples
    --------
    >>> maps = np.zeros((2, 4, 10))
    >>> maps[0, 1:3, 1:3], maps[1, 0, 9], maps[0, 3, 8] = 0.9, 0.5, 0.6
    >>> [(piece.number, int(piece.inside.sum())) for piece in pieces(maps, 0.3, 0.05)]
    [(0, 4), (1, 1)]
    """
    import cv2

    if not len(maps):
        return []
    labels = highest_label(torch.from_numpy(maps), threshold).numpy()
    found = []
    for number in range(len(maps)):
        count, parts, about, _ = cv2.connectedComponentsWithStats((labels == number + 1).astype(np.uint8))
        areas = about[:, cv2.CC_STAT_AREA]
        largest = 1 + int(areas[1:].argmax()) if count > 1 else 0
        kept = [part for part in range(1, count) if areas[part] >= smallest * labels.size or part == largest]
        found += [Piece(number, parts == part) for part in kept]
    return found


def peaks(values: np.ndarray, inside: np.ndarray, count: int) -> np.ndarray:
    """The highest points of a piece, spread over it.

    Each is the pixel of the highest value, the first by row and column of equal ones, that is farther from all before
    than half the side of a square of 1 / count of the piece's area.

    Parameters
    ----------
    values, inside
        The class's map and the piece, [H, W].
    count
        Most points.

    Returns
    -------
    (x, y), float32 [P, 2] with 1 ≤ P ≤ count; [0, 2] for a count of 0.

    Examples
    --------
    >>> values = np.array([[0.5, 0.9, 0.8, 0.1, 0.7, 0.2]])
    >>> peaks(values, np.ones((1, 6), dtype=bool), 2).tolist()
    [[1.0, 0.0], [2.0, 0.0]]
    >>> peaks(values, np.ones((1, 6), dtype=bool), 1).tolist()
    [[1.0, 0.0]]
    """
    rows, columns = np.nonzero(inside)
    order = np.argsort(-values[rows, columns], kind="stable")
    places = np.stack([columns, rows], 1)[order].astype(np.float32)
    apart = np.sqrt(len(places) / max(count, 1)) / 2
    chosen: list[np.ndarray] = []
    while len(chosen) < count and len(places):
        chosen.append(places[0])
        places = places[((places - places[0]) ** 2).sum(1) > apart**2]
    return np.array(chosen, dtype=np.float32).reshape(-1, 2)


def rough(values: np.ndarray, inside: np.ndarray, threshold: float) -> np.ndarray:
    """A piece as logits: those of its map less that of the threshold, at most `SURE`, and -`SURE` elsewhere.

    Parameters
    ----------
    values, inside
        The class's map and the piece, [H, W].

    Examples
    --------
    >>> values = np.array([[0.5, 0.75, 1.0, 0.9]])
    >>> rough(values, np.array([[True, True, True, False]]), 0.5).astype(float).round(3).tolist()
    [[0.0, 1.099, 8.0, -8.0]]
    """
    held = np.clip(values.astype(np.float64), 1e-6, 1 - 1e-6)
    at = min(max(threshold, 1e-6), 1 - 1e-6)
    logits = np.log(held / (1 - held)) - np.log(at / (1 - at))
    return np.where(inside, np.clip(logits, -SURE, SURE), -SURE).astype(np.float32)


def prompts_of(found: Sequence[Piece], maps: np.ndarray, threshold: float, settings: SamSettings) -> Prompts:
    """A prompt of each piece: points, box (right and lower edge exclusive) and rough mask, as the settings ask for."""
    if not found:
        return Prompts()
    points = labels = boxes = masks = None
    if settings.points:
        tops = [peaks(maps[piece.number], piece.inside, settings.points) for piece in found]
        most = max(len(one) for one in tops)
        points = torch.zeros(len(found), most, 2)
        labels = torch.full((len(found), most), NO_POINT)
        for number, one in enumerate(tops):
            points[number, : len(one)] = torch.from_numpy(one)
            labels[number, : len(one)] = 1
    if settings.box:
        boxes = torch.tensor([_around(piece.inside) for piece in found], dtype=torch.float32)
    if settings.mask:
        logits = [rough(maps[piece.number], piece.inside, threshold) for piece in found]
        masks = torch.from_numpy(np.stack(logits))
    return Prompts(points, labels, boxes, masks)


def merged(
    masks: np.ndarray, iou: np.ndarray, numbers: Sequence[int], maps: np.ndarray, classes: Sequence[int]
) -> np.ndarray:
    """One label mask of the masks of several prompts; where they meet, that of the highest score wins, or the first.

    Parameters
    ----------
    masks
        bool [N, H, W].
    iou
        Predicted IoU of each, [N].
    numbers
        Index of the class of each among those present.
    maps
        Seed maps [K, H, W].
    classes
        The K present classes, 0-based.

    Returns
    -------
    uint8 [H, W]: 0 background, c + 1 class c.

    Examples
    --------
    >>> masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], dtype=bool)
    >>> maps = np.array([[[0.9, 0.7, 0.1, 0.0]], [[0.0, 0.4, 0.8, 0.0]]])
    >>> merged(masks, np.array([0.5, 0.9]), [0, 1], maps, [4, 7]).tolist()  # scores 0.5 · 0.8 and 0.9 · 0.6
    [[5, 8, 8, 0]]
    """
    labels, best = np.zeros(maps.shape[1:], dtype=np.uint8), np.full(maps.shape[1:], -1.0)
    for mask, predicted, number in zip(masks, iou, numbers, strict=True):
        if not mask.any():
            continue
        score = float(predicted) * float(maps[number][mask].mean())
        wins = mask & (score > best)
        labels[wins], best[wins] = classes[number] + 1, score
    return labels


def _around(inside: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the pixels of a piece, x1 and y1 exclusive."""
    rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
