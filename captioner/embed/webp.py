"""WebP: chunks in a RIFF file. Metadata need a header that simple files lack; it is added then."""

import struct
from collections.abc import Iterator

from captioner.embed.containers import Block, Container

_RIFF_BYTES = 12
_KINDS = {b"EXIF": "exif", b"XMP ": "xmp", b"VP8X": "header", b"VP8 ": "lossy", b"VP8L": "lossless"}
_HAS_EXIF, _HAS_XMP, _HAS_ALPHA = 0x08, 0x04, 0x10


class WebP(Container):
    """See :class:`Container`."""

    def _read_blocks(self) -> Iterator[Block]:
        head = self._read(0, _RIFF_BYTES)
        end = 8 + int.from_bytes(head[4:8], "little")
        yield Block("riff", 0, _RIFF_BYTES)
        position = _RIFF_BYTES
        while position < end:
            name, length = struct.unpack("<4sI", self._read(position, 8).ljust(8, b"\0"))
            start, position = position, position + 8 + length + length % 2
            if position > min(end + 1, self._length()):
                raise ValueError("its chunks are damaged")
            yield Block(_KINDS.get(name, "other"), start, position)
        yield Block("rest", position, max(position, self._length()))

    def _read_metadata(self) -> None:
        exif = self._payload("exif")
        self.exif = None if exif is None else exif.removeprefix(b"Exif\0\0")
        self.xmp = self._payload("xmp")

    def _payload(self, kind: str) -> bytes | None:
        block = self._first(kind)
        if block is None:
            return None
        chunk = self._content(block)
        return chunk[8 : 8 + int.from_bytes(chunk[4:8], "little")]

    def rewritten(self, exif: bytes | None, xmp: bytes | None) -> bytes:
        """See :class:`Container`."""
        new = {}
        if exif is not None:
            new["exif"] = _chunk(b"EXIF", exif)
        if xmp is not None:
            new["xmp"] = _chunk(b"XMP ", xmp)
        added = [chunk for kind, chunk in new.items() if self._first(kind) is None]
        header = self._header((_HAS_EXIF if exif is not None else 0) | (_HAS_XMP if xmp is not None else 0))
        middle = [
            new.get(block.kind) or self._content(block)
            for block in self._blocks
            if block.kind not in ("riff", "header", "rest")
        ]
        chunks = b"".join((header, *middle, *added))
        rest = self._content(self._blocks[-1])
        return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks + rest

    def _header(self, flags: int) -> bytes:
        """The VP8X chunk, with flags set."""
        block = self._first("header")
        if block is not None:
            chunk = bytearray(self._content(block))
            chunk[8] |= flags
            return bytes(chunk)
        width, height, has_alpha = self._size()
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return _chunk(b"VP8X", struct.pack("<I", flags | (_HAS_ALPHA if has_alpha else 0)) + sides)

    def _size(self) -> tuple[int, int, bool]:
        """Width, height and whether there is transparency, from the head of the compressed data."""
        block = self._first("lossy") or self._first("lossless")
        if block is None:
            raise ValueError("its chunks are damaged")
        head = self._read(block.start + 8, 10)
        if block.kind == "lossy":
            width, height = struct.unpack("<HH", head[6:10])
            return width & 0x3FFF, height & 0x3FFF, False
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
