"""Read one picture for the encoder. Imports no torch, so that processes that only read start quickly."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from captioner.batch.records import Identity
from captioner.batch.tars import Item, Member, TarReader
from captioner.errors import ImageError
from captioner.images import Preprocessing, Preprocessings, display_name, read_file
from captioner.images.thumbnails import make_thumbnail

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
        check: raises :class:`ImageError` for a file, by its bytes and its name, that is not to be captioned;
            a function of a module, because it is sent to other processes.
        thumbnails: make one of each picture.
    """

    preprocessing: Preprocessing | Preprocessings
    max_pixels: int
    check: Callable[[bytes, str], None] | None = None
    thumbnails: bool = False
    _tars: TarReader = field(default_factory=TarReader, init=False, repr=False, compare=False)

    def __call__(self, item: Item) -> Loaded:
        """Read one picture; whatever is wrong with its file becomes an error in the answer."""
        identity = None
        try:
            # Before reading: a file that changes meanwhile will look changed later, not the other way round.
            modified = _modified(item)
            data = read_item(item, self._tars, max_pixels=self.max_pixels)
            identity = Identity(len(data), modified, digest_of(data))
            name = str(item)
            pixels = self.preprocessing.load(_Named(data, name), max_pixels=self.max_pixels)
            if self.check is not None:
                self.check(data, display_name(name))
            thumbnail = None
            if self.thumbnails:
                thumbnail = make_thumbnail(_Named(data, name), THUMBNAIL_SIDE, max_pixels=self.max_pixels)
        except ImageError as error:
            return Loaded(identity, error=str(error))
        return Loaded(identity, pixels, thumbnail=thumbnail)


class _Named(io.BytesIO):
    """Bytes that are called like the file they come from, in messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def read_item(item: Item, tars: TarReader, *, max_pixels: int) -> bytes:
    """Bytes of a picture, wherever it lies.

    Raises:
        ImageError: as :func:`captioner.images.read_file` and :meth:`TarReader.read`.
    """
    if isinstance(item, Member):
        return tars.read(item, max_pixels=max_pixels)
    return read_file(item, max_pixels=max_pixels)


def digest_of(data: bytes) -> bytes:
    """What files of equal content share."""
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _modified(item: Item) -> int:
    if isinstance(item, Member):
        return item.modified
    try:
        return item.stat().st_mtime_ns
    except (OSError, ValueError):  # reading it will say what is wrong
        return 0


def has_changed(item: Item, identity: Identity | None, tars: TarReader, *, max_pixels: int) -> bool:
    """Whether a picture is another one now. It is read only where size and time leave that open."""
    if identity is None:
        return True
    try:
        size = item.size if isinstance(item, Member) else item.stat().st_size
    except (OSError, ValueError):
        return False  # it has gone: what was seen of it stands
    if size == identity.size and _modified(item) == identity.modified:
        return False
    try:
        return digest_of(read_item(item, tars, max_pixels=max_pixels)) != identity.digest
    except ImageError:
        return True
