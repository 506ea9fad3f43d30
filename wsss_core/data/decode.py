"""Image files to RGB arrays, whatever their format, mode and depth."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from wsss_core.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""File name endings, in lower case, that count as images when a folder is searched."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever its name: it would run Ghostscript for a text of EPS."""

ORIENTATION = 0x0112
"""EXIF tag that says how a stored photo is turned to be shown."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Values of the tag that turn a photo, to how; 1 and whatever else is written there do not."""

SIDEWAYS = (5, 6, 7, 8)
"""Those that exchange height and width."""


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as 8-bit RGB; may be called from several threads.

    * EXIF rotation is applied; embedded colour profiles are not. Metadata that cannot be read cost no photo.
    * Grey becomes three equal channels; CMYK, YCbCr and Lab are converted.
    * 16-bit channels are scaled to 8 bits (the high byte), not clipped.
    * Transparent pixels, also those of palettes, are laid over white.
    * Of several frames or pages the first is read.

    Parameters
    ----------
    path
        File of one of `FORMATS`, whatever it is called.

    Returns
    -------
    uint8 [H, W, 3], writable and contiguous.

    Raises
    ------
    UserError
        If the file is missing, is not an image, is truncated, holds floating-point or 32-bit values, or its decoder
        fails in any other way.

    Examples
    --------
    >>> Image.new("L", (30, 20), 200).save("grey.png")
    >>> image = read_image("grey.png")
    >>> image.shape, image[0, 0].tolist()
    ((20, 30, 3), [200, 200, 200])
    """
    return decode_image(read_bytes(path), path)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of an image file as it is shown, read off its beginning; UserError if that is no image's.

    A PNG may tell only at its end that it is turned, which is not looked at.

    Examples
    --------
    >>> Image.new("L", (30, 20)).save("grey.png")
    >>> image_size("grey.png")
    (20, 30)
    """
    held = _bytes_of(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            lies = image.format != "TIFF" and _orientation(image) in SIDEWAYS  # Pillow has turned a TIFF's size itself
    except Exception as error:
        raise _unreadable(path, error, held) from error
    return (width, height) if lies else (height, width)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Bytes of a file; UserError that names it if it cannot be read, or is a pipe, a device or a folder."""
    _bytes_of(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: image cannot be read ({error.strerror or error})") from error


def _bytes_of(path: str | os.PathLike) -> int:
    """How many bytes a file holds; errors as for `read_bytes`."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: image cannot be read ({error.strerror or error})") from error
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"{path}: is not a file")
    return state.st_size


def decode_image(data: bytes, name: str | os.PathLike) -> np.ndarray:
    """As `read_image`, of a file's bytes; `name` is used in messages."""
    return decode_turned(data, name)[0]


def decode_turned(data: bytes, name: str | os.PathLike, max_megapixels: float = math.inf) -> tuple[np.ndarray, int]:
    """As `decode_image`, with the EXIF orientation by which the image was turned; 1 if it was not.

    Parameters
    ----------
    max_megapixels
        An image of more million pixels is not unpacked, but a UserError.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            require_megapixels(*image.size, name, max_megapixels)
            _drop_odd_texts(image)
            stored = _orientation(image)
            image.load()
            left = _orientation(image)  # TIFF images are turned while they load, PNG may say so at their end
            upright = image.transpose(TURNS[left]) if left in TURNS else image
            return np.array(_rgb(upright)), left if left in TURNS else stored
    except UserError:
        raise
    except Exception as error:  # whatever a decoder raises, there are dozens, is the matter of this file alone
        raise _unreadable(name, error, len(data)) from error


def _unreadable(name: str | os.PathLike, error: Exception, held: int) -> UserError:
    """What is wrong with a file of so many bytes at which a decoder failed."""
    if isinstance(error, Image.UnidentifiedImageError):
        kinds = ", ".join(FORMATS)
        return UserError(f"{name}: is {f'not an image ({kinds})' if held else 'an empty file'}")
    return UserError(f"{name}: image cannot be read ({str(error) or type(error).__name__})")


def require_megapixels(width: int, height: int, name: str | os.PathLike, most: float) -> None:
    """Raise UserError if an image has more million pixels than allowed."""
    if width * height > most * 1e6:
        raise UserError(
            f"{name}: has {width}x{height} pixels, {width * height / 1e6:.0f} million, and dataset.max_megapixels is "
            f"{most:g}; make it smaller, or set that higher"
        )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
        return int(value) if value in TURNS else 1
    except Exception:  # EXIF comes from thousands of devices and editors, and says nothing about the pixels
        return 1


def _drop_odd_texts(image: Image.Image) -> None:
    """Forget XMP of another type than Pillow searches for a rotation: it would raise TypeError."""
    for key, kind in (("XML:com.adobe.xmp", str), ("xmp", bytes)):
        if not isinstance(image.info.get(key, kind()), kind):
            del image.info[key]


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _high_byte(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")
    return image.convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ValueError("32-bit pixels have no defined range; save it with 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def digest_of(content: bytes) -> str:
    """Digest of a file of the data set, by which it is known again."""
    return hashlib.sha256(content).hexdigest()[:32]
