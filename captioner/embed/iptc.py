"""IPTC-IIM, the captions of press photographs since 1991, in the resources of Photoshop that carry it.

Datasets are numbers, lengths and bytes one after the other. Text is in the character set that dataset 1:90 names, in
any where it is absent; UTF-8 is the only name in use.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from captioner.embed.authors import decoded, plain_text

_RESOURCE, _IIM, _DIGEST = b"8BIM", 0x0404, 0x0425
_HEADER, _MARK = struct.Struct(">BBBH"), 0x1C
_CHARACTERS, _VERSION, _CAPTION = (1, 90), (2, 0), (2, 120)
_UTF8 = b"\x1b%G"
_LONG = 0x8000  # a length of four bytes follows


class Resource(NamedTuple):
    """One of Photoshop's resources: what it is, its name, which is mostly empty, and what it holds."""

    number: int
    name: bytes
    content: bytes


class Iptc:
    """Photoshop's resources, or IIM alone. What is damaged is read as far as it is whole.

    Args:
        data: them.
    """

    def __init__(self, data: bytes) -> None:
        self._bare = data[:1] == bytes([_MARK])
        self._rest = b""
        self._resources = [Resource(_IIM, b"", data)] if self._bare else list(self._read(data))
        self._datasets, self._is_damaged = _datasets(self._content(_IIM) or b"")

    @property
    def has_datasets(self) -> bool:
        """Whether there is IIM."""
        return bool(self._datasets)

    @property
    def is_stale(self) -> bool:
        """Whether the digest says that IIM was changed by software that knows no XMP."""
        digest = self._content(_DIGEST)
        return digest is not None and digest != self._fingerprint()

    def caption(self) -> str:
        """Caption-Abstract; empty if there is none."""
        encodings = ("utf-8",) if (_CHARACTERS, _UTF8) in self._datasets else ("utf-8", "cp1252")
        values = [value for key, value in self._datasets if key == _CAPTION]
        return plain_text("\n".join(decoded(value, *encodings) for value in values))

    def with_caption(self, text: str) -> bytes:
        """The data with another caption, and with the digest of it where that was right or there was no IIM.

        Raises:
            ValueError: they are damaged.
        """
        if self._is_damaged:
            raise ValueError("its IPTC is damaged")
        signed = self._content(_DIGEST) == self._fingerprint() if self._datasets else not self._bare
        others = [(key, value) for key, value in self._datasets if key not in (_CHARACTERS, _CAPTION)]
        marks = [value for key, value in self._datasets if key == _CHARACTERS]
        if not self._datasets:
            others = [(_VERSION, b"\0\4")]
        if marks != [_UTF8] and not (text.isascii() and any(_is_text(key) and not v.isascii() for key, v in others)):
            # Where nothing else has letters beyond ASCII, the mark changes no meaning; else they are rewritten with it.
            others, marks = [(key, _as_utf8(key, value)) for key, value in others], [_UTF8]
        found = sorted([*others, (_CAPTION, text.encode())], key=lambda each: each[0])
        iim = b"".join(_dataset(key, value) for key, value in [*((_CHARACTERS, each) for each in marks), *found])
        if self._bare:
            return iim
        self._set(_IIM, iim)
        if signed:
            self._set(_DIGEST, hashlib.md5(iim, usedforsecurity=False).digest())
        return b"".join(map(_packed, self._resources)) + self._rest

    def _read(self, data: bytes) -> Iterator[Resource]:
        place = 0
        while data[place : place + 4] == _RESOURCE:
            number, length = struct.unpack_from(">HB", data.ljust(place + 7, b"\0"), place + 4)
            name = data[place + 7 : place + 7 + length]
            start = place + 7 + length + (length + 1) % 2
            size = int.from_bytes(data[start : start + 4], "big")
            if start + 4 + size > len(data):
                break
            yield Resource(number, name, data[start + 4 : start + 4 + size])
            place = start + 4 + size + size % 2
        self._rest = data[place:]

    def _content(self, number: int) -> bytes | None:
        return next((each.content for each in self._resources if each.number == number), None)

    def _set(self, number: int, content: bytes) -> None:
        numbers = [each.number for each in self._resources]
        if number in numbers:
            place = numbers.index(number)
            self._resources[place] = self._resources[place]._replace(content=content)
        else:
            self._resources.append(Resource(number, b"", content))

    def _fingerprint(self) -> bytes:
        return hashlib.md5(self._content(_IIM) or b"", usedforsecurity=False).digest()


def _datasets(iim: bytes) -> tuple[list[tuple[tuple[int, int], bytes]], bool]:
    """Record and number with the value of each dataset, and whether they are damaged; zeros may follow them."""
    found, place = [], 0
    while iim[place : place + 1] == bytes([_MARK]) and place + _HEADER.size <= len(iim):
        _, record, number, length = _HEADER.unpack_from(iim, place)
        start = place + _HEADER.size
        if length & _LONG:
            size = length & ~_LONG
            start, length = start + size, int.from_bytes(iim[start : start + size], "big")
        if start + length > len(iim):
            break
        found.append(((record, number), iim[start : start + length]))
        place = start + length
    return found, bool(iim[place:].strip(b"\0"))


def _dataset(key: tuple[int, int], value: bytes) -> bytes:
    if len(value) < _LONG:
        return _HEADER.pack(_MARK, *key, len(value)) + value
    return _HEADER.pack(_MARK, *key, _LONG | 4) + struct.pack(">I", len(value)) + value


def _is_text(key: tuple[int, int]) -> bool:
    """Not the version, nor a preview (from 2:200 on) or a rasterised caption, nor other records."""
    return key[0] == 2 and key != _VERSION and key[1] < 200 and key[1] != 125


def _as_utf8(key: tuple[int, int], value: bytes) -> bytes:
    return decoded(value, "utf-8", "cp1252").encode() if _is_text(key) else value


def _packed(resource: Resource) -> bytes:
    name = bytes([len(resource.name)]) + resource.name
    head = _RESOURCE + struct.pack(">H", resource.number) + name + bytes(len(name) % 2)
    return head + struct.pack(">I", len(resource.content)) + resource.content + bytes(len(resource.content) % 2)
