"""Images in tars, which are read where they lie, without unpacking anything."""

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from captioner.bulk.records import Member
from captioner.errors import ImageError
from captioner.images import display_name, find, printable, read_file
from captioner.tars import BrokenTarError, headers

# What a file is by its first bytes, and what opens it; a plain tar begins with the name of a file.
_KINDS: dict[bytes, Any] = {
    rb"\x1f\x8b": gzip.open,
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": bz2.open,
    rb"\xfd7zXZ\0": lzma.open,
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": "compressed by zstd",
    rb"\x04\x22\x4d\x18": "compressed by lz4",
    rb"PK\x03\x04": "a zip archive",
    rb"7z\xbc\xaf\x27\x1c": "a 7z archive",
}
_MAGIC_BYTES = 10
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # the last three if it is compressed
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)


def _open_tar(path: str) -> BinaryIO:
    """Open a tar, plain or compressed, whatever it is called; what is read is the plain one."""
    if Path(path).exists() and not Path(path).is_file():  # opening a named pipe would wait for its writer
        raise OSError("not a regular file")
    file = Path(path).open("rb")  # noqa: SIM115 (handed over open)
    start = file.read(_MAGIC_BYTES)
    for magic, opened in _KINDS.items():
        if re.match(magic, start):
            file.close()
            if isinstance(opened, str):
                raise OSError(f"it is {opened}; unpack it first, or make it a tar, plain or by gzip, bzip2 or xz")
            return cast("BinaryIO", opened(path))
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
        except (EOFError, zlib.error, lzma.LZMAError) as error:
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
        omitted: which members are left out; counts them.

    Attributes:
        paths: as given.
        faulty: those that something is wrong with as a whole, as far as they have been listed.
    """

    def __init__(self, paths: Iterable[str], omitted: find.Omitted | None = None) -> None:
        self.paths, self._omitted = list(paths), omitted or find.Omitted()
        self.faulty: set[str] = set()

    def __iter__(self) -> Iterator[Member]:
        for path in self.paths:
            nothing = True
            try:
                for member in _members(path, self._omitted):
                    nothing = False
                    yield member
                if nothing:
                    raise BrokenTarError("holds no images")
            except _BROKEN as error:
                self.faulty.add(path)
                yield Member(path, path, error=f"{display_name(path)}: {_described(error)}")


_BROKEN = (tarfile.TarError, BrokenTarError, *_UNREADABLE, ValueError, OverflowError)


def _described(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, tarfile.TarError):
        return f"broken, cut off, or no tar ({_reason_of(error)}); what may follow in it is missing"
    return _reason_of(error) if isinstance(error, BrokenTarError) else f"cannot be read ({_reason_of(error)})"


def _members(tar: str, omitted: find.Omitted) -> Iterator[Member]:
    """The image of each sample; errors for further ones, and at the end for samples without any."""
    seen: dict[str, int] = {}
    bare: dict[str, None] = {}
    faults: list[Exception] = []
    with closing(_open_tar(tar)) as file:
        modified = os.fstat(file.fileno()).st_mtime_ns
        for key, parts in groupby(_parts(file, omitted, faults), key=lambda part: part[0]):
            images = _images(parts)
            if not images and key not in seen:
                bare[key] = None
            for ending, info in images:
                seen[key] = seen.get(key, 0) + 1
                bare.pop(key, None)
                name = f"{tar}/{key}.{ending}"
                error = None
                if info.islnk() or info.issym():
                    error = f"a link to {info.linkname}, which is no file that lies before it in its tar"
                elif info.sparse is not None or not info.isreg():
                    error = "no plain file in its tar, but a device or the like"
                if seen[key] > 1:
                    name, error = f"{name}#{seen[key]}", f"sample {key} has an image already, which counts"
                reason = None if error is None else f"{display_name(name)}: {display_name(error)}"
                yield Member(name, tar, info.offset_data, info.size, modified, reason)
    for key in bare:
        name = f"{tar}/{key}"
        yield Member(name, tar, error=f"{display_name(name)}: a sample without an image")
    if faults:
        raise faults[0]


def _parts(
    file: BinaryIO, omitted: find.Omitted, faults: list[Exception]
) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, ending and header of each member that is part of a sample, up to a fault that is noted.

    It is not raised here, so that the sample before it is still reported.
    """
    places: dict[str, tuple[int, int]] = {}
    try:
        for info in headers(file):
            _follow(info, places)
            name = _path(info.name)
            if info.isdir():
                continue
            if omitted.fits(name):
                omitted.images += find.is_listed(name)
            elif match := _MEMBER.fullmatch(name):
                yield match[1], match[2], info
    except _BROKEN as error:
        faults.append(error)


def _path(name: str) -> str:
    return str(PurePosixPath(name)).lstrip("/")


def _follow(info: tarfile.TarInfo, places: dict[str, tuple[int, int]]) -> None:
    """Give a link offset and size of the file that it leads to, if that lies before it; take down where a file lies."""
    if info.islnk() or info.issym():
        start = PurePosixPath(info.name).parent if info.issym() else PurePosixPath()
        target = _path(os.path.normpath(start / info.linkname))
        if target in places:
            info.type, (info.offset_data, info.size) = tarfile.REGTYPE, places[target]
    if info.isreg() and info.sparse is None:
        places[_path(info.name)] = info.offset_data, info.size


def _images(parts: Iterable[tuple[str, str, tarfile.TarInfo]]) -> list[tuple[str, tarfile.TarInfo]]:
    """Images of a sample; ``dog.mask.png`` is one only if there is nothing like ``dog.jpg``."""
    found = [(end, info) for _, end, info in parts if "." + end.rpartition(".")[2].lower() in find.IMAGE_EXTENSIONS]
    plain = [(ending, info) for ending, info in found if "." not in ending]
    return plain or found
