"""Images in tars: where each lies, and reading it from there without unpacking anything."""

import gzip
import io
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from captioner.bulk.records import Member
from captioner.errors import ImageError
from captioner.images import display_name, printable, read_file
from captioner.images.find import IMAGE_EXTENSIONS

_GZIP = b"\x1f\x8b"
_UNREADABLE = (OSError, EOFError, zlib.error)  # the last two if it is compressed
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_LONGEST_HEADER = 1 << 20  # names and the like, which a header may bring along


def _open_tar(path: str) -> BinaryIO:
    """Open a tar, plain or compressed by gzip, whatever it is called; what is read is the plain one.

    Raises:
        OSError: it cannot be opened.
    """
    if Path(path).exists() and not Path(path).is_file():  # opening a named pipe would wait for its writer
        raise OSError("not a regular file")
    file = Path(path).open("rb")  # noqa: SIM115 (handed over open)
    if file.read(len(_GZIP)) == _GZIP:
        file.close()
        return cast("BinaryIO", gzip.open(path))
    file.seek(0)
    return file


def _reason_of(error: BaseException) -> str:
    return printable(getattr(error, "strerror", None) or str(error))


class TarReader:
    """Reads images from tars, quickest in their order: a compressed tar can only be read forwards.

    The last tar stays open. Not for several threads at the same time.
    """

    _tar: str | None = None
    _file: BinaryIO | None = None

    def __reduce__(self) -> tuple[type["TarReader"], tuple[()]]:
        return TarReader, ()  # another process opens its own

    def read(self, member: Member, *, max_pixels: int) -> bytes:
        """Bytes of an image.

        Raises:
            ImageError: the tar is gone, broken or another one now, or the image is missing or too long.
        """
        if member.error is not None:
            raise ImageError(member.error)
        try:
            file = self._opened(member)
            file.seek(member.offset)
            return read_file(io.BufferedReader(_Part(file, member.size, member.name)), max_pixels=max_pixels)
        except _UNREADABLE as error:
            self.close()
            raise ImageError(f"{display_name(member.name)}: cannot be read ({_reason_of(error)})") from error

    def _opened(self, member: Member) -> BinaryIO:
        if self._file is None or self._tar != member.tar:
            self.close()
            self._file, self._tar = _open_tar(member.tar), member.tar
        if os.fstat(self._file.fileno()).st_mtime_ns != member.modified:
            raise OSError("the tar has changed since this run began")
        return self._file

    def close(self) -> None:
        """Close the tar that is open."""
        if self._file is not None:
            self._file.close()
        self._file = None


class _Part(io.RawIOBase):
    """The next so many bytes of a file, as a file that has a name of its own in messages."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        super().__init__()
        self._file, self._rest, self.name = file, size, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._rest)
        try:
            data = self._file.read(wanted)
        except (EOFError, zlib.error) as error:
            raise OSError(_reason_of(error)) from error
        if len(data) < wanted:
            raise OSError("the tar ends within it")
        self._rest -= wanted
        view[:wanted] = data
        return wanted


class Tars:
    """Images of tars in their order, with an error in the place of whatever is wrong.

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
                    raise _BrokenTarError("holds no images")
            except _BROKEN as error:
                self.faulty.add(path)
                yield Member(path, path, error=f"{display_name(path)}: {_described(error)}")


class _BrokenTarError(Exception):
    """What is wrong with a tar, where Python finds nothing wrong."""


_BROKEN = (tarfile.TarError, _BrokenTarError, *_UNREADABLE, ValueError, OverflowError)


def _described(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, tarfile.TarError):
        return f"broken, cut off, or no tar ({_reason_of(error)}); what may follow in it is missing"
    return _reason_of(error) if isinstance(error, _BrokenTarError) else f"cannot be read ({_reason_of(error)})"


def _members(tar: str) -> Iterator[Member]:
    """The image of each sample; errors for further ones, and at the end for samples without any."""
    seen: Counter[str] = Counter()
    bare: dict[str, None] = {}
    faults: list[Exception] = []
    with closing(_open_tar(tar)) as file:
        modified = os.fstat(file.fileno()).st_mtime_ns
        for key, parts in groupby(_parts(file, faults), key=lambda part: part[0]):
            images = _images(parts)
            if not images and not seen[key]:
                bare[key] = None
            for ending, info in images:
                seen[key] += 1
                bare.pop(key, None)
                name = f"{tar}/{key}.{ending}"
                error = None
                if info.sparse is not None or not info.isreg():
                    error = "no plain file in its tar, but a link or the like"
                if seen[key] > 1:
                    name, error = f"{name}#{seen[key]}", f"sample {key} has an image already, which counts"
                reason = None if error is None else f"{display_name(name)}: {display_name(error)}"
                yield Member(name, tar, info.offset_data, info.size, modified, reason)
    for key in bare:
        name = f"{tar}/{key}"
        yield Member(name, tar, error=f"{display_name(name)}: a sample without an image")
    if faults:
        raise faults[0]


def _parts(file: BinaryIO, faults: list[Exception]) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, ending and header of each member that is part of a sample, up to a fault that is noted.

    It is not raised here, so that the sample before it is still reported.
    """
    try:
        for info in _headers(file):
            match = _MEMBER.fullmatch(str(PurePosixPath(info.name)).lstrip("/"))
            if match is not None and not info.isdir():
                yield match[1], match[2], info
    except _BROKEN as error:
        faults.append(error)


def _images(parts: Iterable[tuple[str, str, tarfile.TarInfo]]) -> list[tuple[str, tarfile.TarInfo]]:
    """Images of a sample; ``dog.mask.png`` is one only if there is nothing like ``dog.jpg``."""
    found = [(end, info) for _, end, info in parts if "." + end.rpartition(".")[2].lower() in IMAGE_EXTENSIONS]
    plain = [(ending, info) for ending, info in found if "." not in ending]
    return plain or found


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
    """A tar as :mod:`tarfile` reads it for headers alone; ``last`` is what was read last."""

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
