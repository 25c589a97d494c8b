"""Files inside plain tars, by paths that lead into them: ``shards/00000.tar/dog.jpg``. Nothing is unpacked."""

import io
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

SUFFIX = ".tar"


class Part(NamedTuple):
    """Where a file lies in a tar: its first byte, and how many there are."""

    offset: int
    size: int


class Contents(NamedTuple):
    """What a tar holds: its files by name, in order, and why there may be more that cannot be read (or nothing)."""

    parts: dict[str, Part]
    fault: str


def contents(tar: Path) -> Contents:
    """List a tar; of several files of one name the first counts. A tar is listed again only after a change.

    Raises:
        OSError: it cannot be opened.
    """
    return _listed(str(tar), tar.stat().st_mtime_ns)


@cache
def _listed(tar: str, modified: int) -> Contents:
    parts: dict[str, Part] = {}
    try:
        with open(tar, "rb") as file:  # noqa: PTH123 (a key of the cache is a text)
            for info in _headers(file):
                if info.isreg() and info.sparse is None:
                    parts.setdefault(info.name.removeprefix("./"), Part(info.offset_data, info.size))
    except (tarfile.TarError, ValueError, OverflowError) as error:
        return Contents(parts, f"broken, cut off, or no tar ({error})")
    return Contents(parts, "")


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """All headers, those behind an end mark included: tars are joined by ``cat``."""
    block = b"\0"
    while block:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if info.size < 0:  # it would go round in circles
                    raise tarfile.ReadError("a size below 0")
                yield info
            file.seek(archive.offset)
        marked = False
        while (block := file.read(tarfile.BLOCKSIZE)) and not block.strip(b"\0"):
            marked = True
        if not marked:  # whatever is no header ends a tar for Python
            raise tarfile.ReadError("no mark at its end")
        file.seek(-len(block), io.SEEK_CUR)


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
