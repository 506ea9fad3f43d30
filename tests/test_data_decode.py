"""Reading images of every kind as 8-bit RGB."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, TiffTags
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from wsss_core.data.decode import ORIENTATION, decode_image, decode_turned, read_image
from wsss_core.data.decoded import Decoded
from wsss_core.errors import UserError
from wsss_core.keyed import generator
from wsss_core.store.masks import read_mask

RGB = generator(0, "decode").integers(0, 256, (24, 32, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(image: Image.Image, form: str, **options) -> np.ndarray:
    return decode_image(encoded(image, form, **options), "x")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_exact(form):
    np.testing.assert_array_equal(decoded(Image.fromarray(RGB), form), RGB)
    np.testing.assert_array_equal(decoded(Image.fromarray(GREY), form), np.stack([GREY] * 3, axis=-1))


@pytest.mark.parametrize(("form", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_photo_formats(form, options):
    smooth = cv2.GaussianBlur(RGB, (0, 0), 6)
    result = decoded(Image.fromarray(smooth), form, **options)
    assert result.shape == smooth.shape
    assert np.abs(result.astype(int) - smooth).max() < 16


def test_result_is_writable_and_contiguous():
    result = decoded(Image.fromarray(RGB), "PNG")
    assert result.dtype == np.uint8 and result.flags.writeable and result.flags.c_contiguous


def test_bilevel():
    result = decoded(Image.fromarray(GREY > 128), "PNG")
    np.testing.assert_array_equal(result[..., 0], np.where(GREY > 128, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_white(mode):
    alpha = np.full(GREY.shape, 255, dtype=np.uint8)
    alpha[:, :10] = 0
    image = Image.fromarray(RGB).convert("L" if mode == "LA" else "RGB")
    expected = np.array(image.convert("RGB"))
    expected[:, :10] = 255
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    np.testing.assert_array_equal(decoded(image, "PNG"), expected)


def test_palette_with_and_without_transparency():
    image = Image.fromarray(GREY // 64)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]])
    np.testing.assert_array_equal(decoded(image, "PNG"), colours[GREY // 64])
    colours[2] = 255
    np.testing.assert_array_equal(decoded(image, "PNG", transparency=2), colours[GREY // 64])


def test_cmyk():
    image = Image.new("CMYK", (8, 6), (0, 255, 255, 0))
    for form in ("JPEG", "TIFF"):
        result = decoded(image, form)
        assert result.shape == (6, 8, 3)
        assert np.abs(result.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    ramp = np.linspace(0, 65535, 32 * 24).reshape(24, 32).astype(np.uint16)
    result = decoded(Image.fromarray(ramp), form)
    np.testing.assert_array_equal(result, np.stack([ramp >> 8] * 3, axis=-1))


def test_sixteen_bit_colour():
    colour = (RGB.astype(np.uint16) << 8) + 77
    data = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(data, "x"), RGB)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_defined_range_are_refused(mode):
    values = np.full((4, 4), 1e6).astype(np.float32 if mode == "F" else np.int32)
    with pytest.raises(UserError, match="x: .*8 or 16 bits"):
        decoded(Image.fromarray(values), "TIFF")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(form):
    exif = Image.Exif()
    exif[0x0112] = 6
    corner = np.zeros((40, 60, 3), dtype=np.uint8)
    corner[:10, :10] = 255
    result = decoded(Image.fromarray(corner), form, exif=exif)
    assert result.shape == (60, 40, 3)
    assert result[5, 35].min() > 200 and result[5, 5].max() < 50


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path, form, share):
    data = encoded(Image.fromarray(np.tile(RGB, (4, 4, 1))), form)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="cut.img: "):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "empty file"), (b"<html>not found</html>", "not an image")],
)
def test_other_files_are_named(tmp_path, content, message):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"photo.jpg: .*{message}"):
        read_image(path)


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_image(tmp_path)


def test_threads_read_the_same(tmp_path):
    path = tmp_path / "a b ü.png"
    Image.fromarray(RGB).save(path)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(read_image, [path] * 40):
            np.testing.assert_array_equal(result, RGB)


def test_real_photos(shared):
    photo = shared / "data/voc_sample/JPEGImages/2011_000003.jpg"
    mask = Image.open(shared / "data/voc_sample/SegmentationClass/2011_000003.png")
    assert read_image(photo).shape == (*mask.size[::-1], 3)


class Reads(torch.utils.data.Dataset):
    """Goes through 8 items twice and says how often one was read; the budget is that of 4 of them."""

    def __init__(self, content=lambda item: np.full(100, item, np.uint8), budget: int = 400) -> None:
        self.read, self.content = [], content
        self.decoded = Decoded("abcdefgh", lambda item: (self.read.append(item), content(ord(item)))[1], budget)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, _: int) -> int:
        for index in [*range(8), *range(8)]:
            self.decoded[index]
        return len(self.read)


def test_what_was_decoded_is_kept_until_the_budget_is_used():
    reads = Reads()
    assert reads[0] == 8 + 4 and reads.read[8:] == list("efgh")
    assert len(reads.decoded) == 8 and (reads.decoded[2] == ord("c")).all()


def test_loader_processes_share_the_budget():
    loader = torch.utils.data.DataLoader(Reads(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert list(loader) == [8 + 6, 8 + 6]


@pytest.mark.parametrize("content", [lambda _: torch.zeros(25), lambda _: (np.zeros(80, np.uint8), torch.zeros(5))])
def test_tensors_and_pairs_count_with_all_their_bytes(content):
    assert Reads(content)[0] == 8 + 4


def turned(orientation) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'


def png_texts(**texts: str) -> PngInfo:
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key.replace("_", ":"), text)
    return info


def tiff_with_tags(orientation: int, kind: int, value) -> bytes:
    tags = ImageFileDirectory_v2()
    tags[ORIENTATION] = orientation
    tags.tagtype[700] = kind
    tags[700] = value
    return encoded(Image.fromarray(RGB), "TIFF", tiffinfo=tags)


@pytest.mark.parametrize(
    "data",
    [
        tiff_with_tags(6, TiffTags.ASCII, XMP),
        tiff_with_tags(6, TiffTags.BYTE, XMP.encode()),
        tiff_with_tags(6, TiffTags.SHORT, (1, 2, 3)),
        encoded(Image.fromarray(RGB), "PNG", exif=turned(6), pnginfo=png_texts(XML_com_adobe_xmp=XMP)),
        encoded(Image.fromarray(RGB), "PNG", exif=turned(6), pnginfo=png_texts(xmp=XMP)),
        encoded(Image.fromarray(RGB), "PNG", pnginfo=png_texts(**{"XML:com.adobe.xmp": XMP})),
        encoded(Image.fromarray(RGB), "WEBP", exif=turned(6), xmp=XMP.encode(), lossless=True),
    ],
)
def test_a_photo_is_turned_whatever_else_its_metadata_say(data):
    pixels, orientation = decode_turned(data, "x")
    np.testing.assert_array_equal(pixels, np.rot90(RGB, -1))
    assert orientation == 6


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"),
        encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\x00\x00nonsense"),
        encoded(Image.fromarray(RGB), "WEBP", exif=b"nonsense", lossless=True),
        encoded(Image.fromarray(RGB), "PNG", pnginfo=png_texts(xmp=XMP)),
        tiff_with_tags(1, TiffTags.ASCII, XMP),
        tiff_with_tags(99, TiffTags.SHORT, (7,)),
        encoded(Image.fromarray(RGB), "PNG", pnginfo=png_texts(**{"Raw profile type exif": "\nexif\n 4\nzz"})),
    ],
)
def test_odd_metadata_cost_no_photo(data):
    pixels, orientation = decode_turned(data, "x")
    np.testing.assert_array_equal(pixels, RGB)
    assert orientation == 1


@pytest.mark.parametrize("error", [TypeError, AssertionError, RuntimeError, MemoryError, RecursionError, IndexError])
def test_whatever_a_decoder_raises_names_the_file(monkeypatch, tmp_path, error):
    def load_prepare(self):
        raise error

    monkeypatch.setattr(PngImageFile, "load_prepare", load_prepare)
    (tmp_path / "x.png").write_bytes(encoded(Image.fromarray(GREY), "PNG"))
    with pytest.raises(UserError, match=rf"x.png: image cannot be read \({error.__name__}\)"):
        read_image(tmp_path / "x.png")
    with pytest.raises(UserError, match=rf"x.png: mask cannot be read \({error.__name__}\)"):
        read_mask(tmp_path / "x.png")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n4 4 8 [4 0 0 4 0 0] {} image\n%%EOF\n"


@pytest.mark.parametrize("content", [EPS, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4\n", b"GIMP"])
def test_a_file_is_what_it_holds_and_not_what_it_is_called(tmp_path, content, monkeypatch):
    """Pillow runs Ghostscript for EPS, whatever the file's name."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("ran a program"))
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(UserError, match=r"photo\.png: is not an image \(BMP"):
        read_image(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo\.png: mask cannot be read"):
        read_mask(tmp_path / "photo.png")


def test_pipes_and_folders_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(UserError, match=f"{name}: is not a file"):
            read_image(tmp_path / name)


def test_a_small_file_of_many_pixels_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("L", (12000, 12000)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was unpacked"))
    with pytest.raises(UserError, match=r"large\.png: has 12000x12000 pixels, 144 million, and dataset"):
        decode_turned(path.read_bytes(), path, 100.0)
