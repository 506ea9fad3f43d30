"""Class maps as files of numpy: ``maps``, uint8 [K, H, W] in units of 1/255, and ``classes``, the K names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss_core.exchange import SoftMaps
from wsss_core.store.atomic import atomic_path
from wsss_core.store.own import require_own


def write(folder: Path, maps: SoftMaps) -> None:
    """Write ``NAME.npz``."""
    path = folder / f"{maps.stem}.npz"
    require_own(path, _is_own)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, maps=maps.values, classes=np.array(maps.classes, dtype=str))


def _is_own(path: Path) -> bool:
    with np.load(path) as held:
        return set(held.files) == {"maps", "classes"}
