"""EXIF, which is a TIFF file without pixels: read texts, and set them while everything else stays.

Offsets in EXIF count from its beginning, also those that only the maker of the camera knows. So nothing is
ever moved: what is new goes to the end.
"""

import struct
from contextlib import suppress

from captioner.embed.authors import decoded, plain_text

EMPTY = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
IMAGE_DESCRIPTION, ORIENTATION, XP_COMMENT, USER_COMMENT = 0x010E, 0x0112, 0x9C9C, 0x9286
COMMENTS = {IMAGE_DESCRIPTION: "ImageDescription", USER_COMMENT: "UserComment", XP_COMMENT: "XPComment"}
"""Fields that can hold a description, by their names in EXIF."""

_EXIF_DIRECTORY = 0x8769
_BYTE, _ASCII, _UNDEFINED = 1, 2, 7
_TEXTS = (_BYTE, _ASCII, _UNDEFINED, 129)  # the last is UTF-8, which EXIF 3 has brought
_SIZES = {1: 1, _ASCII: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8, 129: 1}
_FIELD_BYTES, _BIG_FIELD_BYTES = 12, 20
_MARKS = (b"*\0", b"\0*", b"RO", b"RS", b"OR", b"U\0")  # of TIFF, and of the raws of Olympus and Panasonic
_BIG_MARKS = (b"+\0", b"\0+")  # of TIFF with numbers of 64 bits, which no EXIF has
_PREFIXES = {"ascii": b"ASCII\0\0\0", "unicode": b"UNICODE\0", "jis": b"JIS\0\0\0\0\0"}
# How likely characters are by their upper byte: letters of Europe, then those of other alphabets and common Chinese.
_COMMON = {0: 3} | dict.fromkeys((*range(1, 0x10), 0x20, 0x30, 0xFF), 2) | dict.fromkeys(range(0x4E, 0x80), 1)


