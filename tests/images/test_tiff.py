"""TIFF: what Pillow reads wrongly or not at all, with tifffile as the writer."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from captioner.images import open_image
from tests.images.pictures import ORIENTATION, encoded, failure, four_colours, smooth_noise
from tests.images.test_colour import PROPHOTO, difference, inside, matrix, picture

COLOUR = np.asarray(smooth_noise(150, 100))
GREY = np.asarray(smooth_noise(150, 100).convert("L"))


def tiff(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def scaled(values: Any, dtype: str) -> Any:
    white = 1.0 if dtype.startswith("f") else 32767 if dtype == "int16" else 65535
    wide = values.astype(float) / 255 * white
    return (wide if dtype.startswith("f") else wide.round()).astype(dtype)


def assert_shown(data: bytes, expected: Any) -> None:
    shown = np.asarray(open_image(data), int)
    wanted = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).max() <= 1


LAYOUTS: list[Any] = [
    {},
    {"byteorder": ">"},
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": True},
    {"compression": "zlib", "predictor": True, "byteorder": ">", "tile": (64, 64)},
    {"tile": (32, 48), "bigtiff": True},
    {"rowsperstrip": 7},
]


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "float16", "float32", "float64"])
def test_wide_numbers_in_any_layout(dtype: str, options: Any) -> None:
    if dtype.startswith("float"):  # tifffile alone writes none with a predictor
        options = {name: value for name, value in options.items() if name != "predictor"}
    colour, grey = scaled(COLOUR, dtype), scaled(GREY, dtype)
    assert_shown(tiff(colour, photometric="rgb", **options), COLOUR)
    planes = np.ascontiguousarray(colour.transpose(2, 0, 1))
    assert_shown(tiff(planes, photometric="rgb", planarconfig="separate", **options), COLOUR)
    assert_shown(tiff(grey, photometric="minisblack", **options), GREY)
    assert_shown(tiff(grey, photometric="miniswhite", **options), 255 - GREY)


def test_twelve_bits_are_all_that_there_are() -> None:
    pytest.importorskip("tifffile")
    values = np.repeat(GREY[:, ::2].astype(np.uint16) * 16, 2, axis=1)
    one, two = np.moveaxis(values.reshape(100, -1, 2), 2, 0)
    packed = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], axis=-1)
    plain = tiff(packed.astype(np.uint8).reshape(100, -1), photometric="minisblack", extratags=[(274, 3, 1, 3, True)])
    changed = plain.replace(struct.pack("<HHIHH", 258, 3, 1, 8, 0), struct.pack("<HHIHH", 258, 3, 1, 12, 0))
    changed = changed.replace(struct.pack("<HHII", 256, 4, 1, 225), struct.pack("<HHII", 256, 4, 1, 150))
    assert_shown(changed, np.rot90(values // 16, 2))


def test_floats_with_a_predictor() -> None:
    values = scaled(COLOUR, "float32")
    high_bytes_first = values.astype(">f4").view(np.uint8).reshape(100, 450, 4).transpose(0, 2, 1).reshape(100, -1, 3)
    steps = np.diff(high_bytes_first, axis=1, prepend=np.uint8(0)).reshape(100, -1)
    data = tiff(values, photometric="rgb", extratags=[(65000, 3, 1, 3, True)])
    data = data.replace(struct.pack("<HHIH", 65000, 3, 1, 3), struct.pack("<HHIH", 317, 3, 1, 3))
    assert data.count(values.tobytes()) == 1
    assert_shown(data.replace(values.tobytes(), steps.tobytes()), COLOUR)


def test_opacity_of_floats_counts() -> None:
    values = np.zeros((8, 8, 4), np.float32)
    values[2:6, 2:6] = (1, 0, 0, 1)
    opened = open_image(tiff(values, photometric="rgb", extrasamples=["unassalpha"]))
    assert (opened.getpixel((0, 0)), opened.getpixel((4, 4))) == ((255, 255, 255), (255, 0, 0))


def test_a_few_highlights_do_not_darken_floats() -> None:
    values = scaled(COLOUR, "float32")
    values[0, :5], values[1, :5] = 40.0, -0.02
    opened = np.asarray(open_image(tiff(values, photometric="rgb")), int)
    assert np.abs(opened[2:] - COLOUR[2:]).max() <= 1


def test_wide_colour_is_turned() -> None:
    values = np.asarray(four_colours()).astype(np.float32) / 255
    data = tiff(values, photometric="rgb", extratags=[(ORIENTATION, 3, 1, 6, True)])
    assert np.array_equal(np.asarray(open_image(data)), np.rot90(np.asarray(four_colours()), -1))


def test_the_limit_counts_before_anything_is_decoded() -> None:
    data = tiff(scaled(COLOUR, "float64"), photometric="rgb", compression="zlib")
    assert "150 x 100 pixels" in failure(data, max_pixels=14_999)
    assert "limit of 15,000" in failure(data, max_pixels=15_000)  # 24 bytes for each
    assert open_image(data, max_pixels=45_000).size == (150, 100)


@pytest.mark.parametrize(
    ("number", "name"),
    [(34712, "JPEG 2000"), (34887, "LERC"), (50002, "JPEG XL"), (50001, "WebP"), (4711, "number 4711")],
)
def test_a_rare_compression_is_named(number: int, name: str) -> None:
    data = encoded(four_colours(), "TIFF", compression="tiff_lzw").replace(
        struct.pack("<HHIHH", 259, 3, 1, 5, 0), struct.pack("<HHIHH", 259, 3, 1, number, 0)
    )
    message = failure(data)
    assert f"the TIFF compression {name} is not supported" in message
    assert "broken or incomplete" not in message


@pytest.mark.parametrize("values", [np.zeros((8, 8, 3), np.complex64), np.zeros((8, 8), np.complex64)])
def test_a_rare_pixel_format_is_named(values: Any) -> None:
    assert "pixel format of TIFF" in failure(tiff(values, photometric="rgb" if values.ndim == 3 else "minisblack"))


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_wide_colour_that_is_cut_short_is_refused(dtype: str) -> None:
    data = tiff(scaled(COLOUR, dtype), photometric="rgb", rowsperstrip=10)
    assert "broken or incomplete TIFF" in failure(data[: len(data) * 3 // 4])


def test_a_profile_of_wide_colour_is_followed() -> None:
    profile = matrix(*PROPHOTO)
    values = np.asarray(inside(picture(), profile)).astype(np.float32) / 255
    assert difference(open_image(tiff(values, photometric="rgb", iccprofile=profile)), picture()) < 1


def test_tiles_far_wider_than_the_image_are_refused_before_they_are_decoded() -> None:
    data = tiff(scaled(COLOUR, "float32"), photometric="rgb", tile=(64, 64))
    field = struct.pack("<HHII", 322, 4, 1, 64)
    assert data.count(field) == 1
    wide = data.replace(field, struct.pack("<HHII", 322, 4, 1, 2**20))
    assert "pixels are more than the limit" in failure(wide)


def test_a_broken_second_image_does_not_fail_the_first() -> None:
    data = encoded(four_colours(), "TIFF", save_all=True, append_images=[four_colours(32, 16)])
    at = data.rindex(struct.pack("<HHI", 256, 4, 1))
    opened = open_image(data[: at + 20])
    assert np.array_equal(np.asarray(opened), np.asarray(four_colours()))
