"""Prediction of any photos by a trained network: what `wsss predict` does.

Every photo gets a mask; overlays, probabilities and a table of what was found are written where they are asked for. A
photo that cannot be read or predicted is told, and the others go on.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from wsss_core.data.decode import IMAGE_SUFFIXES, image_size, read_image
from wsss_core.data.folders import walk
from wsss_core.data.reading import read_text
from wsss_core.errors import UserError
from wsss_core.jobs.together import batches, read_ahead, view_pixels
from wsss_core.models.deeplab import DeepLabV2
from wsss_core.pace import Clock
from wsss_core.report.overlays import fitted, mask_overlay, resized, resized_labels
from wsss_core.segment.predict import Predictor, probabilities_of
from wsss_core.segment.tiles import Tiling, probability_bands
from wsss_core.store.atomic import write_text
from wsss_core.store.cells import cell
from wsss_core.store.masks import check_replaceable, write_mask, write_picture
from wsss_core.store.own import require_own, says
from wsss_core.store.probabilities import check_own_probabilities, write_probabilities

log = logging.getLogger(__name__)

COLUMNS = ("image", "mask", "height", "width", "class", "pixels", "share", "problem")
"""Of the table of what was found."""

OVERLAY_SIDE = 1600
"""Longer side of an overlay, in pixels, at most."""


@dataclass(frozen=True)
class Photo:
    """A photo to predict.

    Attributes
    ----------
    path
        The file.
    name
        What its results are called, without an ending; with "/" where they lie in sub-folders.
    size
        (H, W) as shown.
    problem
        Why it cannot be read, or "".
    """

    path: Path
    name: str
    size: tuple[int, int] = (0, 0)
    problem: str = ""


@dataclass(frozen=True)
class Outputs:
    """Where results go; what is None is not written."""

    masks: Path
    overlays: Path | None = None
    probabilities: Path | None = None
    table: Path | None = None

    def mask(self, photo: Photo) -> Path:
        """The palette PNG of a photo's labels."""
        return self.masks / f"{photo.name}.png"

    def overlay(self, photo: Photo) -> Path | None:
        """The picture of its labels over it."""
        return self.overlays and self.overlays / f"{photo.name}.png"

    def soft(self, photo: Photo) -> Path | None:
        """The file of its probabilities."""
        return self.probabilities and self.probabilities / f"{photo.name}.npz"


@dataclass(frozen=True)
class Found:
    """What became of a photo: the pixels of each label, background first, or the problem that it had."""

    photo: Photo
    pixels: tuple[int, ...] = ()
    problem: str = ""


def find_photos(given: Sequence[Path], listed: Path | None = None) -> list[Photo]:
    """The photos that paths name, each once, in order.

    Parameters
    ----------
    given
        Files; or folders, of which every image below them is taken.
    listed
        A text file with a path a line, as they would be given; empty lines and those that begin with # do not count.

    Returns
    -------
    The photos. Names are their paths from the folder that all lie in, without their endings; with them, if two photos
    would be called alike otherwise, so that no two names are the same.

    Raises
    ------
    UserError
        If a path does not exist, or there is no photo.

    Examples
    --------
    >>> from PIL import Image
    >>> for name in ("photos/a.jpg", "photos/sub/a.png"):
    ...     Path(name).parent.mkdir(exist_ok=True)
    ...     Image.new("RGB", (6, 4)).save(name)
    >>> [(photo.name, photo.size) for photo in find_photos([Path("photos")])]
    [('a', (4, 6)), ('sub/a', (4, 6))]
    """
    lines = [line.strip() for line in read_text(listed).splitlines()] if listed else []
    paths = [*given, *(Path(line) for line in lines if line and not line.startswith("#"))]
    files: dict[str, Path] = {}
    tops = []
    for path in paths:
        if path.is_dir():
            tops.append(os.path.abspath(path))
            entries = [entry for entry in walk(path) if entry.name.lower().endswith(IMAGE_SUFFIXES)]
            files |= {os.path.abspath(path / entry.name): path / entry.name for entry in entries}
        elif path.exists():
            tops.append(os.path.dirname(os.path.abspath(path)))
            files.setdefault(os.path.abspath(path), path)
        else:
            raise UserError(f"{path}: there is no such file or folder{f', which {listed} names' if listed else ''}")
    if not files:
        raise UserError(f"{', '.join(map(str, paths)) or listed}: there is no photo ({', '.join(IMAGE_SUFFIXES)})")
    inner = [Path(os.path.relpath(file, os.path.commonpath(tops))).as_posix() for file in files]
    short = [os.path.splitext(name)[0] for name in inner]
    names = short if len({name.casefold() for name in short}) == len(short) else inner
    return [_looked_at(path, name) for path, name in zip(files.values(), names, strict=True)]


def _looked_at(path: Path, name: str) -> Photo:
    try:
        return Photo(path, name, image_size(path))
    except UserError as error:
        return Photo(path, name, problem=str(error))


