"""Images in tars, which are read where they lie, without unpacking anything."""

import bz2
import glob
import gzip
import io
import lzma
import os
import re
import sqlite3
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, cast

from captioner.errors import ImageError, OptionError
from captioner.images import display_name, find, printable, read_file
from captioner.tars import FIRST_BYTES, BrokenTarError, compression, headers, path_in, target_of

_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_OTHERS = {b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive"}
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # the last three if it is compressed
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_BRACES = re.compile(r"\{([^{}]*,[^{}]*|(-?[0-9]+)\.\.(-?[0-9]+))\}")
_MOST_NAMES = 1_000_000
_LATE = """WITH RECURSIVE reached (name, start, size) AS
    (SELECT links.name, start, size FROM links JOIN files ON files.name = target
    UNION SELECT links.name, start, size FROM reached CROSS JOIN links ON target = reached.name)
    SELECT image, written, max(start), size FROM links LEFT JOIN reached USING (name)
    WHERE image NOT NULL GROUP BY links.rowid"""


@dataclass(frozen=True)
class Member:
    """An image in a tar, or what is wrong where there should be one.

    Attributes:
        name: as outputs name it: the tar, a slash and its name in there.
        tar: path of the tar.
        offset: where its bytes begin in the plain tar.
        size: how many they are.
        modified: time of the tar's last change, in nanoseconds since 1970.
        error: why there is no image, in one line.
    """

    name: str
    tar: str
    offset: int = 0
    size: int = 0
    modified: int = 0
    error: str | None = None

    def __str__(self) -> str:
        return self.name


Item = Path | Member
"""An image to caption: a file, or part of one. ``str()`` gives its name."""


def _open_tar(path: str) -> BinaryIO:
    """Open a tar, plain or compressed, whatever it is called; what is read is the plain one."""
    if Path(path).exists() and not Path(path).is_file():  # opening a named pipe would wait for its writer
        raise OSError("not a regular file")
    file = Path(path).open("rb")  # noqa: SIM115 (handed over open)
    start = file.read(FIRST_BYTES)
    compressed = compression(start)
    what = (
        f"compressed by {compressed}" if compressed else next((_OTHERS[m] for m in _OTHERS if start.startswith(m)), "")
    )
    if not what:
        file.seek(0)
        return file
    file.close()
    if compressed in _OPENERS:
        return cast("BinaryIO", _OPENERS[compressed](path))
    raise OSError(f"it is {what}; unpack it first, or make it a tar, plain or by gzip, bzip2 or xz")


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
    faults: list[Exception] = []
    with closing(_open_tar(tar)) as file, closing(_Names()) as names:
        modified = os.fstat(file.fileno()).st_mtime_ns
        for key, parts in groupby(_parts(file, omitted, names, faults), key=lambda part: part[0]):
            images = _images(parts)
            for number, (ending, info) in enumerate(images, names.count(key, len(images)) + 1):
                name = f"{tar}/{key}.{ending}"
                error = None
                if number == 1 and (info.islnk() or info.issym()):
                    names.put_off(info, name)
                    continue
                if info.sparse is not None or not info.isreg():
                    error = "no plain file in its tar, but a device or the like"
                if number > 1:
                    name, error = f"{name}#{number}", f"sample {key} has an image already, which counts"
                reason = None if error is None else f"{display_name(name)}: {display_name(error)}"
                yield Member(name, tar, info.offset_data, info.size, modified, reason)
        for name, target, (offset, size) in names.late():
            reason = f"{display_name(name)}: a link to {display_name(target)}, which is no file in its tar"
            yield Member(name, tar, offset, size, modified, None if offset else reason)
        for key in names.bare():
            name = f"{tar}/{key}"
            yield Member(name, tar, error=f"{display_name(name)}: a sample without an image")
    if faults:
        raise faults[0]


class _Names:
    """The names in a tar, in a file without a name, so that a tar of any length can be listed."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level="IMMEDIATE")
        self._db.execute("CREATE TABLE files (name BLOB PRIMARY KEY, start INTEGER, size INTEGER) WITHOUT ROWID")
        self._db.execute("CREATE TABLE samples (key BLOB UNIQUE, images INTEGER)")
        self._db.execute("CREATE TABLE links (name BLOB UNIQUE, target BLOB, image BLOB, written BLOB)")

    def count(self, key: str, images: int) -> int:
        """How many images a sample had, which is seen with so many more."""
        row = self._db.execute("SELECT images FROM samples WHERE key = ?", (os.fsencode(key),)).fetchone()
        before: int = 0 if row is None else row[0]
        if row is None or images:
            counts = (os.fsencode(key), before + images)
            self._db.execute(
                "INSERT INTO samples VALUES (?, ?) ON CONFLICT DO UPDATE SET images = excluded.images", counts
            )
        return before

    def bare(self) -> Iterator[str]:
        """Samples without an image, in order."""
        return (
            os.fsdecode(key) for (key,) in self._db.execute("SELECT key FROM samples WHERE NOT images ORDER BY rowid")
        )

    def follow(self, info: tarfile.TarInfo) -> None:
        """Give a link offset and size of the file that it leads to, if that lies before it; note where a file lies."""
        name = os.fsencode(path_in(info.name))
        if info.islnk() or info.issym():
            target = os.fsencode(target_of(info))
            if place := self._db.execute("SELECT start, size FROM files WHERE name = ?", (target,)).fetchone():
                info.type, (info.offset_data, info.size) = tarfile.REGTYPE, place
            else:
                link = (name, target, os.fsencode(info.linkname))
                self._db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, NULL, ?)", link)
        if info.isreg() and info.sparse is None:
            self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (name, info.offset_data, info.size))

    def put_off(self, info: tarfile.TarInfo, image: str) -> None:
        """Note that a link is an image, whose file may lie behind it."""
        names = os.fsencode(image), os.fsencode(path_in(info.name))
        self._db.execute("UPDATE links SET image = ? WHERE name = ?", names)

    def late(self) -> Iterator[tuple[str, str, tuple[int, int]]]:
        """Images put off: the link's name, where it says that it leads to, and offset and size there; 0 for none."""
        self._db.execute("CREATE INDEX by_target ON links (target)")
        for image, written, start, size in self._db.execute(_LATE):
            yield os.fsdecode(image), os.fsdecode(written), (start or 0, size or 0)

    def close(self) -> None:
        """Forget them."""
        self._db.close()


def _parts(
    file: BinaryIO, omitted: find.Omitted, names: _Names, faults: list[Exception]
) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, ending and header of each member that is part of a sample, up to a fault that is noted.

    It is not raised here, so that the sample before it is still reported.
    """
    try:
        for info in headers(file):
            names.follow(info)
            name = path_in(info.name)
            if info.isdir():
                continue
            if omitted.fits(name):
                omitted.images += find.is_listed(name)
            elif match := _MEMBER.fullmatch(name):
                yield match[1], match[2], info
    except _BROKEN as error:
        faults.append(error)


def _images(parts: Iterable[tuple[str, str, tarfile.TarInfo]]) -> list[tuple[str, tarfile.TarInfo]]:
    """Images of a sample; ``dog.mask.png`` is one only if there is nothing like ``dog.jpg``."""
    found = [(end, info) for _, end, info in parts if "." + end.rpartition(".")[2].lower() in find.IMAGE_EXTENSIONS]
    plain = [(ending, info) for ending, info in found if "." not in ending]
    return plain or found


def expand(patterns: Iterable[str]) -> list[str]:
    """The files that patterns stand for, each once, in the order of the patterns.

    ``images-{000..999}.tar`` is a thousand names, ``{a,b}.tar`` two; they need not exist. ``*``, ``?`` and
    ``[...]`` stand for files that are there, in natural order. A pattern that is the name of a file stands for it.

    Args:
        patterns: any number, given as `input_tar`.

    Raises:
        OptionError: nothing fits one of them, or it stands for more than a million names.
    """
    names = chain.from_iterable(_expand(pattern) for pattern in patterns)
    return list(dict.fromkeys(names))


def _expand(pattern: str) -> Iterator[str]:
    if not pattern:
        raise OptionError("`input_tar`: an empty name was given")
    if Path(pattern).exists():
        yield pattern
        return
    for count, name in enumerate(_in_braces(pattern)):
        if count >= _MOST_NAMES:
            raise OptionError(f"`input_tar` {pattern!r}: stands for more than {_MOST_NAMES:,} names")
        if glob.escape(name) == name or Path(name).exists():
            yield name
            continue
        found = sorted(map(Path, glob.glob(name)), key=lambda path: (path.parent, find.natural_order(path.name)))  # noqa: PTH207
        if not found:
            raise OptionError(f"`input_tar` {name!r}: no file fits")
        yield from map(str, found)


def _in_braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    words, first, last = match.groups()
    choices = words.split(",") if first is None else _numbers(first, last)
    for choice in choices:
        yield from _in_braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _numbers(first: str, last: str) -> Iterator[str]:
    start, end = int(first), int(last)
    padded = any(re.fullmatch("-?0[0-9]+", each) for each in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if start <= end else -1
    return (f"{number:0{width}}" for number in range(start, end + step, step))
