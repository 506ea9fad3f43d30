"""Label masks as grey PNGs, whose grey levels are the labels, beside `classes.txt`.

Programs that read a picture as grey (``cv2.imread(path, 0)``) turn the colours of a palette into shades, so that label
5 of PASCAL VOC's colours is read as 52; here they read a 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss_core.exchange import Labelled, write_names
from wsss_core.store.masks import write_picture


def write(folder: Path, images: Iterable[Labelled], class_names: Sequence[str]) -> None:
    """Write ``NAME.png`` of every image, and ``classes.txt``."""
    write_names(folder, class_names)
    for image in images:
        write_picture(folder / f"{image.stem}.png", image.labels)
