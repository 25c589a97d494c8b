"""A caption inside an image file: EXIF ``ImageDescription``, XMP ``dc:description`` and IPTC's alt text.

Photo managers show the description, screen readers read the alt text. Pixels are not touched: not one byte of
the compressed data changes, nor of any other metadata.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from captioner.embed import containers, tiff, xmp
from captioner.errors import ImageError
from captioner.images.open import identify

_HEAD_BYTES = 512
# What cameras write into every image where a person would describe it.
_OF_CAMERAS = re.compile(r".*digital camera|sony dsc|exif_jpeg_picture|default|dcim[\\/].*", re.IGNORECASE | re.DOTALL)


class Texts(NamedTuple):
    """What an image says of itself; empty where it says nothing."""

    description: str
    alt_text: str


def read_texts(file: BinaryIO, name: str) -> Texts:
    """Read an image's texts. What cameras write into every image is not counted.

    Args:
        file: the image.
        name: what to call it in messages.

    Raises:
        ImageError: it is of a format without support here, or damaged.
    """
    with _problems(name):
        return _texts(_open(file, name))


def check_embeddable(data: bytes, name: str) -> None:
    """Check that a caption can be embedded, as far as that is known without one.

    Raises:
        ImageError: it cannot.
    """
    embed(data, "An image.", name, overwrite=True)


def embed(data: bytes, caption: str, name: str, *, own: str = "", overwrite: bool = False) -> bytes:
    """Write a caption into an image.

    A description or an alt text that a person has written stays.

    Args:
        data: the image file.
        caption: one line.
        name: what to call the image in messages.
        own: a caption that was embedded earlier, and can be replaced.
        overwrite: replace whatever is there.

    Returns:
        The new file.

    Raises:
        ImageError: its format has no support here, it is damaged, or has no room.
    """
    with _problems(name):
        image = _open(io.BytesIO(data), name)
        before = _texts(image)
        exif, texts = None, {}
        if overwrite or before.description in ("", own):
            exif = tiff.Tiff(image.exif or tiff.EMPTY).with_text(tiff.IMAGE_DESCRIPTION, caption)
            texts[xmp.DESCRIPTION] = caption
        if overwrite or before.alt_text in ("", own):
            texts[xmp.ALT_TEXT] = caption
        if not texts:
            return data
        return image.rewritten(exif, xmp.write_packet(image.xmp, texts, limit=image.xmp_limit))


def _open(file: BinaryIO, name: str) -> containers.Container:
    file.seek(0)
    kind = identify(file.read(_HEAD_BYTES), name)
    if kind not in containers.CONTAINERS:
        *others, last = containers.CONTAINERS
        raise ValueError(f"its format is {kind}, not {', '.join(others)} or {last}")
    return containers.CONTAINERS[kind](file)


def _texts(image: containers.Container) -> Texts:
    described = "" if image.exif is None else tiff.Tiff(image.exif).text(tiff.IMAGE_DESCRIPTION).strip()
    if _OF_CAMERAS.fullmatch(described):
        described = ""
    found = {key: text.strip() for key, text in xmp.read_packet(image.xmp).items()}
    return Texts(described or found.get(xmp.DESCRIPTION, ""), found.get(xmp.ALT_TEXT, ""))


@contextmanager
def _problems(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, struct.error) as error:
        raise ImageError(f"{name}: no caption can be embedded ({error})") from error
