"""Small copies of pictures, to be put into a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Literal

from captioner.images.opening import open_image

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image


def thumbnail_uri(path: Path, size: int) -> str:
    """Return a picture as a `data:` address that holds a JPEG.

    Args:
        path: The picture.
        size: Longest side of the JPEG in pixels.

    Raises:
        ImageError: As `open_image`.
    """
    picture = open_image(path, min_size=size)
    picture.thumbnail((size, size))
    return data_uri(picture, "JPEG", quality=80)


def data_uri(picture: Image, kind: Literal["JPEG", "PNG"], **options: int) -> str:
    """Return a picture as a `data:` address.

    Args:
        picture: The picture as it is to be.
        kind: Format of the file.
        options: Pillow's, for this format.
    """
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
