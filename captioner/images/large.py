"""Large images in little memory: a PNG is read in strips, and what threads decode at the same time has a bound."""

import io
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

ADVICE = "shrink the image or save it as an ordinary JPEG"
_LARGE = 2**24  # pixels above which a PNG is read in strips
_STRIP_PIXELS = 2**20
_STRIPS_BYTES = 60_000_000  # what reading in strips takes
_AT_ONCE_BYTES = 300_000_000  # for all images that threads decode; one that takes more is decoded alone
_PIXEL_BYTES = {"I": 32, "F": 32, "I;16": 32, "I;16B": 32}  # for a pixel, while an image of this mode is decoded
_OPAQUE_BYTES = {"JPEG": 8, "HEIC": 12, "AVIF": 12, "BMP": 12, "TIFF": 12}  # of 8 bits, grey or RGB
_MOST_PIXEL_BYTES, _ANIMATED_BYTES = 17, 40  # of others; of a WebP, whose decoder holds several frames
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's type of colour
_COLOURS, _TAGS = (b"PLTE", b"tRNS"), (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # kinds of chunks
_CHUNK_BYTES = 2**20
_ROOM = threading.Condition()
_decoding: list[int] = []  # bytes that each image takes that is being decoded


def factor(image: Image.Image, data: bytes, side: int | None) -> int:
    """Say over squares of how many pixels an image is averaged that is read in strips; 1 for all others.

    Args:
        image: its header is read.
        data: the file.
        side: length that the short side keeps at least; None for all of it.
    """
    if not isinstance(image, PngImageFile) or not side or getattr(image, "is_animated", False):
        return 1
    simple = data[24] == 8 and not data[28]  # bits of a value; whether it is interlaced
    return max(1, min(image.size) // side) if simple and image.width * image.height > _LARGE else 1


def is_hollow(image: Image.Image, data: bytes) -> bool:
    """Whether a header claims more pixels than the file can hold, because it is damaged or lies.

    Pages and drawings pack up to a thousand pixels into a byte. Where a damaged side makes an image very long, as most
    that are damaged are, a hundred are enough to tell.
    """
    packed = 100 if max(image.size) > 50 * min(image.size) else 1000
    return image.mode != "1" and image.width * image.height > packed * len(data)


def bytes_needed(image: Any, data: bytes, kind: str, side: int | None) -> int:
    """Estimate the memory that it takes to decode an image; arguments as of :func:`factor`."""
    pixels, held = image.width * image.height, 0
    if factor(image, data, side) > 1:
        return _STRIPS_BYTES
    if kind != "JPEG":
        most = _ANIMATED_BYTES if kind == "WebP" and image.is_animated else _MOST_PIXEL_BYTES
        opaque = _OPAQUE_BYTES.get(kind, most) if image.mode in ("L", "RGB") else most
        return int(pixels * _PIXEL_BYTES.get(image.mode, opaque))
    if image.info.get("progressive"):  # all its coefficients are held, two bytes each
        shares = [across * down for _, across, down, _ in image.layer]
        held = 2 * pixels * sum(shares) // max(shares)
    reduced = max(scale for scale in (1, 2, 4, 8) if scale == 1 or (side and min(image.size) >= scale * side))
    return int(held + _OPAQUE_BYTES[kind] * pixels / reduced**2)


@contextmanager
def room_for(needed: int) -> Iterator[None]:
    """Wait until the images that other threads decode leave so much memory, or there is no other."""
    with _ROOM:
        _ROOM.wait_for(lambda: not _decoding or sum(_decoding) + needed <= _AT_ONCE_BYTES)
        _decoding.append(needed)
    try:
        yield
    finally:
        with _ROOM:
            _decoding.remove(needed)
            _ROOM.notify_all()


def read_png(image: Image.Image, data: bytes, factor: int) -> Image.Image:
    """Decode a PNG in strips, averaged over squares of pixels: ``L``, ``RGB``, or ``RGBA`` if transparent.

    Raises:
        OSError: the file is truncated; or any other error of a decoder.
    """
    clear, plain = image.has_transparency_data, "L" if image.mode == "L" else "RGB"
    size = -(-image.width // factor), -(-image.height // factor)
    # Transparent pixels must not lend their colours to others, so these are weighted before they are averaged.
    small, top = Image.new("RGBa" if clear else plain, size), 0
    for strip in _strips(data, image.size, factor * max(1, _STRIP_PIXELS // (factor * image.width))):
        found = strip.convert("RGBA").convert("RGBa") if clear else strip.convert(plain)
        small.paste(found.reduce(factor), (0, top))
        top += strip.height // factor
    small = small.convert("RGBA") if clear else small
    small.info = {name: value for name, value in (image.info | strip.info).items() if name != "transparency"}
    return small


def _strips(data: bytes, size: tuple[int, int], rows: int) -> Iterator[Image.Image]:
    """Decode strip by strip, each as a PNG of its own.

    Rows are written as differences from the row above, so that the last row of the strip before comes first in
    each, and is cut off again.
    """
    width, height = size
    length = 1 + width * _CHANNELS[data[25]]  # bytes of a row
    chunks = list(_chunks(data))
    colours, tags = ([chunk for chunk in chunks if chunk[0] in kinds] for kinds in (_COLOURS, _TAGS))
    starts = ((body, start) for kind, body in chunks if kind == b"IDAT" for start in range(0, len(body), _CHUNK_BYTES))
    packed = (body[start : start + _CHUNK_BYTES] for body, start in starts)
    above, text, inflate = bytes(length), b"", zlib.decompressobj()
    for start in range(0, height, rows):
        count = min(rows, height - start)
        while missing := count * length - len(text):
            more = inflate.unconsumed_tail or next(packed, b"")
            if inflate.eof or not more:
                raise OSError("image file is truncated")
            text += inflate.decompress(more, missing)
        head = width.to_bytes(4, "big") + (count + 1).to_bytes(4, "big") + data[24:29]
        parts: list[tuple[bytes, bytes | memoryview]] = [(b"IHDR", head), *colours]
        parts += tags if start + count == height else []  # the last strip is asked for the orientation
        parts += [(b"IDAT", zlib.compress(above + text, 0)), (b"IEND", b"")]
        strip, text = PngImageFile(io.BytesIO(data[:8] + b"".join(_chunk(*part) for part in parts))), b""
        above = b"\0" + strip.crop((0, count, width, count + 1)).tobytes()
        yield strip.crop((0, 1, width, count + 1))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    place = 8
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], memoryview(data)[place + 8 : end]
        place = end + 4


def _chunk(kind: bytes, body: bytes | memoryview) -> bytes:
    text = kind + body
    return len(body).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
