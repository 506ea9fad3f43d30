"""Maps that another program has made: of any published method, or of a foundation model, as files in a folder.

What is read, and how its classes are told, by the file's ending:

========================  ==========================================================================================
``.npz``, ``.h5``         a map [h, w] for each name of a class; or ``maps`` [K, h, w] and ``classes``, their names
``.npy``, one array       maps [C, h, w] of all classes in the order of the data set, or of the setting `classes`
``.npy``, a dictionary    a map for each number of a class, from 0 (PSA, SEAM); or ``keys`` and ``high_res``, else
                          ``cam`` (IRN, AdvCAM, RIB)
``.png`` and the like     one grey map, 0 to 255 or to 65535, of the class in the file's name
========================  ==========================================================================================

Maps of any size cover the whole photo and are resized to it (bilinear). Of the tags of a photo each needs a map; maps
of other classes are left out. As of every seed, each map is divided by its own maximum where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from wsss_core.constants import IGNORE
from wsss_core.data.arrays import read_arrays
from wsss_core.data.table import ImageRecord
from wsss_core.errors import UserError
from wsss_core.settings import REQUIRED, setting
from wsss_core.store.masks import read_grey, read_mask, tried_names
from wsss_core.store.seeds import SeedMaps

ARRAYS = (".npz", ".npy", ".h5")
PICTURES = (".png", ".tif", ".tiff", ".bmp")
STRIDE = 4
"""Maps are kept at the photo's size, rounded up to multiples of this: just what `SeedMaps` cuts back to it."""
BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class ExternalSettings:
    """Maps from files."""

    folder: str = setting(REQUIRED, "folder of the maps or label masks")
    pattern: str = setting(
        "{image}",
        "name of a file in the folder: {image} stands for the image's id or the name of its file, {class} for the name "
        "of a class and {number} for its number from 0; without an ending, .npz, .npy, .h5 and .png are looked for",
        pattern=r"\{image\}",
    )
    content: Literal["maps", "labels"] = setting(
        "maps",
        "maps: class maps; labels: label masks of the photos' sizes, 0 background, c + 1 class c, 255 undecided, whose "
        "maps are 1 where the label is, 0.5 where it is undecided",
    )
    classes: tuple[str, ...] = setting(
        (),
        "names of the maps of an array in their order, background among them if it is; []: the classes of the data set",
    )
    missing: Literal["stop", "empty"] = setting(
        "stop", "where a tag of a photo has no map: stop, or an empty one, which finds nothing"
    )


def files(settings: ExternalSettings, record: ImageRecord, class_names: Sequence[str]) -> list[Path]:
    """The files of an image's maps that there are, those of its tags alone where a file is of one class."""
    found = (_found(settings, record, class_names, c) for c in _wanted(settings, record))
    return [path for path in found if path is not None]


def maps(settings: ExternalSettings, record: ImageRecord, class_names: Sequence[str]) -> SeedMaps:
    """The maps of an image's tags.

    Raises
    ------
    UserError
        If the folder, a file or the map of a tag is missing, a file cannot be read or does not tell its classes, or a
        map holds a negative number or one that is not finite.
    """
    if not Path(settings.folder).is_dir():
        raise UserError(f"external maps {settings.folder}: is not a folder")
    held: dict[int, np.ndarray] = {}
    for c in _wanted(settings, record):
        path = _found(settings, record, class_names, c)
        if path is not None:
            held |= _read(path, settings, record, class_names, c)
        elif settings.missing == "stop":
            raise UserError(_looked_for(settings, record, class_names, c))
    lacking = [class_names[c] for c in record.classes if c not in held]
    if lacking and settings.missing == "stop":
        raise UserError(
            f"external maps {settings.folder}: image {record.id!r} has the tags "
            f"{', '.join(class_names[c] for c in record.classes)}, but no map of {', '.join(lacking)}"
        )
    nothing = np.zeros((1, 1), np.float32)
    planes = [_covering(held.get(c, nothing), record.size) for c in record.classes]
    return SeedMaps(record.classes, {1.0: torch.cat(planes)} if planes else {}, record.size, stride=STRIDE)


def _wanted(settings: ExternalSettings, record: ImageRecord) -> Sequence[int | None]:
    """The classes that have a file each; None for one file of all."""
    single = "{class}" in settings.pattern or "{number}" in settings.pattern
    return record.classes if single else [None]


def _names(settings: ExternalSettings, record: ImageRecord, class_names: Sequence[str], c: int | None) -> Iterator[str]:
    """Names under which a file is looked for."""
    for name in tried_names(record.id, record.path):
        text = settings.pattern.replace("{image}", name.removesuffix(".png"))
        if c is not None:
            text = text.replace("{class}", class_names[c]).replace("{number}", str(c))
        ended = Path(settings.pattern).suffix.lower() in (*ARRAYS, *PICTURES, ".hdf5")
        yield from [text] if ended else [text + suffix for suffix in (*ARRAYS, *PICTURES)]


