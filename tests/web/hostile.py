"""Files that visitors should not send, and do."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

from PIL import Image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    """50,000 x 50,000 pixels in a few kilobytes."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels * 5) + _chunk(b"IEND", b"")


def flat_png(width: int, height: int) -> bytes:
    """An image of one colour, made without holding its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    row, packing = b"\0" + b"\x20\x80\xc0" * width, zlib.compressobj(1)
    pixels = b"".join([packing.compress(row) for _ in range(height)] + [packing.flush()])
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def good_png(colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 60), colour).save(buffer, "PNG")
    return buffer.getvalue()


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 90).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()[:3000]


def svg() -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def zip_of(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated.jpg": (truncated_jpeg, "broken or incomplete JPEG"),
    "noise.png": (lambda: b"\x89PNG\r\n\x1a\n" + b"\0\xff" * 200, "broken or incomplete PNG"),
    "empty.jpg": (lambda: b"", "file is empty"),
    "text.jpg": (lambda: b"hello, this is text" * 9, "not an image in a known format"),
    "huge.png": (huge_png, "50000 x 50000 pixels are more than the limit"),
    "drawing.svg": (svg, "SVG drawings are not supported"),
    "page.jpg": (lambda: b"<!doctype html><title>x</title>", "a web page, not an image"),
}
