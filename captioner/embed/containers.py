"""Image files as blocks one after the other, two of which hold EXIF and XMP: JPEG, PNG and WebP.

What lies between the metadata, above all the compressed pixels, is never touched.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, ClassVar, NamedTuple

from captioner.embed.tiff import Tiff


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


class Container:
    """An image file. Of a large file, only headers and metadata are read before it is rewritten.

    Args:
        file: the file.

    Raises:
        ValueError: it is damaged.

    Attributes:
        exif: its EXIF, a TIFF structure; None if there is none.
        xmp: its XMP packet; None if there is none.
        xmp_limit: how long a packet can be; None for any length.
    """

    xmp_limit: ClassVar[int | None] = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._blocks = list(self._read_blocks())
        self._read_metadata()

    def rewritten(self, exif: bytes | None, xmp: bytes | None) -> bytes:
        """The whole file with other metadata.

        Args:
            exif: new EXIF; None leaves what is there.
            xmp: new XMP; None leaves what is there.

        Raises:
            ValueError: the format has no room for them.
        """
        raise NotImplementedError

    def _read_blocks(self) -> Iterable[Block]:
        """All blocks, which make up the file."""
        raise NotImplementedError

    def _read_metadata(self) -> None:
        """Set ``exif`` and ``xmp``."""
        raise NotImplementedError

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


# Headers of the two segments of a JPEG.
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_SEGMENT_BYTES = 65533  # what a segment can hold
_APP0, _APP1, _APP2 = 0xE0, 0xE1, 0xE2
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
# The index of a file with several images (MPO, previews, gain maps), which says where these lie. An entry has
# attributes, bytes, the offset from the index, and two numbers of other images.
_INDEX, _ENTRIES, _ENTRY, _ENTRY_BYTES = b"MPF\0", 0xB002, "IIIHH", 16


class Jpeg(Container):
    """JPEG: segments before the compressed data, and after them everything else."""

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
        return "images" if code == _APP2 and head.startswith(_INDEX) else "other"

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
        if "images" in kinds:
            place = kinds.index("images")
            added = [len(content) - (b.end - b.start) for content, b in zip(contents, blocks, strict=True)]
            contents[place] = _shifted(contents[place], first=sum(added), others=sum(added[place + 1 :]))
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


def _shifted(segment: bytes, *, first: int, others: int) -> bytes:
    """The index of images after ``first`` bytes were added to the first one, ``others`` of them after the index.

    The offsets of the other images count from the index.
    """
    start = segment.index(_INDEX) + len(_INDEX)
    data = segment[start:]
    index = Tiff(data)
    place, entries = index.span(_ENTRIES)[0], index.value(_ENTRIES)
    if entries is None:
        raise ValueError("its index of images is damaged")
    form = ("<" if data.startswith(b"II") else ">") + _ENTRY
    new = b""
    for entry in range(0, len(entries) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        attributes, size, offset, *numbers = struct.unpack_from(form, entries, entry)
        size, offset = (size + first, 0) if offset == 0 else (size, offset + others)
        new += struct.pack(form, attributes, size, offset, *numbers)
    return segment[:start] + data[:place] + new + data[place + len(new) :]


_SIGNATURE_BYTES = 8
_FRAME_BYTES = 12  # length, name, checksum
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
_TEXT_BYTES = 1 << 24  # of a text when decompressed; longer ones are a bomb


class Png(Container):
    """PNG: chunks, each with a checksum."""

    def _read_blocks(self) -> Iterator[Block]:
        end = self._length()
        yield Block("signature", 0, _SIGNATURE_BYTES)
        position, name = _SIGNATURE_BYTES, b""
        while name != b"IEND":
            head = self._read(position, 8 + len(_RAW_EXIF[0]))
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            start, position = position, position + length + _FRAME_BYTES
            if position > end:
                raise ValueError("its chunks are damaged")
            yield Block(_png_kind(name, head[8 : 8 + length]), start, position)
        yield Block("rest", position, end)

    def _read_metadata(self) -> None:
        exif, xmp, raw = (self._first(kind) for kind in ("exif", "xmp", "raw exif"))
        if exif is not None:
            self.exif = self._content(exif)[8:-4]
        elif raw is not None:  # of older software; readers prefer the chunk, so the chunk gets everything too
            self.exif = _raw_exif(self._content(raw)[4:-4])
        if xmp is not None:
            self.xmp = _international_text(self._content(xmp)[8:-4])

    def rewritten(self, exif: bytes | None, xmp: bytes | None) -> bytes:
        """See :class:`Container`."""
        text = None if xmp is None else _XMP_KEYWORD + bytes(4) + xmp
        new = {"exif": _png_chunk(b"eXIf", exif), "xmp": _png_chunk(b"iTXt", text)}
        added = b"".join(chunk for kind, chunk in new.items() if self._first(kind) is None)
        parts = []
        for block in self._blocks:
            if block.kind == "pixels":  # readers that do not go on after these find it
                parts.append(added)
                added = b""
            parts.append(new.get(block.kind) or self._content(block))
        return b"".join(parts)


def _png_kind(name: bytes, head: bytes) -> str:
    if name == b"iTXt" and head.startswith(_XMP_KEYWORD):
        return "xmp"
    if name in (b"tEXt", b"zTXt") and head.startswith(_RAW_EXIF):
        return "raw exif"
    return {b"eXIf": "exif", b"IDAT": "pixels"}.get(name, "other")


def _png_chunk(name: bytes, content: bytes | None) -> bytes:
    if content is None:
        return b""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _international_text(content: bytes) -> bytes:
    """What an iTXt chunk says: after keyword, two flags, language and translated keyword."""
    compressed = content[len(_XMP_KEYWORD)] == 1
    _, _, text = content[len(_XMP_KEYWORD) + 2 :].split(b"\0", 2)
    return _decompressed(text) if compressed else text


def _raw_exif(chunk: bytes) -> bytes | None:
    """The TIFF structure in a text of hexadecimal digits, which ImageMagick has introduced."""
    _, content = chunk[4:].split(b"\0", 1)
    text = _decompressed(content[1:]) if chunk.startswith(b"zTXt") else content
    data = bytes.fromhex(b"".join(text.strip().split(b"\n")[2:]).decode("ascii"))
    return data.removeprefix(b"Exif\0\0") if data.startswith((b"Exif\0\0", b"II", b"MM")) else None


def _decompressed(data: bytes) -> bytes:
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(data, _TEXT_BYTES)
    except zlib.error as error:
        raise ValueError("its texts are damaged") from error
    if not decoder.eof:
        raise ValueError("its texts are too long or damaged")
    return text


_RIFF_BYTES = 12
_KINDS = {b"EXIF": "exif", b"XMP ": "xmp", b"VP8X": "header", b"VP8 ": "lossy", b"VP8L": "lossless"}
_HAS_EXIF, _HAS_XMP, _HAS_ALPHA = 0x08, 0x04, 0x10


class WebP(Container):
    """WebP: chunks in a RIFF file. Metadata need a header that simple files lack; it is added then."""

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
        new = {"exif": _webp_chunk(b"EXIF", exif), "xmp": _webp_chunk(b"XMP ", xmp)}
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
        return _webp_chunk(b"VP8X", struct.pack("<I", flags | (_HAS_ALPHA if has_alpha else 0)) + sides)

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


def _webp_chunk(name: bytes, content: bytes | None) -> bytes:
    if content is None:
        return b""
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


CONTAINERS: dict[str, type[Container]] = {"JPEG": Jpeg, "PNG": Png, "WebP": WebP}
