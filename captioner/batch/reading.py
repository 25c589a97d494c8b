"""Read one picture for the encoder. Imports no torch, so that processes that only read start quickly."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.batch.records import Identity
from captioner.errors import ImageError
from captioner.images import Preprocessing, Preprocessings, display_name, read_file
from captioner.images.thumbnails import make_thumbnail
from captioner.metadata import check_embeddable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

THUMBNAIL_SIDE = 256
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Loaded:
    """A picture ready for the encoder, or why it is not.

    Attributes:
        identity: of the file; None if it could not be read.
        pixels: uint8 ``(size, size, 3)``; None if it failed.
        error: why it failed, in one line.
        thumbnail: a small JPEG of it, if asked for.
    """

    identity: Identity | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    error: str | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class PictureReader:
    """Opens and scales pictures.

    Attributes:
        preprocessing: what the encoder expects.
        max_pixels: larger pictures are refused before they are decoded.
        embeds: captions are to be embedded; pictures that cannot hold one are refused.
        thumbnails: make one of each picture.
    """

    preprocessing: Preprocessing | Preprocessings
    max_pixels: int
    embeds: bool = False
    thumbnails: bool = False

    def __call__(self, path: Path) -> Loaded:
        """Read one picture; whatever is wrong with its file becomes an error in the answer."""
        identity = None
        try:
            # Before reading: a file that changes meanwhile will look changed later, not the other way round.
            modified = _modified(path)
            data = read_file(path, max_pixels=self.max_pixels)
            identity = Identity(len(data), modified, digest_of(data))
            pixels = self.preprocessing.load(_Named(data, path), max_pixels=self.max_pixels)
            if self.embeds:
                check_embeddable(data, display_name(path))
            thumbnail = None
            if self.thumbnails:
                thumbnail = make_thumbnail(_Named(data, path), THUMBNAIL_SIDE, max_pixels=self.max_pixels)
        except ImageError as error:
            return Loaded(identity, error=str(error))
        return Loaded(identity, pixels, thumbnail=thumbnail)


class _Named(io.BytesIO):
    """Bytes that are called like the file they come from, in messages."""

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(data)
        self.name = os.fspath(path)


def digest_of(data: bytes) -> bytes:
    """What files of equal content share."""
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except (OSError, ValueError):  # reading it will say what is wrong
        return 0


def has_changed(path: Path, identity: Identity | None, *, max_pixels: int) -> bool:
    """Whether a file is another one now. Its content is read only where size and time leave it open."""
    if identity is None:
        return True
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False  # it has gone: what was seen of it stands
    if status.st_size == identity.size and status.st_mtime_ns == identity.modified:
        return False
    try:
        return digest_of(read_file(path, max_pixels=max_pixels)) != identity.digest
    except ImageError:
        return True
