"""What is known of one image: what is written of it, and by what its file is known again."""

from dataclasses import dataclass
from typing import NamedTuple


class Line(NamedTuple):
    """A caption as it is written, log P(caption | image), natural, and its confidence, if it has one."""

    text: str
    log_prob: float
    confidence: float | None = None


@dataclass(frozen=True)
class Identity:
    """By what an image file is known again.

    Attributes:
        size: bytes.
        modified: time of the last change, in nanoseconds since 1970.
        digest: 16 bytes of BLAKE2b over the file.
    """

    size: int
    modified: int
    digest: bytes


@dataclass(frozen=True)
class Entry:
    """What became of one image.

    Attributes:
        image: its path, as it was found.
        captions: the best first when searching, in the order drawn when sampling; empty if it failed.
        error: why it failed, in one line; None if it did not.
        image_id: its number, for formats that name images by number.
        identity: of the file that was captioned; None if it could not be read.
        thumbnail: a small JPEG of it, for formats that show images.
    """

    image: str
    captions: tuple[Line, ...] = ()
    error: str | None = None
    image_id: int | None = None
    identity: Identity | None = None
    thumbnail: bytes | None = None

    @property
    def outcome(self) -> tuple[tuple[Line, ...], str | None, int | None, bytes | None]:
        """What is written of it."""
        return self.captions, self.error, self.image_id, self.thumbnail
