"""Camera raws: files laid out as cameras lay them out, with made-up sensors."""

from __future__ import annotations

import io
import struct
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from captioner.images import open_image
from captioner.images.find import IMAGE_EXTENSIONS
from tests.images.pictures import BLUE, GREEN, GREY, ORIENTATION, RED, assert_colours, encoded, failure, four_colours

COLOURS, TURNED = [RED, GREEN, BLUE, GREY], [BLUE, RED, GREY, GREEN]
DNG = (50706, 1, 4, (1, 4, 0, 0), True)
SENSOR = np.zeros((480, 640), np.uint16)


def raw(*below: dict[str, Any], thumbnail: int = 160, tags: Any = (DNG,), **options: Any) -> bytes:
    """A small preview first, and other images in directories below it."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:
        small = np.asarray(Image.new("RGB", (thumbnail, thumbnail * 3 // 4), "orange"))
        writer.write(small, photometric="rgb", subfiletype=1, subifds=len(below), extratags=tags, metadata=None)
        for part in below:
            writer.write(**{"metadata": None, "subfiletype": 0} | part)
    return file.getvalue()


def preview(**options: Any) -> dict[str, Any]:
    return {"data": np.asarray(four_colours(480, 320)), "photometric": "rgb", **options}


CFA = {
    "data": SENSOR,
    "photometric": "cfa",
    "extratags": [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)],
}


def with_jpeg(data: bytes, jpeg: bytes, width: int) -> bytes:
    """Put a JPEG in place of the strip of the directory that is so wide, as DNG and NEF keep their previews."""
    at = find_directory(data, width)
    (count,) = struct.unpack_from("<H", data, at)
    made = bytearray(data)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", made, entry)
        if tag in (259, 273, 279):
            value = {259: 7, 273: len(data), 279: len(jpeg)}[tag]
            made[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(made) + jpeg


def find_directory(data: bytes, width: int) -> int:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page for first in file.pages for page in (first, *(first.pages or ()))]
        return next(page.offset for page in pages if page.imagewidth == width)


def test_the_largest_image_is_taken_and_not_the_thumbnail() -> None:
    opened = open_image(raw(preview()))
    assert opened.size == (480, 320)
    assert_colours(opened, COLOURS)


def test_a_preview_is_found_in_a_bigtiff_and_among_masks() -> None:
    mask = {"data": np.zeros((640, 960), bool), "photometric": "minisblack", "subfiletype": 4}
    for big in (False, True):
        assert_colours(open_image(raw(mask, CFA, preview(subfiletype=1), bigtiff=big)), COLOURS)
    assert "BigTIFF" in failure(raw(preview(), bigtiff=True, byteorder=">"))


def test_a_preview_is_taken_where_the_largest_image_is_the_sensor() -> None:
    assert_colours(open_image(raw(CFA, preview(subfiletype=1))), COLOURS)


@pytest.mark.parametrize(("outside", "inside"), [(6, None), (None, 6), (6, 6), (6, 1)])
def test_an_embedded_jpeg_is_turned_once(outside: int | None, inside: int | None) -> None:
    exif = Image.Exif()
    if inside:
        exif[ORIENTATION] = inside
    jpeg = encoded(four_colours(480, 320), "JPEG", exif=exif)
    tags = [DNG, *([(ORIENTATION, 3, 1, outside, True)] if outside else [])]
    data = with_jpeg(raw(CFA, preview(subfiletype=1), tags=tags), jpeg, 480)
    opened = open_image(data)
    assert opened.size == (320, 480)
    assert_colours(opened, TURNED)


@pytest.mark.parametrize("part", [{}, {"extratags": [(ORIENTATION, 3, 1, 6, True)]}])
def test_an_image_below_is_turned_once(part: dict[str, Any]) -> None:
    opened = open_image(raw(preview(**part), tags=[DNG, (ORIENTATION, 3, 1, 6, True)]))
    assert opened.size == (320, 480)
    assert_colours(opened, TURNED)


def test_the_limit_counts_for_the_preview_too() -> None:
    assert "480 x 320 pixels" in failure(raw(preview()), max_pixels=150_000)


RAW_HEADS = [b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0"]


@pytest.mark.parametrize(
    "data", [raw(CFA), *(head + bytes(600) for head in RAW_HEADS)], ids=["DNG", *map(str, range(4))]
)
def test_without_rawpy_a_raw_without_a_readable_preview_names_the_extra(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    message = failure(data)
    assert "camera raw" in message
    assert "pip install 'captioner[raw]'" in message


def libraw(monkeypatch: pytest.MonkeyPatch, shown: object, flip: int = 0) -> None:
    """Stand in for rawpy, whose library opens files of real cameras only."""

    class Opened:
        sizes = SimpleNamespace(flip=flip)

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *error: object) -> None: ...

        def extract_thumb(self) -> object:
            if isinstance(shown, Exception):
                raise shown
            return SimpleNamespace(data=shown)

    rawpy = SimpleNamespace(imread=lambda file: Opened(), LibRawError=EOFError)
    monkeypatch.setitem(sys.modules, "rawpy", rawpy)


@pytest.mark.parametrize("head", RAW_HEADS)
def test_rawpy_finds_the_preview(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    libraw(monkeypatch, encoded(four_colours(480, 320), "JPEG", exif=exif), flip=6)
    assert_colours(open_image(head + bytes(600)), TURNED)
    libraw(monkeypatch, np.asarray(four_colours(480, 320)), flip=6)
    assert_colours(open_image(head + bytes(600)), TURNED)


def test_what_rawpy_finds_may_be_only_a_thumbnail_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    libraw(monkeypatch, encoded(four_colours(160, 120), "JPEG"))
    assert "only a thumbnail" in failure(raw(CFA))
    libraw(monkeypatch, EOFError("no thumbnail"))
    assert "camera raw cannot be read (no thumbnail)" in failure(RAW_HEADS[0] + bytes(600))
    libraw(monkeypatch, encoded(four_colours(800, 600), "JPEG"))
    assert "800 x 600 pixels" in failure(RAW_HEADS[0] + bytes(600), max_pixels=400_000)


def test_the_real_rawpy_finds_what_we_find_and_refuses_what_is_no_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rawpy", reason="the extra 'raw' is not installed")
    assert "camera raw cannot be read (Unsupported file format" in failure(RAW_HEADS[0] + bytes(600))
    jpeg = encoded(four_colours(480, 320), "JPEG")
    data = with_jpeg(raw(CFA, preview(subfiletype=1), tags=[DNG, (ORIENTATION, 3, 1, 6, True)]), jpeg, 480)
    ours = open_image(data)
    monkeypatch.setattr("captioner.images.tiff._previews", lambda *_: [])
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(ours))


def test_raws_are_found_in_folders() -> None:
    assert {".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".pef", ".jxl"} <= IMAGE_EXTENSIONS


def test_an_ordinary_tiff_of_several_sizes_is_none_of_a_camera() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.asarray(four_colours(100, 60)), photometric="rgb", subifds=1, metadata=None)
        writer.write(np.asarray(Image.new("RGB", (50, 30))), photometric="rgb", subfiletype=1, metadata=None)
    assert_colours(open_image(file.getvalue()), COLOURS)
