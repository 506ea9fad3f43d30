"""A folder as PASCAL VOC's: ``SegmentationClass/NAME.png``, ``ImageSets/Segmentation/default.txt``, ``labelmap.txt``.

``labelmap.txt`` says the colour of every label, a line ``name:r,g,b::`` each, as CVAT and Datumaro read it; the folder,
zipped, is what CVAT imports as "Segmentation mask 1.1". Where pixels are undecided, their colour has the name ``void``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from wsss_core.constants import IGNORE
from wsss_core.errors import UserError
from wsss_core.exchange import Labelled, write_new
from wsss_core.store.masks import voc_palette, write_mask


def write(folder: Path, images: Iterable[Labelled], class_names: Sequence[str]) -> None:
    """Write the masks, their list, and the colours of the labels.

    Raises
    ------
    UserError
        If the name of a class has a colon, which parts the columns of ``labelmap.txt``.
    """
    wrong = next((name for name in class_names if ":" in name or "\n" in name), None)
    if wrong is not None:
        raise UserError(f"class {wrong!r}: labelmap.txt has no way to write a colon or a line break in a name")
    named = dict(enumerate(["background", *class_names]))
    names = []
    for image in images:
        write_mask(folder / "SegmentationClass" / f"{image.stem}.png", image.labels)
        names.append(image.stem)
        if (image.labels == IGNORE).any():
            named[IGNORE] = "void"
    colours = voc_palette().tolist()
    lines = [f"{name}:{','.join(map(str, colours[label]))}::\n" for label, name in named.items()]
    write_new(folder / "labelmap.txt", "".join(["# label:color_rgb:parts:actions\n", *lines]))
    write_new(folder / "ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in names))
