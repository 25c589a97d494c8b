"""EXIF, which is a TIFF file without pixels: read a text, and set one while everything else stays.

Offsets in EXIF count from its beginning, also those that only the maker of the camera knows. So nothing is
ever moved: what is new goes to the end.
"""

import struct

EMPTY = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
IMAGE_DESCRIPTION = 0x010E

_ASCII = 2
_TEXTS = (_ASCII, 129)  # the second is UTF-8, which EXIF 3 has brought
_SIZES = {1: 1, _ASCII: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_FIELD_BYTES = 12


class Tiff:
    """The first directory of a TIFF structure.

    Args:
        data: the structure.

    Raises:
        ValueError: it is none, or is cut off.
    """

    def __init__(self, data: bytes) -> None:
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
        if order is None:
            raise ValueError("its EXIF is damaged (no TIFF header)")
        self._data, self._order = data, order
        try:
            (self._start,) = struct.unpack_from(order + "I", data, 4)
            (count,) = struct.unpack_from(order + "H", data, self._start)
        except struct.error as error:
            raise ValueError("its EXIF is damaged (no directory)") from error
        first, self._end = self._start + 2, self._start + 2 + count * _FIELD_BYTES
        if self._end > len(data):
            raise ValueError("its EXIF is damaged (the directory is cut off)")
        self._fields = [first + place * _FIELD_BYTES for place in range(count)]
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
        value = (self.value(tag) or b"").split(b"\0")[0]
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")

    def with_text(self, tag: int, text: str) -> bytes:
        """The structure with a text in UTF-8, declared as ASCII as other software does and expects."""
        value = text.encode("utf-8") + b"\0"
        field = self._find(tag)
        data = bytearray(self._data if field is None else self._without_last(field))
        if field is None:
            data += bytes(len(data) % 2)
            field = self._move(data, tag)
        struct.pack_into(self._order + "HHI", data, field, tag, _ASCII, len(value))
        if len(value) <= 4:
            data[field + 8 : field + 12] = value.ljust(4, b"\0")
        else:
            data += bytes(len(data) % 2)
            struct.pack_into(self._order + "I", data, field + 8, len(data))
            data += value
        return bytes(data)

    def _find(self, tag: int) -> int | None:
        return next((field for field in self._fields if self._tag(field) == tag), None)

    def _tag(self, field: int) -> int:
        tag: int = struct.unpack_from(self._order + "H", self._data, field)[0]
        return tag

    def _range(self, field: int) -> tuple[int, int]:
        kind, count, offset = struct.unpack_from(self._order + "HII", self._data, field + 2)
        length = _SIZES.get(kind, 1) * count
        start = field + 8 if length <= 4 else offset
        return start, start + length

    def _without_last(self, field: int) -> bytes:
        """The structure without an old text at its end, so that it does not grow with each change."""
        start, end = self._range(field)
        (kind,) = struct.unpack_from(self._order + "H", self._data, field + 2)
        is_last = kind in _TEXTS and self._end + 4 <= start and end == len(self._data)
        return self._data[:start] if is_last else self._data

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
