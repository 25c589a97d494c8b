"""Image files as blocks one after the other, some of which hold EXIF, XMP, IPTC or comments: JPEG, PNG and WebP.

What lies between the metadata, above all the compressed pixels, is never touched.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, ClassVar, NamedTuple

from captioner.embed.tiff import Tiff

_LOOKS = ("pixels", "lossy", "lossless", "other", "rest")  # kinds of blocks that say how an image looks


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


class Part(NamedTuple):
    """Metadata of a file.

    Attributes:
        kind: ``exif`` (a TIFF structure), ``xmp`` (a packet), ``long xmp`` (what the first had no room for),
            ``iptc`` (resources of Photoshop, or IIM alone) or ``text`` (in UTF-8, or what older software writes).
        content: of it, without what its format puts around it.
        name: what people call it, such as ``PNG Comment``; empty for the first three kinds.
        blocks: where it comes from; none if it is new.
    """

    kind: str
    content: bytes
    name: str = ""
    blocks: tuple[Block, ...] = ()


class Container:
    """An image file. Of a large file, only headers and metadata are read before it is rewritten.

    Args:
        file: the file.

    Raises:
        ValueError: it is damaged.

    Attributes:
        parts: its metadata.
        xmp_limit: how long a packet can be; None for any length.
        has_iptc: whether it can get IPTC where there is none.
    """

    xmp_limit: ClassVar[int | None] = None
    has_iptc: ClassVar[bool] = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._blocks = list(self._read_blocks())
        self.parts = list(self._read_parts())

    def rewritten(self, parts: Sequence[Part]) -> bytes:
        """The whole file with other metadata.

        Args:
            parts: those of the file in their order, some of them changed, and new ones behind them.

        Raises:
            ValueError: the format has no room for them.
        """
        changed: dict[Block, bytes] = {}
        for old, new in zip(self.parts, parts, strict=False):
            if old != new:
                changed |= dict.fromkeys(old.blocks, b"") | {old.blocks[0]: self._encoded(new)}
        return self._assembled(changed, {part.kind: self._encoded(part) for part in parts[len(self.parts) :]})

    def pixels(self) -> bytes:
        """All blocks that say how the image looks."""
        return b"".join(self._content(block) for block in self._blocks if block.kind in _LOOKS)

    def _assembled(self, changed: Mapping[Block, bytes], added: Mapping[str, bytes]) -> bytes:
        """The whole file.

        Args:
            changed: what takes the place of blocks.
            added: new blocks by kind.
        """
        raise NotImplementedError

    def _encoded(self, part: Part) -> bytes:
        """A part as blocks of the format."""
        raise NotImplementedError

    def _read_blocks(self) -> Iterable[Block]:
        """All blocks, which make up the file."""
        raise NotImplementedError

    def _read_parts(self) -> Iterable[Part]:
        """All metadata."""
        raise NotImplementedError

    def _read(self, start: int, length: int) -> bytes:
        """Some bytes; fewer where the file ends."""
        self._file.seek(start)
        return self._file.read(length)

    def _content(self, block: Block) -> bytes:
        """A block with its headers."""
        return self._read(block.start, block.end - block.start)

    def _first(self, kind: str) -> Block | None:
        return next(iter(self._all(kind)), None)

    def _all(self, kind: str) -> list[Block]:
        return [block for block in self._blocks if block.kind == kind]

    def _length(self) -> int:
        return self._file.seek(0, 2)


# Headers of the segments of a JPEG. XMP that is too long for one continues in others, which name its digest in 32
# letters, its length and their place in it.
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_LONG_XMP, _LONG_XMP_HEAD = b"http://ns.adobe.com/xmp/extension/\0", struct.Struct(">32sII")
_PHOTOSHOP = b"Photoshop 3.0\0"
_SEGMENT_BYTES = 65533  # what a segment can hold
_PIECE_BYTES = 65400  # of what is too long for one
_APP0, _APP1, _APP2, _APP13, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
# The index of a file with several images (MPO, previews, gain maps), which says where these lie. An entry has
# attributes, bytes, the offset from the index, and two numbers of other images.
_INDEX, _ENTRIES, _ENTRY, _ENTRY_BYTES = b"MPF\0", 0xB002, "IIIHH", 16


class Jpeg(Container):
    """JPEG: segments before the compressed data, and after them everything else."""

    xmp_limit: ClassVar[int | None] = _SEGMENT_BYTES - len(_XMP)
    has_iptc: ClassVar[bool] = True

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
                kind = self._kind(code, self._read(position + 2, min(len(_LONG_XMP), length - 2)))
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
        if code == _APP1 and head.startswith(_XMP):
            return "xmp"
        if code == _APP1 and head == _LONG_XMP:
            return "long xmp"
        if code == _APP13 and head.startswith(_PHOTOSHOP):
            return "iptc"
        if code == _COMMENT:
            return "comment"
        if code == _APP2 and head.startswith(_INDEX):
            return "images"
        return "words" if code in (_APP1, _APP13) else "other"

    def _read_parts(self) -> Iterator[Part]:
        if len(self._all("exif")) > 1:
            raise ValueError("its EXIF is in several segments")
        for block in self._all("exif"):
            yield Part("exif", self._payload(block, _EXIF), blocks=(block,))
        for block in self._all("xmp"):
            yield Part("xmp", self._payload(block, _XMP), blocks=(block,))
        if blocks := self._all("iptc"):
            yield Part("iptc", b"".join(self._payload(each, _PHOTOSHOP) for each in blocks), blocks=tuple(blocks))
        for block in self._all("comment"):
            yield Part("text", self._content(block)[4:], "JPEG comment", (block,))
        yield from self._long_xmp()

    def _payload(self, block: Block, head: bytes) -> bytes:
        segment = self._content(block)
        return segment[segment.index(head) + len(head) :]

    def _long_xmp(self) -> Iterator[Part]:
        """What is too long for one segment, as far as it is whole."""
        pieces: dict[bytes, dict[int, bytes]] = {}
        blocks: dict[bytes, list[Block]] = {}
        for block in self._all("long xmp"):
            segment = self._payload(block, _LONG_XMP)
            digest, _, place = _LONG_XMP_HEAD.unpack_from(segment)
            pieces.setdefault(digest, {})[place] = segment[_LONG_XMP_HEAD.size :]
            blocks.setdefault(digest, []).append(block)
        for digest, found in pieces.items():
            content = b"".join(found[place] for place in sorted(found))
            yield Part("long xmp", content, digest.decode("latin-1"), tuple(blocks[digest]))

    def rewritten(self, parts: Sequence[Part]) -> bytes:
        """See :class:`Container`. Where XMP goes on in other segments, the first one names their digest."""
        renamed = list(parts)
        for number, (old, new) in enumerate(zip(self.parts, parts, strict=False)):
            if new.kind == "long xmp" and old != new:
                digest = hashlib.md5(new.content, usedforsecurity=False).hexdigest().upper()
                renamed[number] = new._replace(name=digest)
                for place, part in enumerate(renamed):
                    if part.kind == "xmp":
                        renamed[place] = part._replace(content=part.content.replace(old.name.encode(), digest.encode()))
        return super().rewritten(renamed)

    def _encoded(self, part: Part) -> bytes:
        if part.kind == "exif":
            return _segment("EXIF", _APP1, _EXIF + part.content)
        if part.kind == "xmp":
            return _segment("XMP", _APP1, _XMP + part.content)
        if part.kind == "text":
            return _segment("comment", _COMMENT, part.content)
        code, head = (_APP13, _PHOTOSHOP) if part.kind == "iptc" else (_APP1, _LONG_XMP)
        segments = []
        for start in range(0, len(part.content), _PIECE_BYTES):
            place = b"" if part.kind == "iptc" else _LONG_XMP_HEAD.pack(part.name.encode(), len(part.content), start)
            segments.append(_segment("IPTC", code, head + place + part.content[start : start + _PIECE_BYTES]))
        return b"".join(segments)

    def _assembled(self, changed: Mapping[Block, bytes], added: Mapping[str, bytes]) -> bytes:
        blocks = self._with_places(list(added))
        contents = [
            changed[block] if block in changed else self._content(block) or added[block.kind] for block in blocks
        ]
        kinds = [block.kind for block in blocks]
        if "images" in kinds:
            place = kinds.index("images")
            sizes = [len(content) - (b.end - b.start) for content, b in zip(contents, blocks, strict=True)]
            contents[place] = _shifted(contents[place], first=sum(sizes), others=sum(sizes[place + 1 :]))
        return b"".join(contents)

    def _with_places(self, kinds: list[str]) -> list[Block]:
        """The blocks, with empty ones where segments are to be added: after those that have to come first."""
        blocks = list(self._blocks)
        for kind in kinds:
            early = ("start", "jfif", "exif", *(("xmp",) if kind == "iptc" else ()))
            place = next(i for i, block in enumerate(blocks) if block.kind not in early)
            blocks.insert(place, Block(kind, blocks[place].start, blocks[place].start))
        return blocks


def _segment(name: str, code: int, payload: bytes) -> bytes:
    if len(payload) > _SEGMENT_BYTES:
        raise ValueError(f"its {name} has no room for a caption")
    return struct.pack(">HH", 0xFF00 + code, len(payload) + 2) + payload


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
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW = b"Raw profile type "
_RAW_KINDS = {b"exif": "exif", b"APP1": "exif", b"xmp": "xmp", b"iptc": "iptc", b"8bim": "iptc"}
_CHUNKS = {"exif": b"eXIf", "xmp": b"iTXt"}
# Keywords of texts that describe an image. The third is what ImageMagick writes of EXIF besides.
_KEYWORDS = {b"description": "PNG Description", b"comment": "PNG Comment", b"exif:imagedescription": "PNG Description"}
_KEYWORD_BYTES = 80
_TEXT_BYTES = 1 << 24  # of a text when decompressed; longer ones are a bomb


class Png(Container):
    """PNG: chunks, each with a checksum."""

    def _read_blocks(self) -> Iterator[Block]:
        end = self._length()
        yield Block("signature", 0, _SIGNATURE_BYTES)
        position, name = _SIGNATURE_BYTES, b""
        while name != b"IEND":
            head = self._read(position, 8 + _KEYWORD_BYTES)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            start, position = position, position + length + _FRAME_BYTES
            if position > end:
                raise ValueError("its chunks are damaged")
            yield Block(_png_kind(name, head[8 : 8 + length]), start, position)
        yield Block("rest", position, end)

    def _read_parts(self) -> Iterator[Part]:
        for block in self._all("exif"):
            yield Part("exif", self._content(block)[8:-4].removeprefix(_EXIF), blocks=(block,))
        for block in self._all("text"):
            keyword, text = _png_text(self._content(block)[4:-4])
            if keyword == _XMP_KEYWORD:
                yield Part("xmp", text, blocks=(block,))
            elif name := _KEYWORDS.get(keyword.lower()):
                yield Part("text", text, name, (block,))
        for block in self._all("raw"):  # of older software
            yield from self._raw(block)

    def _raw(self, block: Block) -> Iterator[Part]:
        """A profile in hexadecimal digits, behind its name and length, as ImageMagick has introduced it."""
        keyword, text = _png_text(self._content(block)[4:-4])
        data = bytes.fromhex(b"".join(text.strip().split(b"\n")[2:]).decode("ascii"))
        kind = _RAW_KINDS[keyword.removeprefix(_RAW)]
        for head, found in ((_XMP, "xmp"), (_EXIF, "exif"), (_PHOTOSHOP, "iptc")):
            if data.startswith(head):
                kind, data = found, data.removeprefix(head)
        if kind != "exif" or data.startswith((b"II", b"MM")):
            yield Part(kind, data, keyword.decode("latin-1"), (block,))

    def _encoded(self, part: Part) -> bytes:
        """A chunk. What older software put into hexadecimal digits gets one that readers prefer, if there is none."""
        is_raw = part.name.startswith(_RAW.decode())
        if part.kind == "iptc" or (is_raw and any(o.kind == part.kind and o.name != part.name for o in self.parts)):
            lines = [part.content.hex()[i : i + 72] for i in range(0, 2 * len(part.content), 72)]
            keyword = part.name.encode("latin-1")
            text = "\n".join(["", keyword.removeprefix(_RAW).decode(), f"{len(part.content):8}", *lines, ""])
            return _png_chunk(b"zTXt", keyword + bytes(2) + zlib.compress(text.encode()))
        if part.kind == "exif":
            return _png_chunk(b"eXIf", part.content)
        if part.kind == "xmp":
            return _png_chunk(b"iTXt", _XMP_KEYWORD + bytes(5) + part.content)
        keyword, _ = _png_text(self._content(part.blocks[0])[4:-4])
        if part.content.isascii():
            return _png_chunk(b"tEXt", keyword + b"\0" + part.content)
        return _png_chunk(b"iTXt", keyword + bytes(5) + part.content)

    def _assembled(self, changed: Mapping[Block, bytes], added: Mapping[str, bytes]) -> bytes:
        first = self._first("pixels")
        moved = {block for block in changed if first is not None and block.start > first.start}
        parts = []
        for block in self._blocks:
            if block == first:  # readers that do not go on after these find it
                parts += [*added.values(), *(changed[each] for each in self._blocks if each in moved)]
            if block not in moved:
                parts.append(changed[block] if block in changed else self._content(block))
        return b"".join(parts)


def _png_kind(name: bytes, head: bytes) -> str:
    if name in (b"tEXt", b"zTXt", b"iTXt"):
        keyword = head.split(b"\0")[0]
        if keyword.removeprefix(_RAW) in _RAW_KINDS and keyword.startswith(_RAW):
            return "raw"
        return "text" if keyword == _XMP_KEYWORD or keyword.lower() in _KEYWORDS else "words"
    return {b"eXIf": "exif", b"IDAT": "pixels", b"tIME": "words"}.get(name, "other")


def _png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _png_text(chunk: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a chunk of any of the three kinds."""
    keyword, content = chunk[4:].split(b"\0", 1)
    if chunk.startswith(b"tEXt"):
        return keyword, content
    if chunk.startswith(b"zTXt"):
        return keyword, _decompressed(content[1:])
    _, _, text = content[2:].split(b"\0", 2)  # behind two flags: language, translated keyword, text
    return keyword, _decompressed(text) if content[0] == 1 else text


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

    def _read_parts(self) -> Iterator[Part]:
        for kind in ("exif", "xmp"):
            for block in self._all(kind):
                chunk = self._content(block)
                content = chunk[8 : 8 + int.from_bytes(chunk[4:8], "little")]
                yield Part(kind, content.removeprefix(_EXIF) if kind == "exif" else content, blocks=(block,))

    def _encoded(self, part: Part) -> bytes:
        return _webp_chunk(b"EXIF" if part.kind == "exif" else b"XMP ", part.content)

    def _assembled(self, changed: Mapping[Block, bytes], added: Mapping[str, bytes]) -> bytes:
        kinds = {block.kind for block in changed} | added.keys()
        header = self._header((_HAS_EXIF if "exif" in kinds else 0) | (_HAS_XMP if "xmp" in kinds else 0))
        middle = [
            changed[block] if block in changed else self._content(block)
            for block in self._blocks
            if block.kind not in ("riff", "header", "rest")
        ]
        chunks = b"".join((header, *middle, *added.values()))
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


def _webp_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


CONTAINERS: dict[str, type[Container]] = {"JPEG": Jpeg, "PNG": Png, "WebP": WebP}
