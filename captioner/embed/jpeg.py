"""JPEG: segments before the compressed data, and after them everything else, which is never touched."""

import struct
from collections.abc import Iterator
from typing import ClassVar

from captioner.embed.containers import Block, Container
from captioner.embed.multipicture import HEAD, shifted

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_SEGMENT_BYTES = 65533  # what a segment can hold
_APP0, _APP1, _APP2 = 0xE0, 0xE1, 0xE2
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
_HEAD_BYTES = 4  # marker and length


class Jpeg(Container):
    """See :class:`Container`."""

    xmp_limit: ClassVar[int | None] = _SEGMENT_BYTES - len(_XMP)

    def _read_blocks(self) -> Iterator[Block]:
        end = self._length()
        yield Block("start", 0, 2)
        position = 2
        while True:
            start = position
            position, code = self._marker(position)
            if code in (_START_OF_SCAN, _END_OF_IMAGE):
                yield Block("rest", start, end)
                return
            if code not in _WITHOUT_LENGTH:
                (length,) = struct.unpack(">H", self._read(position, 2).ljust(2, b"\0"))
                if length < 2 or position + length > end:
                    raise ValueError("its segments are damaged")
                kind = self._kind(code, self._read(position + 2, min(len(_XMP), length - 2)))
                position += length
            else:
                kind = "other"
            yield Block(kind, start, position)

    def _marker(self, position: int) -> tuple[int, int]:
        """The marker at a position, and where it ends; any number of 0xFF may come before it."""
        head = self._read(position, 2)
        while head == b"\xff\xff":
            position += 1
            head = self._read(position, 2)
        if len(head) < 2 or head[0] != 0xFF:
            raise ValueError("its segments are damaged")
        return position + 2, head[1]

    @staticmethod
    def _kind(code: int, head: bytes) -> str:
        if code == _APP0:
            return "jfif"
        if code == _APP1 and head.startswith(_EXIF):
            return "exif"
        if code == _APP1 and head == _XMP:
            return "xmp"
        return "pictures" if code == _APP2 and head.startswith(HEAD) else "other"

    def _read_metadata(self) -> None:
        self.exif = self._payload("exif", _EXIF)
        self.xmp = self._payload("xmp", _XMP)

    def _payload(self, kind: str, head: bytes) -> bytes | None:
        blocks = [block for block in self._blocks if block.kind == kind]
        if len(blocks) > 1:
            raise ValueError(f"its {kind.upper()} is in several segments")
        if not blocks:
            return None
        segment = self._content(blocks[0])
        return segment[segment.index(head) + len(head) :]

    def rewritten(self, exif: bytes | None, xmp: bytes | None) -> bytes:
        """See :class:`Container`."""
        new = {"exif": _segment("EXIF", _EXIF, exif), "xmp": _segment("XMP", _XMP, xmp)}
        blocks = self._with_places([kind for kind, segment in new.items() if segment])
        contents = [new.get(block.kind) or self._content(block) for block in blocks]
        kinds = [block.kind for block in blocks]
        if "pictures" in kinds:
            place = kinds.index("pictures")
            added = [len(content) - (b.end - b.start) for content, b in zip(contents, blocks, strict=True)]
            contents[place] = shifted(contents[place], first=sum(added), others=sum(added[place + 1 :]))
        return b"".join(contents)

    def _with_places(self, kinds: list[str]) -> list[Block]:
        """The blocks, with empty ones where segments are to be added: after those that have to come first."""
        blocks = list(self._blocks)
        for kind in kinds:
            if self._first(kind) is None:
                early = ("start", "jfif", "exif")
                place = next(i for i, block in enumerate(blocks) if block.kind not in early)
                blocks.insert(place, Block(kind, blocks[place].start, blocks[place].start))
        return blocks


def _segment(name: str, head: bytes, content: bytes | None) -> bytes:
    if content is None:
        return b""
    payload = head + content
    if len(payload) > _SEGMENT_BYTES:
        raise ValueError(f"its {name} has no room for a caption")
    return struct.pack(">HH", 0xFF00 + _APP1, len(payload) + 2) + payload
