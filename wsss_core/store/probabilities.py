"""Probabilities of a photo's labels as a file of numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss_core.store.atomic import atomic_path
from wsss_core.store.own import require_own


def write_probabilities(path: Path, probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    """Write uint8 [L, H, W], in units of 1/255, background first, with the names of the labels, as ``.npz``.

    Raises
    ------
    UserError
        If there is a file already that is none of these.

    Examples
    --------
    >>> write_probabilities(Path("photo.npz"), np.full((2, 3, 4), 51, np.uint8), ["cow"])
    >>> with np.load("photo.npz") as held:
    ...     held["labels"].tolist(), float(held["probabilities"][0, 0, 0] / 255)
    (['background', 'cow'], 0.2)
    """
    check_own_probabilities(path)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, probabilities=probabilities, labels=np.array(["background", *class_names]))


def check_own_probabilities(path: Path) -> None:
    """Raise UserError if there is a file that `write_probabilities` did not write."""
    require_own(path, _is_own)


def _is_own(path: Path) -> bool:
    with np.load(path) as held:
        return set(held.files) == {"probabilities", "labels"}
