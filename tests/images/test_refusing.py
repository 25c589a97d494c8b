from __future__ import annotations

import errno
import io
import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.images import display_name, open_image
from captioner.images import open as opening_module
from tests.images.pictures import chunk, encoded, failure, four_colours, png, smooth_noise


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


def test_a_huge_file_that_is_no_image_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    path.write_bytes(b"not an image " * 100)
    os.truncate(path, 2**40)  # Sparse: takes no room on the disk.
    assert "not an image" in failure(path)


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
        (b"\xff", "not an image"),
        (b"just words\n", "not an image"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"BM", "BMP"),
        (b"  <!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\xef\xbb\xbf<html></html>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7", "not an image"),
    ],
)
def test_files_that_are_no_image_say_why(content: bytes, reason: str, tmp_path: Path) -> None:
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


def test_a_forbidden_folder_is_told_from_a_readable_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_only_its_end_is_read(mode: str, options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker of cameras"
    data = encoded(smooth_noise(250, 175).convert(mode), "JPEG", exif=exif, **options)
    whole = np.asarray(open_image(data))
    for cut in (data[:-1], data[:-2], data[:-2] + bytes(100)):
        assert np.array_equal(np.asarray(open_image(cut)), whole)
        assert open_image(cut, min_size=10).size == open_image(data, min_size=10).size


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_jpeg_that_lacks_pixels_or_scans_is_refused(options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", **options)
    scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    for end in (len(data) - 12, len(data) - 200, len(data) // 2, *scans[1:]):
        for filled in (b"", bytes(9000), b"\xff" * 9000):
            assert "broken or incomplete JPEG" in failure(data[:end] + filled)


def test_a_jpeg_that_ends_where_its_data_should_begin_anew_is_refused() -> None:
    data = encoded(smooth_noise(250, 175), "JPEG", restart_marker_blocks=3)
    marks = [place for place in range(len(data)) if data[place] == 0xFF and 0xD0 <= data[place + 1] <= 0xD7]
    assert len(marks) > 40
    for mark in marks[3::4]:
        assert "broken or incomplete JPEG" in failure(data[:mark])
