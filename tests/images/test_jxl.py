"""JPEG XL, which needs an extra."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.images import open as opening
from captioner.images import open_image
from tests.images.pictures import BLUE, GREEN, GREY, ORIENTATION, RED, assert_colours, encoded, failure, four_colours

COLOURS, TURNED = [RED, GREEN, BLUE, GREY], [BLUE, RED, GREY, GREEN]
# 64 x 32, without a container and without pixels.
HEAD = bytes.fromhex("ff0ac7412408") + bytes(100)


def jxl(image: Image.Image, **options: Any) -> bytes:
    pytest.importorskip("pillow_jxl", reason="the extra 'jxl' is not installed")
    return encoded(image, "JXL", **options)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl_is_read(mode: str, container: bool) -> None:
    image = four_colours().convert(mode)
    opened = open_image(jxl(image, lossless=True, use_container=container))
    assert np.array_equal(np.asarray(opened), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("packed", [False, True])
def test_its_orientation_is_applied_once(packed: bool) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = four_colours()
    if packed:  # A JPEG made smaller, which keeps its EXIF.
        image = Image.open(io.BytesIO(encoded(image, "JPEG", quality=95, exif=exif)))
        data = jxl(image, lossless_jpeg=True)
    else:
        data = jxl(image, lossless=True, exif=exif.tobytes())
    assert_colours(open_image(data), TURNED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_that_is_packed_whole_is_turned(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    four_colours().save(tmp_path / "a.jpg", quality=95, exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        data = jxl(image, lossless_jpeg=True)
    assert np.abs(np.asarray(open_image(data), int) - np.asarray(open_image(tmp_path / "a.jpg"), int)).mean() < 1


def test_what_the_decoder_has_turned_is_not_turned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = jxl(four_colours(), lossless=True, exif=exif.tobytes())
    monkeypatch.setattr(opening, "_jxl_header", lambda data: (64, 32, 6))
    assert_colours(open_image(data), COLOURS)


def bits(*fields: tuple[int, int]) -> bytes:
    """A codestream that begins with these numbers of so many bits."""
    number, at = 0, 0
    for value, count in fields:
        number, at = number | value << at, at + count
    return b"\xff\x0a" + number.to_bytes(40, "little")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEAD, (64, 32, 1)),
        (bits((0, 1), (1, 2), (3999, 13), (0, 3), (1, 2), (2999, 13), (1, 1)), (3000, 4000, 1)),
        (bits((0, 1), (3, 2), (99_999, 30), (6, 3), (0, 1), (1, 1), (5, 3)), (125_000, 100_000, 6)),
        (bits((1, 1), (3, 5), (0, 3), (9, 5), (0, 1), (0, 1)), (80, 32, 1)),
    ],
)
def test_its_size_and_orientation_are_known_before_it_is_decoded(data: bytes, expected: tuple[int, int, int]) -> None:
    assert opening._jxl_header(data) == expected
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    assert opening._jxl_header(boxes + b"\0\0\0\0jxlc" + data) == expected
    assert opening._jxl_header(boxes + b"\0\0\1\0jxlp\0\0\0\0" + data) == expected


def test_the_limit_counts_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "decoder_of", lambda *_: pytest.fail("decoded"))
    assert "125000 x 100000 pixels" in failure(bits((0, 1), (3, 2), (99_999, 30), (6, 3), (1, 1)))


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl.JpegXLImagePlugin", None)
    assert "pip install 'captioner[jxl]'" in failure(HEAD)


@pytest.mark.parametrize("size", [2, 40, 100])
def test_a_broken_one_is_refused(size: int) -> None:
    assert "JPEG XL" in failure(jxl(four_colours())[:size])
