"""Image files to RGB arrays, whatever their format, mode and depth."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wsss_core.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""File name endings, in lower case, that count as images when a folder is searched."""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as 8-bit RGB; may be called from several threads.

    * EXIF rotation is applied; embedded colour profiles are not.
    * Grey becomes three equal channels; CMYK, YCbCr and Lab are converted.
    * 16-bit channels are scaled to 8 bits (the high byte), not clipped.
    * Transparent pixels, also those of palettes, are laid over white.
    * Of several frames or pages the first is read.

    Parameters
    ----------
    path
        JPEG, PNG, BMP, TIFF or WebP file (or whatever else Pillow reads).

    Returns
    -------
    uint8 [H, W, 3], writable and contiguous.

    Raises
    ------
    UserError
        If the file is missing, is not an image, is truncated, or holds floating-point or 32-bit values.

    Examples
    --------
    >>> Image.new("L", (30, 20), 200).save("grey.png")
    >>> image = read_image("grey.png")
    >>> image.shape, image[0, 0].tolist()
    ((20, 30, 3), [200, 200, 200])
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Bytes of a file; UserError that names it if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: image cannot be read ({error.strerror or error})") from error


def decode_image(data: bytes, name: str | os.PathLike) -> np.ndarray:
    """As `read_image`, of a file's bytes; `name` is used in messages."""
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return np.array(_rgb(ImageOps.exif_transpose(image)))
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{name}: is {'not an image' if data else 'an empty file'}") from error
    except _BROKEN as error:
        raise UserError(f"{name}: image cannot be read ({error})") from error


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
