"""Metadata in formats whose captions are read, not written: TIFF and the raw files that are TIFF, GIF, AVIF, HEIC."""

from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from captioner.embed.containers import Part
from captioner.embed.tiff import Tiff
from captioner.images.open import decoder_of

_XMP, _IPTC, _PHOTOSHOP = 0x02BC, 0x83BB, 0x8649  # fields of TIFF
_HEADER = b"Exif\0\0"
_OF_PILLOW = ("GIF", "BMP", "AVIF", "HEIC")


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
    if kind == "TIFF":
        yield from _parts_of_tiff(file.read())
        return
    if kind not in _OF_PILLOW:
        raise ValueError(f"its format is {kind}")
    try:
        image = decoder_of(kind, name)(file) if kind == "HEIC" else Image.open(file, formats=[kind])
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{error}") from error
    with image:
        for key, each in (("exif", "exif"), ("xmp", "xmp"), ("comment", "text")):
            if content := image.info.get(key):
                content = content.encode() if isinstance(content, str) else bytes(content)
                yield Part(each, content.removeprefix(_HEADER), f"{kind} comment" if each == "text" else "")


def _parts_of_tiff(data: bytes) -> Iterator[Part]:
    directory = Tiff(data)
    yield Part("exif", data)
    if packet := directory.value(_XMP):
        yield Part("xmp", packet)
    for tag in (_IPTC, _PHOTOSHOP):
        if content := directory.value(tag):
            yield Part("iptc", content)
