"""Images of the toy experiment: digits 2 and 8, some of them beside a circle or a square (RIB, section 3.1)."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsss_core import keyed
from wsss_core.errors import UserError

log = logging.getLogger(__name__)

DIGITS = (2, 8)
"""The digits of class 0, which the circle belongs to, and of class 1, which the square belongs to."""

SIDE = 28
INK = 0.2
"""A pixel of a digit is part of its region where it is brighter."""

MARK = 7
"""Side of the square and diameter of the circle in pixels."""

MNIST_FILES = ("train", "t10k")


@dataclass(frozen=True)
class ToyImages:
    """N images with their regions.

    Attributes
    ----------
    images
        float32 [N, 28, 28] in 0..1, background 0.
    classes
        int64 [N]: 0 for the digit 2, 1 for the digit 8.
    digits, marks
        bool [N, 28, 28]: pixels of the digit, which are discriminative, and of the circle or square, which are
        class-relevant but not discriminative. They do not overlap.
    """

    images: np.ndarray
    classes: np.ndarray
    digits: np.ndarray
    marks: np.ndarray

    @property
    def regions(self) -> dict[str, np.ndarray]:
        """Masks bool [N, 28, 28] of the paper's regions: R_D, R_ND and R_BG."""
        return {
            "discriminative": self.digits,
            "non-discriminative": self.marks,
            "background": ~(self.digits | self.marks),
        }


def toy_images(
    folder: Path | None, *, measured: int, tried: int = 0, marked: float, seed: int
) -> tuple[ToyImages, ToyImages, ToyImages]:
    """Images to train on, images to measure and images to try rates on; all of the latter two have a mark.

    Parameters
    ----------
    folder
        Folder of MNIST's idx files, or None for scikit-learn's digits.
    measured
        Number of the images to measure, half of them of either class. They do not depend on `tried`.
    tried
        Number of the images to try rates on, half of them of either class.
    marked
        Fraction of the training images of each class that get a mark.

    Raises
    ------
    UserError
        If the files cannot be read or hold too few digits.
    """
    images, digits = mnist(folder) if folder else small_digits()
    train: list[int] = []
    held: tuple[list[int], list[int]] = [], []
    with_mark: list[int] = []
    for number, digit in enumerate(DIGITS):
        found = np.flatnonzero(digits == digit)
        order = keyed.generator(seed, "toy", "split", digit).permutation(found).tolist()
        for images_of_part, count in zip(held, (measured, tried), strict=True):
            wanted = (count + 1 - number) // 2
            images_of_part += order[:wanted]
            order = order[wanted:]
        if len(order) < 10:
            raise UserError(
                f"toy.measured, toy.tried: {measured} images to measure and {tried} to try rates on leave {len(order)} "
                f"of the {len(found)} images of the digit {digit} to train on; leave at least 10"
            )
        train += order
        with_mark += order[: round(marked * len(order))]
    shown, others = (_drawn(images, digits, part, set(part), seed) for part in held)
    return _drawn(images, digits, train, set(with_mark), seed), shown, others


def _drawn(images: np.ndarray, digits: np.ndarray, chosen: Sequence[int], marked: set[int], seed: int) -> ToyImages:
    pictures, marks = images[chosen].copy(), np.zeros((len(chosen), SIDE, SIDE), dtype=bool)
    classes = np.array([DIGITS.index(digits[k]) for k in chosen])
    ink = pictures > INK
    for row, index in enumerate(chosen):
        if index in marked:
            marks[row] = mark(ink[row], int(classes[row]), keyed.generator(seed, "toy", "mark", int(index)))
    pictures[marks] = 1.0
    return ToyImages(pictures, classes, ink & ~marks, marks)


def mark(ink: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """A circle (class 0) or square (class 1) at a random place that leaves the digit free.

    Parameters
    ----------
    ink
        bool [H, W]: pixels of the digit. If no place is free of them, one of those that hide the fewest is taken.

    Returns
    -------
    bool [H, W], the pixels of the mark.
    """
    shape = (circle, square)[label]()
    hidden = cv2.filter2D(ink.astype(np.float32), -1, shape.astype(np.float32), anchor=(0, 0), borderType=0)
    hidden = hidden[: ink.shape[0] - MARK + 1, : ink.shape[1] - MARK + 1].round()
    places = np.argwhere(hidden == hidden.min())
    top, left = places[rng.integers(len(places))]
    drawn = np.zeros_like(ink)
    drawn[top : top + MARK, left : left + MARK] = shape
    return drawn


def circle() -> np.ndarray:
    """A disc in a bool [7, 7]."""
    offset = np.arange(MARK) - (MARK - 1) / 2
    return np.hypot(offset[:, None], offset) <= MARK / 2


def square() -> np.ndarray:
    """All of a bool [7, 7]."""
    return np.ones((MARK, MARK), dtype=bool)


def small_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits of 8x8 pixels enlarged to 20x20 in the middle of 28x28, as MNIST has them.

    Returns
    -------
    Images float32 [N, 28, 28] in 0..1, and digits int64 [N].
    """
    from sklearn.datasets import load_digits

    content = load_digits()
    images = np.zeros((len(content.target), SIDE, SIDE), dtype=np.float32)
    for canvas, small in zip(images, content.images, strict=True):
        large = cv2.resize((small / 16).astype(np.float32), (20, 20), interpolation=cv2.INTER_CUBIC)
        canvas[4:24, 4:24] = large.clip(0, 1)
    return images, content.target.astype(np.int64)


def mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The digits of the MNIST idx files in a folder: of `train`, of `t10k`, or of both if it has both.

    Returns
    -------
    Images float32 [N, 28, 28] in 0..1, and digits int64 [N].

    Raises
    ------
    UserError
        If there are none, or they cannot be read.
    """
    pairs = [(read_idx(images), read_idx(labels)) for images, labels in mnist_files(folder)]
    for images, labels in pairs:
        if images.shape[1:] != (SIDE, SIDE) or labels.shape != images.shape[:1]:
            raise UserError(f"{folder}: images {images.shape} and labels {labels.shape} are not those of MNIST")
    images, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return images.astype(np.float32) / 255, labels.astype(np.int64)


def mnist_files(folder: Path) -> list[tuple[Path, Path]]:
    """Pairs of an image file and its label file, packed by gzip or not; UserError if there is none."""
    pairs = []
    for part in MNIST_FILES:
        names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
        images, labels = (next((p for p in (folder / n, folder / f"{n}.gz") if p.is_file()), None) for n in names)
        if images and labels:
            pairs.append((images, labels))
    if not pairs:
        raise UserError(f"toy.mnist: {folder} holds no pair of t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (.gz)")
    return pairs


def read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes, packed by gzip or not.

    Raises
    ------
    UserError
        If it is not one.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("no idx file of unsigned bytes")
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
