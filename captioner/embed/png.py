"""PNG: chunks, each with a checksum."""

import struct
import zlib
from collections.abc import Iterator

from captioner.embed.containers import Block, Container

_SIGNATURE_BYTES = 8
_FRAME_BYTES = 12  # length, name, checksum
_XMP = b"XML:com.adobe.xmp\0"
_RAW_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
_TEXT_BYTES = 1 << 24  # of a text when decompressed; longer ones are a bomb


class Png(Container):
    """See :class:`Container`."""

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
            yield Block(_kind(name, head[8 : 8 + length]), start, position)
        yield Block("rest", position, end)

    def _read_metadata(self) -> None:
        exif, xmp, raw = (self._first(kind) for kind in ("exif", "xmp", "raw exif"))
        if exif is not None:
            self.exif = self._content(exif)[8:-4]
        elif raw is not None:  # of older software; readers prefer the chunk, so it is to have everything too
            self.exif = _raw_exif(self._content(raw)[4:-4])
        if xmp is not None:
            self.xmp = _international_text(self._content(xmp)[8:-4])

    def rewritten(self, exif: bytes | None, xmp: bytes | None) -> bytes:
        """See :class:`Container`."""
        new = {}
        if exif is not None:
            new["exif"] = _chunk(b"eXIf", exif)
        if xmp is not None:
            new["xmp"] = _chunk(b"iTXt", _XMP + bytes(4) + xmp)
        added = b"".join(chunk for kind, chunk in new.items() if self._first(kind) is None)
        parts = []
        for block in self._blocks:
            if block.kind == "pixels":  # readers that do not go on after these find it
                parts.append(added)
                added = b""
            parts.append(new.get(block.kind) or self._content(block))
        return b"".join(parts)


def _kind(name: bytes, head: bytes) -> str:
    if name == b"iTXt" and head.startswith(_XMP):
        return "xmp"
    if name in (b"tEXt", b"zTXt") and head.startswith(_RAW_EXIF):
        return "raw exif"
    return {b"eXIf": "exif", b"IDAT": "pixels"}.get(name, "other")


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _international_text(content: bytes) -> bytes:
    """What an iTXt chunk says: after keyword, two flags, language and translated keyword."""
    compressed = content[len(_XMP)] == 1
    _, _, text = content[len(_XMP) + 2 :].split(b"\0", 2)
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
