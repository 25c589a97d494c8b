"""Metadata in formats whose captions are read, not written: TIFF, camera raws, GIF, AVIF, HEIC, JPEG XL."""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from captioner.embed.containers import Jpeg, Part
from captioner.embed.tiff import Tiff
from captioner.errors import NoDecoderError
from captioner.images.open import decoder_of

_XMP, _IPTC, _PHOTOSHOP, _PREVIEW = 0x02BC, 0x83BB, 0x8649, 0x002E  # fields of TIFF; the last is Panasonic's
_HEADER = b"Exif\0\0"
_OF_PILLOW = ("GIF", "BMP", "AVIF", "HEIC")
_FUJIFILM, _MINOLTA, _MINOLTA_EXIF, _CANON = b"FUJIFILMCCD-RAW ", b"\0MRM", b"\0TTW", b"ftypcrx "
_CANON_OF_OLD = b"HEAP"
_FUJIFILM_PREVIEW = 84  # where its place and its length stand
# Boxes of ISO base media with a name of 16 bytes: Canon's EXIF, in a TIFF structure for each directory, and XMP.
_CANON_EXIF, _BOX_OF_XMP = (
    bytes.fromhex(name) for name in ("85c0b687820f11e08111f4ce462b6a48", "be7acfcb97a942e89c71999491e3afac")
)
_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"  # in what is XMP, and not other XML
_MOST_BYTES = 1 << 24  # of a box when decompressed; longer ones are a bomb


def read_parts(file: BinaryIO, kind: str, name: str) -> Iterator[Part]:
    """Read the metadata of a file.

    Args:
        file: the image.
        kind: its format.
        name: what to call it in messages.

    Raises:
        ValueError: it is damaged, or of a format whose metadata are not read.
        NoDecoderError: its format needs a package that is not installed.
    """
    if kind in ("TIFF", "camera raw"):
        yield from _parts_of_raw(file.read())
    elif kind == "JPEG XL":
        yield from _parts_of_jxl(file.read(), name)
    elif kind in _OF_PILLOW:
        yield from _parts_by_pillow(file, kind, name)
    else:
        raise ValueError(f"its format is {kind}")


def _parts_by_pillow(file: BinaryIO, kind: str, name: str) -> Iterator[Part]:
    try:
        image = decoder_of(kind, name)(file) if kind == "HEIC" else Image.open(file, formats=[kind])
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{error}") from error
    with image:
        for key, each in (("exif", "exif"), ("xmp", "xmp"), ("comment", "text")):
            if content := image.info.get(key):
                content = content.encode() if isinstance(content, str) else bytes(content)
                yield Part(each, content.removeprefix(_HEADER), f"{kind} comment" if each == "text" else "")


def _parts_of_raw(data: bytes) -> Iterator[Part]:
    """Of TIFF and of what cameras write, each in a form of its maker; most of them are TIFF."""
    if data.startswith(_FUJIFILM):  # a JPEG with everything in it, and then the sensor's data
        start, size = struct.unpack_from(">II", data, _FUJIFILM_PREVIEW)
        yield from Jpeg(io.BytesIO(data[start : start + size])).parts
    elif data[4:12] == _CANON:
        yield from _parts_of_canon(data)
    elif data.startswith(_MINOLTA):
        yield from _parts_of_tiff(data[data.index(_MINOLTA_EXIF) + 8 :])
    elif data.startswith((b"II", b"MM")) and data[6:10] != _CANON_OF_OLD:
        yield from _parts_of_tiff(data)
    else:
        raise ValueError("those of X3F and CRW are not read")


def _parts_of_tiff(data: bytes) -> Iterator[Part]:
    directory = Tiff(data)
    yield Part("exif", data)
    if packet := directory.value(_XMP):
        yield Part("xmp", packet)
    for tag in (_IPTC, _PHOTOSHOP):
        if content := directory.value(tag):
            yield Part("iptc", content)
    if (preview := directory.value(_PREVIEW) or b"").startswith(b"\xff\xd8\xff"):
        yield from Jpeg(io.BytesIO(preview)).parts


def _parts_of_canon(data: bytes) -> Iterator[Part]:
    boxes = [*_boxes(data)]
    for name, content in [*boxes, *(inner for name, film in boxes if name == b"moov" for inner in _boxes(film))]:
        if name == b"uuid" and content[:16] == _BOX_OF_XMP:
            yield Part("xmp", content[16:])
        elif name == b"uuid" and content[:16] == _CANON_EXIF:
            for directory, exif in _boxes(content[16:]):
                if directory in (b"CMT1", b"CMT2"):
                    yield Part("exif", exif)


def _parts_of_jxl(data: bytes, name: str) -> Iterator[Part]:
    """Without its boxes a JPEG XL has no metadata. IPTC and comments of a JPEG that it was made of are not read."""
    for kind, content in _boxes(data) if data[4:8] == b"JXL " else ():
        if kind == b"brob" and content[:4] in (b"Exif", b"xml "):
            kind, content = content[:4], _decompressed(content[4:], name)
        if kind == b"Exif":  # pillow-jxl-plugin leaves out the offset
            start = 0 if content.startswith((b"II", b"MM")) else 4 + int.from_bytes(content[:4], "big")
            yield Part("exif", content[start:])
        elif kind == b"xml " and _RDF in content:
            yield Part("xmp", content)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each box of ISO base media."""
    start = 0
    while start + 8 <= len(data):
        (size, name), head = struct.unpack_from(">I4s", data, start), 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        end = start + size if size else len(data)
        if not start + head <= end <= len(data):
            raise ValueError("its boxes are damaged")
        yield name, data[start + head : end]
        start = end


def _decompressed(data: bytes, name: str) -> bytes:
    try:
        import brotli
    except ImportError as error:
        advice = "run: pip install 'captioner[jxl]'"
        raise NoDecoderError(f"{name}: its metadata are compressed and cannot be read", advice) from error
    decoder = brotli.Decompressor()
    try:
        content: bytes = decoder.process(data, output_buffer_limit=_MOST_BYTES)
    except brotli.error as error:
        raise ValueError("its boxes are damaged") from error
    if not decoder.is_finished():
        raise ValueError("its metadata are too long or damaged")
    return content
