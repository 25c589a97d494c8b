"""Small copies of pictures, to be put into a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from captioner.images.opening import open_image

if TYPE_CHECKING:
    from pathlib import Path


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
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
