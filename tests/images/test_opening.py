from __future__ import annotations

import errno
import gc
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from captioner.errors import ImageError
from captioner.images import display_name, open_image, to_rgb
from captioner.images import opening as opening_module

ORIENTATION = 0x0112
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)

HAS_AVIF = find_spec("PIL.AvifImagePlugin") is not None and features.check("avif")
needs_avif = pytest.mark.skipif(not HAS_AVIF, reason="this Pillow reads no AVIF")


def four_colours(width: int = 64, height: int = 32) -> Image.Image:
    """Red and green above, blue and grey below: every orientation looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = GREY
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra 'heif' is not installed")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=-1, **options)
    return buffer.getvalue()


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colours a quarter into the picture from its four corners, row by row."""
    width, height = image.size
    points = [(width // 4, height // 4), (3 * width // 4, height // 4)]
    points += [(x, 3 * height // 4) for x, _ in points]
    return [image.getpixel(point) for point in points]


def assert_colours(image: Image.Image, expected: list[tuple[int, ...]], tolerance: int = 6) -> None:
    assert image.mode == "RGB"
    assert np.abs(np.array(corners(image)) - np.array(expected)).max() <= tolerance


def gradient(dtype: str, white: float) -> np.ndarray[Any, Any]:
    return (np.linspace(0, white, 256).reshape(16, 16)).astype(dtype)


def failure(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source, **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


ALL_KINDS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", pytest.param("AVIF", marks=needs_avif)]


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
def test_an_impossible_orientation_leaves_the_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert_colours(open_image(encoded(four_colours(), "JPEG", exif=exif)), [RED, GREEN, BLUE, GREY])


@pytest.mark.parametrize("length", [0, 1, 6, 7, 14, 20, 25])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_corrupt_exif_does_not_fail_a_good_picture(kind: str, length: int) -> None:
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


def test_a_flat_picture_of_no_usual_range_is_black() -> None:
    pixels = np.full((4, 4), -5.0, np.float32)
    assert np.asarray(to_rgb(Image.fromarray(pixels))).max() == 0


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert_colours(open_image(data), [RED] * 4, tolerance=12)


def test_jpeg_with_a_second_picture_behind_it_opens_the_first() -> None:
    data = encoded(four_colours(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    assert_colours(open_image(data), [RED, GREEN, BLUE, GREY], 12)


# Limits


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening_module, "_decode", lambda *_: pytest.fail("decoded"))
    message = failure(png(50_000, 50_000, b""))
    assert "50000 x 50000" in message
    assert "100,000,000" in message


def test_the_limit_on_pixels_is_inclusive_and_an_option() -> None:
    data = encoded(Image.new("RGB", (20, 10)), "PNG")
    assert open_image(data, max_pixels=200).size == (20, 10)
    assert "limit of 199 pixels" in failure(data, max_pixels=199)


def test_the_limit_counts_the_whole_jpeg_and_not_its_reduced_scale() -> None:
    assert "limit" in failure(encoded(four_colours(800, 800), "JPEG"), max_pixels=100_000, min_size=10)


def test_the_limit_replaces_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(encoded(four_colours(), "PNG")).size == (64, 32)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_text_chunk_that_inflates_without_end_is_refused() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80 * 2**20)))
    assert "PNG" in failure(png(1, 1, b"\0\0", extra=bomb))


def test_a_file_far_longer_than_the_limit_on_pixels_allows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening_module, "_METADATA_BYTES", 2**20)
    path = tmp_path / "long.png"
    path.write_bytes(encoded(four_colours(), "PNG"))
    os.truncate(path, 2**22)
    assert "longer than" in failure(path, max_pixels=2048)
    assert open_image(path, max_pixels=2**19).size == (64, 32)


def test_a_huge_file_that_is_no_picture_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    path.write_bytes(b"not a picture " * 100)
    os.truncate(path, 2**40)  # Sparse: takes no room on the disk.
    assert "not a picture" in failure(path)


# Failures


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_refused(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    path = tmp_path / "half.img"
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        assert str(path) in failure(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "not a picture"),
        (b"just words\n", "not a picture"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"BM", "BMP"),
        (b"  <!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\xef\xbb\xbf<html></html>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7", "not a picture"),
    ],
)
def test_files_that_are_no_picture_say_why(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    message = failure(path)
    assert message.startswith(f"{path}: ")
    assert reason in message


def test_absent_files_folders_and_broken_links_say_so(tmp_path: Path) -> None:
    assert failure(tmp_path / "none.jpg").endswith("no such file")
    assert "folder" in failure(tmp_path)
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "none.jpg")
    assert "link" in failure(tmp_path / "broken.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "loop.jpg" in failure(tmp_path / "loop.jpg")
    assert "below" in failure(tmp_path / ("x" * 5000) / "below.jpg")


def test_a_path_through_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(encoded(four_colours(), "PNG"))
    (tmp_path / "link.jpg").symlink_to(tmp_path / "real.png")
    assert open_image(tmp_path / "link.jpg").size == (64, 32)


def test_a_forbidden_file_gives_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")

    def forbid(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", forbid)  # Root may read anything, so chmod would not do.
    assert "Permission denied" in failure(path)


def test_a_forbidden_folder_is_told_from_a_readable_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be read" in failure(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a regular file" in failure(tmp_path / "pipe.jpg")
    assert "not a regular file" in failure("/dev/zero")


@pytest.mark.parametrize(
    "name",
    ["two\nlines.jpg", "tab\t.jpg", "\U0001f436.jpg", "bad\udcff.jpg", "right\u202eleft.jpg", "nul\0.jpg"],
)
def test_messages_are_one_printable_line_whatever_the_name(name: str, tmp_path: Path) -> None:
    message = failure(tmp_path / name)
    message.encode("utf-8")
    assert len(message.splitlines()) == 1


def test_the_name_of_each_kind_of_source() -> None:
    class Named(io.BytesIO):
        name = "up\nload.jpg"

    assert display_name("a.jpg") == display_name(Path("a.jpg")) == "a.jpg"
    assert display_name(b"...") == "<bytes>"
    assert display_name(io.BytesIO()) == "<file object>"
    assert failure(Named(b"")).startswith("up\\nload.jpg: ")
    assert failure(b"").startswith("<bytes>: ")


# File objects


def test_a_file_object_is_read_from_its_start_left_where_it_was_and_not_closed() -> None:
    file = io.BytesIO(encoded(four_colours(), "PNG"))
    file.seek(10)
    assert open_image(file).size == (64, 32)
    assert file.tell() == 10
    bad = io.BytesIO(b"words")
    bad.seek(2)
    failure(bad)
    assert (bad.tell(), bad.closed) == (2, False)


def test_a_stream_that_cannot_seek_and_gives_a_few_bytes_at_a_time_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    data = encoded(four_colours(), "PNG")
    thread = threading.Thread(
        target=lambda: [os.write(writer, data[i : i + 7]) for i in range(0, len(data), 7)]
    )
    thread.start()
    thread.join()
    os.close(writer)
    with open(reader, "rb", buffering=0) as stream:  # noqa: PTH123  # A file descriptor has no path.
        assert open_image(stream).size == (64, 32)
        assert not stream.closed


def test_an_object_with_nothing_but_read_will_do() -> None:
    class Reader:
        def __init__(self, data: bytes) -> None:
            self.read = io.BytesIO(data).read

    assert open_image(Reader(encoded(four_colours(), "PNG"))).size == (64, 32)


def test_text_files_and_closed_files_are_refused() -> None:
    assert "binary mode" in failure(io.StringIO("text"))
    closed = io.BytesIO(b"x")
    closed.close()
    assert "closed" in failure(closed)


def test_no_file_is_left_open(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encoded(four_colours(), kind)
        (tmp_path / f"{kind}.img").write_bytes(data)
        (tmp_path / f"{kind}.bad").write_bytes(data[: len(data) // 2])
    script = (
        "import gc, sys; from pathlib import Path\n"
        "from captioner.images import open_image\nfrom captioner.errors import ImageError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: open_image(path)\n"
        "    except ImageError: pass\n"
        "gc.collect()\n"
        "assert 'torch' not in sys.modules and 'torchvision' not in sys.modules\n"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_opened_picture_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(encoded(four_colours(), "BMP"))
    image = open_image(path)
    path.write_bytes(b"")
    assert_colours(image, [RED, GREEN, BLUE, GREY])


# Reduced scale


@pytest.mark.parametrize(
    ("side", "size"), [(200, (1600, 800)), (100, (800, 400)), (30, (400, 200)), (9, (200, 100))]
)
def test_reduced_scale_keeps_both_sides_at_least_four_times_what_is_needed(
    side: int, size: tuple[int, int]
) -> None:
    assert open_image(encoded(smooth_noise(1600, 800), "JPEG"), min_size=side).size == size


def test_a_jpeg_not_much_larger_than_needed_is_decoded_whole() -> None:
    data = encoded(smooth_noise(300, 200), "JPEG")
    assert np.array_equal(np.asarray(open_image(data, min_size=101)), np.asarray(open_image(data)))


def test_other_formats_ignore_the_size_wanted() -> None:
    assert open_image(encoded(four_colours(1600, 800), "PNG"), min_size=10).size == (1600, 800)


def smooth_noise(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (height // 25, width // 25, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


# Threads and warnings


def odd_tiff() -> bytes:
    """A good TIFF whose orientation claims to be two numbers: Pillow warns of it, twice."""
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    one = struct.pack("<HHI", ORIENTATION, 3, 1)
    return encoded(four_colours(), "TIFF", exif=exif).replace(one, struct.pack("<HHI", ORIENTATION, 3, 2))


def test_pillow_does_warn_of_the_odd_tiff() -> None:
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(io.BytesIO(odd_tiff())).load()


def test_many_threads_leak_no_warning_and_leave_the_filters_alone() -> None:
    data = [odd_tiff(), encoded(four_colours(), "JPEG"), encoded(four_colours(), "PNG")] * 30
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            sizes = {image.size for image in pool.map(open_image, data)}
        assert warnings.filters == before
        gc.collect()
    assert sizes == {(64, 32)}
    assert not caught


# Hostile files


def seeds() -> list[bytes]:
    photo = smooth_noise(100, 75)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker of cameras"
    made = [encoded(photo, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    made += [
        encoded(photo, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")
    ]
    made += [encoded(photo, kind) for kind in ("GIF", "BMP")]
    made += [encoded(photo, "JPEG", progressive=True), encoded(photo.convert("CMYK"), "JPEG")]
    made += [encoded(photo.quantize(16), "PNG", transparency=bytes(range(16)))]
    made += [encoded(Image.fromarray(gradient("uint16", 65535)), "PNG"), encoded(photo.convert("1"), "TIFF")]
    made += [
        encoded(photo, kind, save_all=True, append_images=[four_colours(100, 75)])
        for kind in ("PNG", "GIF", "WEBP")
    ]
    if HAS_AVIF:
        made.append(encoded(photo, "AVIF"))
    with suppress(pytest.skip.Exception):
        made.append(heic(photo))
    return made


SEEDS = seeds()


@settings(max_examples=400, deadline=None)
@given(
    seed=st.sampled_from(range(len(SEEDS))),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=12),
    near_start=st.booleans(),
    kept=st.floats(0, 1),
    truncate=st.booleans(),
)
def test_damaged_files_give_a_picture_or_an_image_error_and_nothing_else(
    seed: int, flips: list[tuple[float, int]], near_start: bool, kept: float, truncate: bool
) -> None:
    data = bytearray(SEEDS[seed])
    reach = min(len(data), 200) if near_start else len(data)
    for place, change in flips:
        data[int(place * reach)] ^= change
    if truncate:
        del data[int(kept * len(data)) :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = open_image(bytes(data), max_pixels=4_000_000, min_size=20)
        except ImageError as error:
            assert str(error).isprintable()  # noqa: PT017  # Either outcome is right.
        else:
            assert image.mode == "RGB"


@settings(max_examples=100, deadline=None)
@given(head=st.sampled_from([data[:12] for data in SEEDS]), tail=st.binary(max_size=300))
def test_random_bytes_after_a_signature_are_refused_or_read(head: bytes, tail: bytes) -> None:
    try:
        assert open_image(head + tail, max_pixels=4_000_000).mode == "RGB"
    except ImageError as error:
        assert str(error).startswith("<bytes>: ")  # noqa: PT017  # Either outcome is right.
