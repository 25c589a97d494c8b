from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.images.open import open_image, to_rgb
from tests.images.pictures import (
    ALL_KINDS,
    BLUE,
    GREEN,
    GREY,
    ORIENTATION,
    RED,
    assert_colours,
    corners,
    encoded,
    failure,
    four_colours,
    gradient,
    heic,
    needs_avif,
    png,
    smooth_noise,
)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_reads_every_format_by_its_content_from_path_bytes_and_file(kind: str, tmp_path: Path) -> None:
    data = encoded(four_colours(), kind)
    path = tmp_path / "picture.dat"
    path.write_bytes(data)
    for source in (path, str(path), data, io.BytesIO(data)):
        assert_colours(open_image(source), [RED, GREEN, BLUE, GREY], tolerance=20)


def test_reads_heic() -> None:
    assert_colours(open_image(heic(four_colours())), [RED, GREEN, BLUE, GREY], tolerance=20)


def test_heic_orientation_is_applied_once() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = heic(four_colours(), exif=exif.tobytes())
    assert_colours(open_image(data), [BLUE, RED, GREY, GREEN], tolerance=20)


def test_heic_without_the_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    message = failure(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert "pip install 'captioner[heif]'" in message


def test_avif_that_pillow_cannot_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    assert "AVIF" in failure(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(100))


UPRIGHT = {
    1: [RED, GREEN, BLUE, GREY],
    2: [GREEN, RED, GREY, BLUE],
    3: [GREY, BLUE, GREEN, RED],
    4: [BLUE, GREY, RED, GREEN],
    5: [RED, BLUE, GREEN, GREY],
    6: [BLUE, RED, GREY, GREEN],
    7: [GREY, GREEN, BLUE, RED],
    8: [GREEN, GREY, RED, BLUE],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = open_image(encoded(four_colours(), kind, exif=exif))
    assert image.size == ((64, 32) if orientation < 5 else (32, 64))
    assert_colours(image, UPRIGHT[orientation], tolerance=20)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied_to_a_jpeg_decoded_at_reduced_scale(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = open_image(encoded(four_colours(1600, 800), "JPEG", exif=exif), min_size=25)
    assert image.size == ((200, 100) if orientation < 5 else (100, 200))
    assert_colours(image, UPRIGHT[orientation])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_leaves_the_image(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert_colours(open_image(encoded(four_colours(), "JPEG", exif=exif)), [RED, GREEN, BLUE, GREY])


@pytest.mark.parametrize("length", [0, 1, 6, 7, 14, 20, 25])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_corrupt_exif_does_not_fail_a_good_image(kind: str, length: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker"
    broken = exif.tobytes()[:length] + b"\xff" * 12
    if kind == "JPEG":  # Pillow writes what it is given, without looking.
        broken = b"Exif\0\0" + broken[6:]
    image = open_image(encoded(four_colours(), kind, exif=broken))
    assert image.mode == "RGB"


def test_greyscale_becomes_rgb() -> None:
    image = open_image(encoded(Image.new("L", (8, 8), 77), "PNG"))
    assert corners(image) == [(77, 77, 77)] * 4


def test_one_bit_becomes_black_and_white() -> None:
    bits = Image.new("1", (8, 8), 0)
    bits.paste(1, (4, 0, 8, 8))
    for kind in ("PNG", "TIFF", "BMP"):
        white = (255, 255, 255)
        assert corners(open_image(encoded(bits, kind))) == [(0, 0, 0), white, (0, 0, 0), white]


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_alpha_is_laid_over_white(kind: str, options: dict[str, bool]) -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (4, 0, 8, 8))
    opened = open_image(encoded(image, kind, **options))
    assert corners(opened) == [(255, 255, 255), BLUE] * 2


def test_half_transparent_grey_is_mixed_with_white() -> None:
    opened = open_image(encoded(Image.new("LA", (8, 8), (0, 128)), "PNG"))
    assert corners(opened) == [(127, 127, 127)] * 4


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_without_transparency(kind: str) -> None:
    assert_colours(open_image(encoded(four_colours().quantize(4), kind)), [RED, GREEN, BLUE, GREY])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_one_transparent_entry_is_laid_over_white(kind: str) -> None:
    image = four_colours().quantize(4)
    index = image.getpixel((16, 8))
    opened = open_image(encoded(image, kind, transparency=index))
    assert_colours(opened, [(255, 255, 255), GREEN, BLUE, GREY])


def test_palette_with_graded_transparency_is_laid_over_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (4, 0, 8, 8))
    opened = open_image(encoded(image, "PNG", transparency=bytes([128, 255])))
    assert_colours(opened, [(255, 127, 127), BLUE] * 2, tolerance=1)


@pytest.mark.parametrize(("mode", "colour", "transparent"), [("L", 9, 9), ("RGB", RED, RED)])
def test_a_colour_marked_as_transparent_becomes_white(mode: str, colour: Any, transparent: Any) -> None:
    data = encoded(Image.new(mode, (8, 8), colour), "PNG", transparency=transparent)
    assert corners(open_image(data)) == [(255, 255, 255)] * 4


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(kind: str) -> None:
    """Pillow writes CMYK JPEGs as Adobe does, inverted."""
    assert_colours(open_image(encoded(four_colours().convert("CMYK"), kind)), [RED, GREEN, BLUE, GREY], 20)


def test_ycbcr_tiff_keeps_its_colours() -> None:
    data = encoded(four_colours().convert("YCbCr"), "TIFF", compression="tiff_lzw")
    assert_colours(open_image(data), [RED, GREEN, BLUE, GREY])


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 0x1234, 0xABCD, 0xFFFF) * 4 for _ in range(4))
    assert corners(open_image(png(4, 4, rows, depth=16, colour=2))) == [(0x12, 0xAB, 0xFF)] * 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    image = open_image(encoded(Image.fromarray(gradient("uint16", 65535)), kind))
    assert np.array_equal(np.asarray(image)[..., 0].ravel(), np.arange(256))


def test_sixteen_bit_grey_that_is_dark_stays_dark() -> None:
    image = open_image(encoded(Image.fromarray(gradient("uint16", 2570)), "PNG"))
    assert np.asarray(image).max() == 10


def test_big_endian_sixteen_bit_tiff() -> None:
    image = Image.frombytes("I;16B", (16, 16), gradient("uint16", 65535).astype(">u2").tobytes())
    opened = open_image(encoded(image, "TIFF"))
    assert np.array_equal(np.asarray(opened)[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_tiff_is_scaled_from_the_smallest_usual_white(white: float) -> None:
    image = open_image(encoded(Image.fromarray(gradient("float32", white)), "TIFF"))
    assert np.array_equal(np.asarray(image)[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("white", [255, 65535])
def test_32_bit_tiff_is_scaled_from_the_smallest_usual_white(white: int) -> None:
    image = open_image(encoded(Image.fromarray(gradient("int32", white)), "TIFF"))
    assert np.array_equal(np.asarray(image)[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_values_of_no_usual_range_are_stretched(dtype: str) -> None:
    image = open_image(encoded(Image.fromarray(gradient(dtype, 2000) - 1000), "TIFF"))
    assert (np.asarray(image).min(), np.asarray(image).max()) == (0, 255)


def test_float_tiff_with_missing_values_opens() -> None:
    values = gradient("float32", 1.0)
    values[0, :3] = (np.nan, np.inf, -np.inf)
    pixels = np.asarray(open_image(encoded(Image.fromarray(values), "TIFF")))
    assert pixels[0, :3].max() == 0
    assert pixels.max() == 255


def test_a_flat_image_of_no_usual_range_is_black() -> None:
    pixels = np.full((4, 4), -5.0, np.float32)
    assert np.asarray(to_rgb(Image.fromarray(pixels))).max() == 0


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert_colours(open_image(data), [RED] * 4, tolerance=12)


def test_jpeg_with_a_second_image_behind_it_opens_the_first() -> None:
    data = encoded(four_colours(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    assert_colours(open_image(data), [RED, GREEN, BLUE, GREY], 12)


@pytest.mark.parametrize(("side", "size"), [(200, (1600, 800)), (100, (800, 400)), (30, (400, 200)), (9, (200, 100))])
def test_reduced_scale_keeps_both_sides_at_least_four_times_what_is_needed(side: int, size: tuple[int, int]) -> None:
    assert open_image(encoded(smooth_noise(1600, 800), "JPEG"), min_size=side).size == size


def test_a_jpeg_not_much_larger_than_needed_is_decoded_whole() -> None:
    data = encoded(smooth_noise(300, 200), "JPEG")
    assert np.array_equal(np.asarray(open_image(data, min_size=101)), np.asarray(open_image(data)))


def test_other_formats_ignore_the_size_wanted() -> None:
    assert open_image(encoded(four_colours(1600, 800), "PNG"), min_size=10).size == (1600, 800)
