"""Files inside plain tars, by paths that lead into them: ``shards/00000.tar/dog.jpg``. Nothing is unpacked."""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

SUFFIX = ".tar"
FIRST_BYTES = 10
"""As many tell by what a file is compressed."""
_COMPRESSIONS = {
    "gzip": rb"\x1f\x8b",
    "bzip2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\0",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    "lz4": rb"\x04\x22\x4d\x18",
}
_LONGEST_HEADER = 1 << 20  # names and the like, which a header may bring along


class BrokenTarError(Exception):
    """What is wrong with a tar, where Python finds nothing wrong."""


class Part(NamedTuple):
    """Where a file lies in a tar: its first byte, and how many there are."""

    offset: int
    size: int


class Contents(NamedTuple):
    """What a tar holds: its files by name, in order, and why there may be more that cannot be read (or nothing)."""

    parts: dict[str, Part]
    fault: str


def compression(start: bytes) -> str:
    """By what a file is compressed, by its first bytes; empty for a plain tar, which begins with the name of a file."""
    return next((name for name, magic in _COMPRESSIONS.items() if re.match(magic, start)), "")


def path_in(name: str) -> str:
    """The shortest form of a name in a tar: ``a/b`` of ``./a//b``."""
    return "/".join(part for part in name.split("/") if part not in ("", ".")) or "."


def target_of(link: tarfile.TarInfo) -> str:
    """What a link leads to, by its name in the tar; those of symbolic links start from the link."""
    folder = PurePosixPath(link.name).parent if link.issym() else PurePosixPath()
    return path_in(os.path.normpath(folder / link.linkname))


def contents(tar: Path) -> Contents:
    """List a tar, with links to its files; of several of one name the first counts. Done again only after a change.

    Raises:
        OSError: it cannot be opened.
    """
    return _listed(str(tar), tar.stat().st_mtime_ns)


@cache
def _listed(tar: str, modified: int) -> Contents:
    parts: dict[str, Part] = {}
    links: dict[str, str] = {}
    fault = ""
    try:
        with open(tar, "rb") as file:  # noqa: PTH123 (a key of the cache is a text)
            for info in headers(file):
                if info.isreg() and info.sparse is None:
                    parts.setdefault(path_in(info.name), Part(info.offset_data, info.size))
                elif info.islnk() or info.issym():
                    links.setdefault(path_in(info.name), target_of(info))
    except (tarfile.TarError, BrokenTarError, ValueError, OverflowError) as error:
        fault = f"broken, cut off, or no tar ({error})"
    leading: dict[str, list[str]] = {}  # names of links, by what they lead to
    for name, to in links.items():
        leading.setdefault(to, []).append(name)
    reached = list(parts)
    for to in reached:  # it grows meanwhile, as links may lead to links
        found = [name for name in leading.get(to, ()) if name not in parts]
        parts |= dict.fromkeys(found, parts[to])
        reached += found
    return Contents(parts, fault)


def headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Read all headers of a plain tar, and of further tars behind its end, as ``cat`` leaves them.

    Raises:
        tarfile.TarError: it is no tar, or its end is missing.
        BrokenTarError: something else follows its end.
        ValueError, OverflowError: a header makes no sense.
    """
    headers = _Headers(file)
    plain = cast("BinaryIO", headers)
    another = True
    while another:
        with tarfile.open(fileobj=plain, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if info.size < 0:  # it would go round in circles
                    raise tarfile.ReadError("a size below 0")
                yield info
        # Whatever is no header ends a tar for Python; a sound one ends with a block of zeros.
        if headers.last.strip(b"\0") or len(headers.last) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("no mark at its end")
        another = _passes_zeros(file)


def _passes_zeros(file: BinaryIO) -> bool:
    """Go on to a header behind the end of a tar, as ``cat a.tar b.tar`` leaves one; whether there is one."""
    block, place = bytes(tarfile.BLOCKSIZE), file.tell()
    while len(block) == tarfile.BLOCKSIZE and not block.strip(b"\0"):
        place, block = file.tell(), file.read(tarfile.BLOCKSIZE)
    if not block.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BrokenTarError("what follows the mark at its end is no tar, and is missing") from error
    file.seek(place)
    return True


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


def file_of(path: Path) -> Path:
    """The file on disk that holds a file: the tar that a path leads into, or else the path itself."""
    if SUFFIX in str(path):
        return next((folder for folder in path.parents if folder.suffix == SUFFIX and folder.is_file()), path)
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file, also in a tar."""
    tar = file_of(path)
    return path.is_file() if tar is path else path.relative_to(tar).as_posix() in contents(tar).parts


def open_file(path: Path) -> BinaryIO:
    """Open a file, also in a tar.

    Raises:
        OSError: it cannot be opened.
    """
    tar = file_of(path)
    if tar is path:
        return path.open("rb")
    part = contents(tar).parts.get(path.relative_to(tar).as_posix())
    if part is None:
        raise FileNotFoundError(f"not in {tar}")
    return io.BufferedReader(_Slice(tar, part))


class _Slice(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, path: Path, part: Part) -> None:
        super().__init__()
        self._file, self._rest = path.open("rb"), part.size
        self._file.seek(part.offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)[: self._rest]
        count = self._file.readinto(view)
        self._rest -= count
        return int(count)

    def close(self) -> None:
        self._file.close()
        super().close()
