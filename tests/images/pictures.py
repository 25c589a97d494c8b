"""Images that the tests of opening make, and what they ask of an opened one."""

from __future__ import annotations

import io
import struct
import zlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from captioner.errors import ImageError
from captioner.images import open_image

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
    """Colours a quarter into the image from its four corners, row by row."""
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


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def smooth_noise(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (height // 25, width // 25, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