def _found(settings: ExternalSettings, record: ImageRecord, class_names: Sequence[str], c: int | None) -> Path | None:
    folder = Path(settings.folder)
    names = _names(settings, record, class_names, c)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _looked_for(settings: ExternalSettings, record: ImageRecord, class_names: Sequence[str], c: int | None) -> str:
    names = list(_names(settings, record, class_names, c))
    there = next((path.name for path in sorted(Path(settings.folder).iterdir())), "")
    lies = f"there lies {there}" if there else "the folder is empty"
    return (
        f"external maps {settings.folder}: no file of image {record.id!r}; looked for {names[0]} and {len(names) - 1} "
        f"other names, {lies} (setting pattern, or missing: empty)"
    )


def _read(
    path: Path, settings: ExternalSettings, record: ImageRecord, class_names: Sequence[str], c: int | None
) -> dict[int, np.ndarray]:
    """Class to map [h, w] of those that a file holds."""
    if settings.content == "labels":
        labels = read_mask(path, record.size, len(class_names) + 1)
        shown = {k: np.where(labels == IGNORE, 0.5, labels == k + 1) for k in range(len(class_names))}
        return {k: plane.astype(np.float32) for k, plane in shown.items()}
    if path.suffix.lower() in PICTURES:
        if c is None:
            raise UserError(f"{path}: is one map, of which class is not said: give pattern a {{class}} or {{number}}")
        return {c: read_grey(path)}
    held = read_arrays(path)
    if isinstance(held, np.ndarray):
        found = {c: held} if c is not None and held.ndim == 2 else _stack(path, held, settings.classes, class_names)
    else:
        found = _by_name(path, held, class_names)
    return {k: _checked(path, plane, class_names[k]) for k, plane in found.items()}


def _stack(path: Path, planes: np.ndarray, given: Sequence[str], class_names: Sequence[str]) -> dict[int, np.ndarray]:
    """The planes [C, h, w] of an array by their classes."""
    names = list(given) or list(class_names)
    if planes.ndim != 3 or len(planes) != len(names):
        shape = "x".join(map(str, planes.shape))
        raise UserError(
            f"{path}: holds an array of {shape}, expected {len(names)} maps; the setting classes names them in order"
        )
    return _named(path, dict(zip(names, planes, strict=True)), class_names)


def _by_name(path: Path, held: Mapping[Any, Any], class_names: Sequence[str]) -> dict[int, np.ndarray]:
    if "keys" in held and ("high_res" in held or "cam" in held):  # IRN and what is built on it
        planes = np.asarray(held["high_res"] if "high_res" in held else held["cam"])
        return _numbered(path, dict(zip(np.asarray(held["keys"]).tolist(), planes, strict=True)), class_names)
    if set(held) == {"maps", "classes"}:
        return _named(path, dict(zip(np.asarray(held["classes"]).tolist(), held["maps"], strict=True)), class_names)
    if held and all(isinstance(key, (int, np.integer)) for key in held):
        return _numbered(path, {int(key): np.asarray(plane) for key, plane in held.items()}, class_names)
    return _named(path, held, class_names)


def _numbered(path: Path, planes: Mapping[int, np.ndarray], class_names: Sequence[str]) -> dict[int, np.ndarray]:
    wrong = [c for c in planes if not 0 <= c < len(class_names)]
    if wrong:
        raise UserError(f"{path}: holds the class {wrong[0]}; the data set has the classes 0 to {len(class_names) - 1}")
    return dict(planes)


def _named(path: Path, planes: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[int, np.ndarray]:
    numbers = {name: c for c, name in enumerate(class_names)}
    wrong = [str(name) for name in planes if name not in numbers and name != BACKGROUND]
    if wrong:
        raise UserError(f"{path}: {wrong[0]!r} is no class of the data set, which has {', '.join(class_names)}")
    return {numbers[name]: np.asarray(plane) for name, plane in planes.items() if name != BACKGROUND}


def _checked(path: Path, plane: np.ndarray, name: str) -> np.ndarray:
    if plane.ndim != 2 or not plane.size or plane.dtype.kind not in "fiub":
        raise UserError(f"{path}: the map of {name} is {plane.dtype} {plane.shape}, expected numbers [h, w]")
    values = plane.astype(np.float32)
    if not np.isfinite(values).all() or values.min() < 0:
        kind = "negative numbers" if np.isfinite(values).all() else "numbers that are not finite"
        raise UserError(f"{path}: the map of {name} holds {kind}; maps begin at 0, where nothing of the class is")
    return values


def _covering(plane: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """A map at an image's size (H, W), enlarged at its end to multiples of `STRIDE`: [1, H', W']."""
    values = torch.from_numpy(np.ascontiguousarray(plane))[None, None]
    if values.shape[2:] != size:
        values = F.interpolate(values, size, mode="bilinear", align_corners=False)
    return F.pad(values, (0, -size[1] % STRIDE, 0, -size[0] % STRIDE), mode="replicate")[0]
