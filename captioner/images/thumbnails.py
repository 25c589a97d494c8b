"""Small copies of pictures, to be put into a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from captioner.images.opening import DEFAULT_MAX_PIXELS, open_image

if TYPE_CHECKING:
    from pathlib import Path

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
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return data.getvalue()


def thumbnail_uri(path: Path, side: int) -> str:
    """Return a picture as a `data:` address that holds a JPEG; see `make_thumbnail`."""
    return data_uri(make_thumbnail(path, side))


def data_uri(jpeg: bytes) -> str:
    """Return a JPEG as a `data:` address."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
