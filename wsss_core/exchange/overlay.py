"""Pictures for people: label masks over their photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss_core.data.decode import read_image
from wsss_core.exchange import Labelled
from wsss_core.report.overlays import mask_overlay
from wsss_core.store.masks import write_picture


def write(folder: Path, images: Iterable[Labelled], class_names: Sequence[str]) -> None:
    """Write ``NAME.png`` of every image."""
    for image in images:
        write_picture(folder / f"{image.stem}.png", mask_overlay(read_image(image.photo), image.labels))