def require_free(photos: Sequence[Photo], outputs: Outputs) -> None:
    """Raise UserError if a result would replace a photo, another result, or a file that was not made here."""
    taken = {os.path.realpath(photo.path): "a photo" for photo in photos}
    for photo in photos:
        soft = outputs.soft(photo)
        pictures = [path for path in (outputs.mask(photo), outputs.overlay(photo)) if path]
        for path in filter(None, (*pictures, soft)):
            before = taken.get(os.path.realpath(path))
            if before:
                raise UserError(f"{path}: is {before}, which a result of {photo.path} would replace; write elsewhere")
            taken[os.path.realpath(path)] = f"a result of {photo.path}"
        for path in pictures:
            check_replaceable(path)
        if soft:
            check_own_probabilities(soft)
    if outputs.table:
        require_own(outputs.table, says(",".join(COLUMNS)))


def predict_photos(
    predictor: Predictor, photos: Sequence[Photo], outputs: Outputs, tiling: Tiling | None, threads: int = 1
) -> Iterator[Found]:
    """Write the results of photos, and tell of each in turn; `require_free` is the caller's.

    Small photos come first, on a GPU with others of their size, and then those that are divided into tiles, one by one.

    Parameters
    ----------
    tiling
        How large photos are divided; None to let each pass at once.
    threads
        That read photos ahead.
    """
    yield from (Found(photo, problem=photo.problem) for photo in photos if photo.problem)
    usable = [photo for photo in photos if not photo.problem]
    large = [photo for photo in usable if tiling is not None and tiling.divides(photo.size)]
    small = [photo for photo in usable if tiling is None or not tiling.divides(photo.size)]
    clock = Clock("image", len(usable))
    for done, found in enumerate(_each(predictor, small, large, outputs, tiling, threads), 1):
        yield found
        pace = clock.pace(done, last=done == len(usable))
        if pace:
            log.info("%s", pace)


def _each(
    predictor: Predictor,
    small: Sequence[Photo],
    large: Sequence[Photo],
    outputs: Outputs,
    tiling: Tiling | None,
    threads: int,
) -> Iterator[Found]:
    groups = batches(small, view_pixels(next(predictor.network.parameters()).device))
    for group, read in read_ahead(groups, _read, threads):
        images = [image for image in read if not isinstance(image, UserError)]
        alike = len({image.shape for image in images}) == 1
        together = [images] if alike else [[image] for image in images]
        answers = (p for part in together for p in probabilities_of(predictor.network, part, predictor.settings))
        for photo, image in zip(group, read, strict=True):
            if isinstance(image, UserError):
                yield Found(photo, problem=str(image))
            else:
                yield _written(predictor, photo, image, [(slice(None), next(answers))], outputs)
    for photo in large:
        image = _read(photo)
        try:
            if isinstance(image, UserError):
                raise image
            if not isinstance(predictor.network, DeepLabV2):
                raise UserError(
                    f"is large, and a network of the form {predictor.network.architecture} looks at whole photos, not "
                    "at tiles of them: make a smaller copy"
                )
            bands = probability_bands(predictor.network, image, predictor.settings, tiling or Tiling())
            yield _written(predictor, photo, image, bands, outputs)
        except UserError as error:
            yield Found(photo, problem=str(error))


def _read(photo: Photo) -> np.ndarray | UserError:
    """The image, or why there is none: as a value, so that the others go on."""
    try:
        return read_image(photo.path)
    except UserError as error:
        return error


def _written(
    predictor: Predictor, photo: Photo, image: np.ndarray, bands: Iterable[tuple[slice, Tensor]], outputs: Outputs
) -> Found:
    """Write all of a photo whose probabilities [L, rows, W] come in bands of rows."""
    overlay, soft = outputs.overlay(photo), outputs.soft(photo)
    count = len(predictor.class_names) + 1
    height, width = image.shape[:2]
    pixels, mask = np.zeros(count, np.int64), np.empty((height, width), np.uint8)
    kept = np.empty((count, height, width) if soft else 0, np.uint8)
    for rows, band in bands:
        mask[rows] = band.argmax(0).byte().cpu().numpy()
        pixels += np.bincount(mask[rows].ravel(), minlength=count)
        if soft:
            kept[:, rows] = (band * 255).round().byte().cpu().numpy()
    if soft:
        write_probabilities(soft, kept, predictor.class_names)
    if overlay:
        size = fitted(height, width, min(OVERLAY_SIDE, max(height, width)))
        write_picture(overlay, mask_overlay(resized(image, size), resized_labels(mask, size)))
    write_mask(outputs.mask(photo), mask)
    return Found(replace(photo, size=(height, width)), tuple(pixels.tolist()))


def write_found(path: Path, found: Sequence[Found], outputs: Outputs, class_names: Sequence[str]) -> None:
    """Write the table of what was found: a row for every label of every photo, and one for a photo with a problem."""
    names = ("background", *class_names)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for one in found:
        if one.problem:
            table.writerow({"image": cell(one.photo.path), "problem": cell(one.problem)})
            continue
        about: Mapping[str, object] = {
            "image": cell(one.photo.path),
            "mask": cell(outputs.mask(one.photo)),
            "height": one.photo.size[0],
            "width": one.photo.size[1],
        }
        whole = sum(one.pixels)
        for name, pixels in zip(names, one.pixels, strict=True):
            if pixels:
                table.writerow({**about, "class": cell(name), "pixels": pixels, "share": f"{pixels / whole:.6f}"})
    write_text(path, text.getvalue())
