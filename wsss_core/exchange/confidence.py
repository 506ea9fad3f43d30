"""How sure class maps are of their strongest class: grey PNGs, 255 where it is surest, 0 where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss_core.exchange import SoftMaps
from wsss_core.store.masks import write_picture


def write(folder: Path, maps: SoftMaps) -> None:
    """Write ``NAME.png``."""
    size = maps.values.shape[1:]
    write_picture(folder / f"{maps.stem}.png", maps.values.max(0) if len(maps.values) else np.zeros(size, np.uint8))
