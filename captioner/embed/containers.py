"""What the image formats have in common: blocks one after the other, two of which hold EXIF and XMP."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import BinaryIO, ClassVar, NamedTuple


class Block(NamedTuple):
    """A part of a file.

    Attributes:
        kind: what is in it; ``exif``, ``xmp``, or a name that its format knows.
        start: of the block, headers included.
        end: of the block.
    """

    kind: str
    start: int
    end: int


class Container(ABC):
    """An image file. Of a large file, only headers and metadata are read before it is rewritten.

    Args:
        file: the file.

    Raises:
        ValueError: it is damaged.

    Attributes:
        exif: its EXIF, a TIFF structure; None if there is none.
        xmp: its XMP packet; None if there is none.
        xmp_limit: how long a packet can be; None for as long as one likes.
    """

    xmp_limit: ClassVar[int | None] = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._blocks = list(self._read_blocks())
        self._read_metadata()

    @abstractmethod
    def rewritten(self, exif: bytes | None, xmp: bytes | None) -> bytes:
        """The whole file with other metadata.

        Args:
            exif: new EXIF; None leaves what is there.
            xmp: new XMP; None leaves what is there.

        Raises:
            ValueError: the format has no room for them.
        """

    @abstractmethod
    def _read_blocks(self) -> Iterable[Block]:
        """All blocks, which make up the file."""

    @abstractmethod
    def _read_metadata(self) -> None:
        """Set ``exif`` and ``xmp``."""

    def _read(self, start: int, length: int) -> bytes:
        """Some bytes; fewer where the file ends."""
        self._file.seek(start)
        return self._file.read(length)

    def _content(self, block: Block) -> bytes:
        """A block with its headers."""
        return self._read(block.start, block.end - block.start)

    def _first(self, kind: str) -> Block | None:
        return next((block for block in self._blocks if block.kind == kind), None)

    def _length(self) -> int:
        return self._file.seek(0, 2)
