"""Pictures in tars: where each lies, and reading it from there without unpacking anything."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from captioner.errors import ImageError
from captioner.images import display_name, printable, read_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP = b"\x1f\x8b"
BROKEN_TAR = (OSError, EOFError, zlib.error)
"""What reading a tar may raise; ``EOFError`` and ``zlib.error`` if it is compressed."""


@dataclass(frozen=True)
class Member:
    """A picture in a tar, or what is wrong where there should be one.

    Attributes:
        name: as outputs name it: the tar, a slash and its name in there.
        tar: path of the tar.
        offset: where its bytes begin in the plain tar.
        size: how many they are.
        modified: time of the tar's last change, in nanoseconds since 1970.
        error: why there is no picture, in one line.
    """

    name: str
    tar: str
    offset: int = 0
    size: int = 0
    modified: int = 0
    error: str | None = None

    def __str__(self) -> str:
        return self.name


Item: TypeAlias = Path | Member
"""A picture to caption: a file, or part of one. ``str()`` gives its name."""


def open_tar(path: str) -> BinaryIO:
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


def reason_of(error: BaseException) -> str:
    """Why a tar cannot be read."""
    return printable(getattr(error, "strerror", None) or str(error))


class TarReader:
    """Reads pictures from tars, quickest in their order: a compressed tar can only be read forwards.

    The last tar stays open. Not for several threads at the same time.
    """

    def __init__(self) -> None:
        self._tar: str | None = None
        self._file: BinaryIO | None = None

    def __reduce__(self) -> tuple[type[TarReader], tuple[()]]:
        return TarReader, ()  # another process opens its own

    def read(self, member: Member, *, max_pixels: int) -> bytes:
        """Bytes of a picture.

        Raises:
            ImageError: the tar is gone, broken or another one now, or the picture is missing or too long.
        """
        if member.error is not None:
            raise ImageError(member.error)
        try:
            file = self._opened(member)
            file.seek(member.offset)
            return read_file(_part(file, member), max_pixels=max_pixels)
        except BROKEN_TAR as error:
            self.close()
            raise ImageError(f"{display_name(member.name)}: cannot be read ({reason_of(error)})") from error

    def _opened(self, member: Member) -> BinaryIO:
        if self._file is None or self._tar != member.tar:
            self.close()
            self._file, self._tar = open_tar(member.tar), member.tar
        if os.fstat(self._file.fileno()).st_mtime_ns != member.modified:
            raise OSError("the tar has changed since this run began")
        return self._file

    def close(self) -> None:
        """Close the tar that is open."""
        if self._file is not None:
            self._file.close()
        self._file = None


def _part(file: BinaryIO, member: Member) -> BinaryIO:
    return io.BufferedReader(_Part(file, member.size, member.name))


class _Part(io.RawIOBase):
    """The next so many bytes of a file, as a file that has a name of its own in messages."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        super().__init__()
        self._file, self._rest, self.name = file, size, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._rest)
        try:
            data = self._file.read(wanted)
        except (EOFError, zlib.error) as error:
            raise OSError(reason_of(error)) from error
        if len(data) < wanted:
            raise OSError("the tar ends within it")
        self._rest -= wanted
        view[:wanted] = data
        return wanted
