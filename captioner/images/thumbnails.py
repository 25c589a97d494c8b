"""Small copies of pictures, to be put into a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Literal

from captioner.images.opening import DEFAULT_MAX_PIXELS, open_image

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from captioner.images.opening import Source


def make_thumbnail(source: Source, side: int, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> bytes:
    """Return a picture as a small JPEG.

    Args:
        source: The picture.
        side: Longest side of the JPEG in pixels.
        max_pixels: As for `open_image`.

    Raises:
        ImageError: As `open_image`.
    """
    picture = open_image(source, max_pixels=max_pixels, min_size=side)
    picture.thumbnail((side, side))
    return _file(picture, "jpeg", quality=80)


def thumbnail_uri(path: Path, side: int) -> str:
    """Return a picture as a `data:` address; see `make_thumbnail`."""
    return data_uri(make_thumbnail(path, side))


def picture_uri(picture: Image, kind: Literal["jpeg", "png"], **options: int) -> str:
    """Return a picture as a `data:` address.

    Args:
        picture: The picture as it is to be.
        kind: Format of the file.
        options: Pillow's, for this format.
    """
    return data_uri(_file(picture, kind, **options), kind)


def data_uri(content: bytes, kind: Literal["jpeg", "png"] = "jpeg") -> str:
    """Return a picture file as a `data:` address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _file(picture: Image, kind: str, **options: int) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()