class Tiff:
    """A directory of a TIFF structure.

    Args:
        data: the structure.
        start: where the directory lies, if it is not the first one.

    Raises:
        ValueError: it is none, or is cut off.
    """

    def __init__(self, data: bytes, start: int | None = None) -> None:
        order, mark = {b"II": "<", b"MM": ">"}.get(data[:2]), data[2:4]
        if order is None or mark not in (*_MARKS, *_BIG_MARKS):
            raise ValueError("its EXIF is damaged (no TIFF header)")
        self._data, self._order, self._is_big = data, order, mark in _BIG_MARKS
        head, counted, size = (8, "Q", _BIG_FIELD_BYTES) if self._is_big else (4, "H", _FIELD_BYTES)
        try:
            (first,) = (start,) if start is not None else struct.unpack_from(order + "IQ"[self._is_big], data, head)
            (count,) = struct.unpack_from(order + counted, data, first)
        except (struct.error, OverflowError) as error:
            raise ValueError("its EXIF is damaged (no directory)") from error
        self._first = first + struct.calcsize(counted)
        self._end = self._first + count * size
        if self._end > len(data):
            raise ValueError("its EXIF is damaged (the directory is cut off)")
        self._fields = [self._first + place * size for place in range(count)]
        # Some writers leave it out at the end of the file.
        self._next = data[self._end : self._end + 4].ljust(4, b"\0")

    def value(self, tag: int) -> bytes | None:
        """The bytes of a value; None where there is no such field, or it points to nowhere."""
        start, end = self.span(tag)
        return self._data[start:end] if start < end <= len(self._data) else None

    def span(self, tag: int) -> tuple[int, int]:
        """Where the bytes of a value lie; an empty span where there is no such field."""
        found = self._find(tag)
        return (0, 0) if found is None else self._range(found)

    def text(self, tag: int) -> str:
        """A text; empty if there is none."""
        return decoded((self.value(tag) or b"").split(b"\0")[0])

    def comments(self) -> dict[int, str]:
        """What is in the fields that can hold a description, as far as it is text."""
        found = {
            IMAGE_DESCRIPTION: self.text(IMAGE_DESCRIPTION).strip(),
            USER_COMMENT: plain_text(self._user_comment(self._of(USER_COMMENT).value(USER_COMMENT) or b"")),
            XP_COMMENT: plain_text((self.value(XP_COMMENT) or b"").decode("utf-16-le", "replace")),
        }
        return {tag: text for tag, text in found.items() if text}

    def with_comment(self, tag: int, text: str) -> bytes:
        """The structure with another text in one of the fields of :meth:`comments`, which must be there but for one."""
        if tag == IMAGE_DESCRIPTION:
            return self.with_text(tag, text)
        if tag == XP_COMMENT:
            return self._with_value(tag, _BYTE, (text + "\0").encode("utf-16-le"))
        if text.isascii():
            value = _PREFIXES["ascii"] + text.encode()
        else:
            value = _PREFIXES["unicode"] + text.encode(self._utf16)
        return self._of(USER_COMMENT)._with_value(tag, _UNDEFINED, value)

    def with_text(self, tag: int, text: str) -> bytes:
        """The structure with a text in UTF-8, declared as ASCII as other software does and expects."""
        return self._with_value(tag, _ASCII, text.encode("utf-8") + b"\0")

    def _of(self, tag: int) -> "Tiff":
        """The directory with a field for photographers: that of EXIF, or this one where it is misplaced."""
        if self._find(tag) is None:
            with suppress(ValueError):  # it is damaged and no program can read it
                if place := self.value(_EXIF_DIRECTORY):
                    return Tiff(self._data, int.from_bytes(place, "little" if self._order == "<" else "big"))
        return self

    @property
    def _utf16(self) -> str:
        return "utf-16-le" if self._order == "<" else "utf-16-be"

    def _user_comment(self, value: bytes) -> str:
        """A text with a prefix of eight bytes that names its encoding, which not all software writes or keeps to."""
        prefix, text = value[:8].upper(), value[8:]
        if prefix == _PREFIXES["ascii"] or not prefix.strip(b"\0 "):
            return decoded(text.strip(b"\0 "))
        if prefix == _PREFIXES["jis"]:
            return decoded(text, "iso2022_jp", "shift_jis", "euc_jp")
        if prefix != _PREFIXES["unicode"]:
            return decoded(value.strip(b"\0 "))
        if text.startswith((b"\xff\xfe", b"\xfe\xff")):
            return text.decode("utf-16", "replace")
        # The order of the bytes should be that of the structure. Where the other one gives letters, it is not.
        readings = [text.decode(order, "replace") for order in (self._utf16, "utf-16-le", "utf-16-be")]
        return max(readings, key=lambda each: sum(_COMMON.get(ord(c) >> 8, 0) for c in each))

    def _with_value(self, tag: int, kind: int, value: bytes) -> bytes:
        if self._is_big:
            raise ValueError("its EXIF is damaged (it is a BigTIFF)")
        field, data, start = self._find(tag), bytearray(self._data), None
        if field is None:
            data += bytes(len(data) % 2)
            field = self._move(data, tag)
        else:
            start = self._free(data, field, len(value))
        struct.pack_into(self._order + "HHI", data, field, tag, kind, len(value))
        if len(value) <= 4:
            data[field + 8 : field + 12] = value.ljust(4, b"\0")
            return bytes(data)
        if start is None:
            data += bytes(len(data) % 2)
            start = len(data)
        struct.pack_into(self._order + "I", data, field + 8, start)
        data[start : start + len(value)] = value
        return bytes(data)

    def _find(self, tag: int) -> int | None:
        return next((field for field in self._fields if self._tag(field) == tag), None)

    def _tag(self, field: int) -> int:
        tag: int = struct.unpack_from(self._order + "H", self._data, field)[0]
        return tag

    def _range(self, field: int) -> tuple[int, int]:
        form, inside = ("HQQ", 8) if self._is_big else ("HII", 4)
        kind, count, offset = struct.unpack_from(self._order + form, self._data, field + 2)
        length = _SIZES.get(kind, 1) * count
        start = field + 4 + inside if length <= inside else offset
        return start, start + length

    def _free(self, data: bytearray, field: int, length: int) -> int | None:
        """Erase an old text, and cut it off at the end, so that nothing grows with each change.

        Args:
            data: the structure, which is changed.
            field: of the text.
            length: of what takes its place.

        Returns:
            Where that can go; None if only behind everything else.
        """
        start, end = self._range(field)
        (kind,) = struct.unpack_from(self._order + "H", data, field + 2)
        if kind not in _TEXTS or not 8 <= start <= end <= len(data):
            return None
        if end == len(data) and start >= self._end + 4:
            del data[start:]
            return None
        others = [(self._first - 2, self._end + 4), *(self._range(each) for each in self._fields if each != field)]
        if any(first < end and start < last for first, last in others):
            return None
        data[start:end] = bytes(end - start)
        return start if 4 < length <= end - start else None

    def _move(self, data: bytearray, tag: int) -> int:
        """Copy the directory to the end of ``data``, with room for one more field; where that field is."""
        before = [field for field in self._fields if self._tag(field) < tag]
        place = len(data) + 2 + len(before) * _FIELD_BYTES
        struct.pack_into(self._order + "I", data, 4, len(data))
        data += struct.pack(self._order + "H", len(self._fields) + 1)
        for field in (*before, None, *self._fields[len(before) :]):
            data += bytes(_FIELD_BYTES) if field is None else self._data[field : field + _FIELD_BYTES]
        data += self._next
        return place
