"""What is in tars, as WebDataset lays it out: ``dog.jpg`` and ``dog.json`` are the sample ``dog``.

Only the headers of a tar are read here, one after the other, and none is kept.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from captioner.batch.tars import BROKEN_TAR, Member, open_tar, reason_of
from captioner.images import IMAGE_EXTENSIONS, display_name

_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_LONGEST_HEADER = 1 << 20  # names and the like, which a header may bring along


class Tars:
    """Pictures of tars in their order, with an error in the place of whatever is wrong.

    Args:
        paths: each once.

    Attributes:
        paths: as given.
        faulty: those that something is wrong with as a whole, as far as they have been listed.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = list(paths)
        self.faulty: set[str] = set()

    def __iter__(self) -> Iterator[Member]:
        for path in self.paths:
            nothing = True
            try:
                for member in _members(path):
                    nothing = False
                    yield member
                if nothing:
                    raise _BrokenTarError("holds no pictures")
            except _BROKEN as error:
                self.faulty.add(path)
                yield Member(path, path, error=f"{display_name(path)}: {_told(error)}")


class _BrokenTarError(Exception):
    """What is wrong with a tar, where Python finds nothing wrong."""


_BROKEN = (tarfile.TarError, _BrokenTarError, *BROKEN_TAR, ValueError, OverflowError)


def _told(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, tarfile.TarError):
        return f"broken, cut off, or no tar ({reason_of(error)}); what may follow in it is missing"
    return reason_of(error) if isinstance(error, _BrokenTarError) else f"cannot be read ({reason_of(error)})"


def _members(tar: str) -> Iterator[Member]:
    """The picture of each sample; errors for further ones, and at the end for samples without any."""
    seen: Counter[str] = Counter()
    bare: dict[str, None] = {}
    faults: list[Exception] = []
    with closing(open_tar(tar)) as file:
        modified = os.fstat(file.fileno()).st_mtime_ns
        for key, parts in groupby(_parts(file, faults), key=lambda part: part[0]):
            pictures = _pictures(parts)
            if not pictures and not seen[key]:
                bare[key] = None
            for ending, info in pictures:
                seen[key] += 1
                bare.pop(key, None)
                name = f"{tar}/{key}.{ending}"
                error = _unfit(info)
                if seen[key] > 1:
                    name, error = f"{name}#{seen[key]}", f"sample {key} has a picture already, which counts"
                told = None if error is None else f"{display_name(name)}: {display_name(error)}"
                yield Member(name, tar, info.offset_data, info.size, modified, told)
    for key in bare:
        name = f"{tar}/{key}"
        yield Member(name, tar, error=f"{display_name(name)}: a sample without a picture")
    if faults:
        raise faults[0]


def _parts(file: BinaryIO, faults: list[Exception]) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, ending and header of each member that is part of a sample, up to a fault that is noted.

    It is not raised here, so that the sample before it is still told of.
    """
    try:
        for info in _headers(file):
            match = _MEMBER.fullmatch(str(PurePosixPath(info.name)).lstrip("/"))
            if match is not None and not info.isdir():
                yield match[1], match[2], info
    except _BROKEN as error:
        faults.append(error)


def _pictures(parts: Iterable[tuple[str, str, tarfile.TarInfo]]) -> list[tuple[str, tarfile.TarInfo]]:
    """Pictures of a sample; ``dog.mask.png`` is one only if there is nothing like ``dog.jpg``."""
    found = [(ending, info) for _, ending, info in parts if _suffix(ending) in IMAGE_EXTENSIONS]
    plain = [(ending, info) for ending, info in found if "." not in ending]
    return plain or found


def _suffix(ending: str) -> str:
    return "." + ending.rpartition(".")[2].lower()


def _unfit(info: tarfile.TarInfo) -> str | None:
    if info.sparse is not None or not info.isreg():
        return "no plain file in its tar, but a link or the like"
    return None


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """All headers.

    Raises:
        tarfile.TarError: it is no tar, or its end is missing.
    """
    headers = _Headers(file)
    with tarfile.open(
        fileobj=cast("BinaryIO", headers), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if info.size < 0:  # it would go round in circles
                raise tarfile.ReadError("a size below 0")
            yield info
    # Whatever is no header ends a tar for Python; a sound one ends with a block of zeros.
    if headers.last.strip(b"\0") or len(headers.last) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("no mark at its end")


class _Headers:
    """A tar as :mod:`tarfile` reads it for headers alone.

    Attributes:
        last: what was read last.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.last = file, b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self._file.read(size)
        return self.last

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()
