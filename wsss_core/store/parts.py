"""The parts of a record as they stand in an HDF5 group, each held against what it must be when it is read.

A file with a true digest may still be of another program or of an older version, and whatever computes on its content
would fail far away from it, or go on with nonsense. All functions raise ValueError, which a `RecordStore` turns into an
error that names the file and the image; a part that is not there is a KeyError of HDF5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from wsss_core.constants import IGNORE

MOST_SIDE = 2**20
"""Longest side of an image in pixels."""


def read_array(group: Any, name: str, kinds: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A dataset of a group.

    Parameters
    ----------
    kinds
        Letters of NumPy's kinds of numbers that it may hold: f, i, u, b.
    shape
        Length of every axis; None for any from 1 on.

    Raises
    ------
    ValueError
        If it is no dataset, of another kind or shape, or holds a number that is not finite.
    """
    held = group[name]
    if not isinstance(held, h5py.Dataset) or held.dtype.kind not in kinds:
        raise ValueError(f"{name} holds {getattr(held, 'dtype', 'no numbers')}")
    fits = len(held.shape) == len(shape) and all(
        length == expected or (expected is None and length > 0)
        for length, expected in zip(held.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} is {list(held.shape)}, expected {[n or 'any' for n in shape]}")
    values = held[()]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return values


def read_size(group: Any) -> tuple[int, int]:
    """(H, W) of the image, from the attribute size."""
    height, width = _integers(group.attrs["size"], "size")
    if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE):
        raise ValueError(f"size is {height}x{width}")
    return height, width


def read_stride(group: Any) -> int:
    """Pixels between the cells of a map, from the attribute stride."""
    (stride,) = _integers(group.attrs["stride"], "stride")
    if not 0 < stride <= MOST_SIDE:
        raise ValueError(f"stride is {stride}")
    return stride


def read_classes(group: Any) -> tuple[int, ...]:
    """The classes that are present, from the attribute classes: different numbers from 0 to 253."""
    classes = _integers(group.attrs["classes"], "classes")
    if len(set(classes)) != len(classes):
        raise ValueError("a class stands twice")
    return require_classes(classes)


def require_classes(classes: Any) -> Any:
    """The numbers of classes, if all are from 0 to 253, for which masks have room."""
    if any(not 0 <= c < IGNORE - 1 for c in classes):
        raise ValueError(f"a class is none of 0 to {IGNORE - 2}")
    return classes


def read_statistics(group: Any) -> Mapping[str, Any]:
    """What a method recorded about an image, from the attribute statistics."""
    content = json.loads(group.attrs["statistics"])
    if not isinstance(content, dict):
        raise ValueError("statistics are no mapping")
    return content


def _integers(value: Any, name: str) -> tuple[int, ...]:
    values = np.atleast_1d(np.asarray(value))
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise ValueError(f"{name} is {value!r:.40}")
    return tuple(int(n) for n in values)
