"""Images from what a visitor uploaded: files as they are, zip archives entry by entry.

Nothing is unpacked to disk, so the names in an archive are harmless; and an entry is read only as far as its
limit, so a small archive cannot fill the memory.
"""

import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from captioner.errors import CaptionerError, ImageError
from captioner.html import shown_name
from captioner.images.find import Omitted, is_listed

MOST_IMAGES = 500
MOST_ENTRY_BYTES = 64 * 2**20
MOST_TOTAL_BYTES = 512 * 2**20

_CLUTTER = Omitted()
_ZIP_MAGIC = b"PK\x03\x04"
_DIRECTORY_END = b"PK\x05\x06"  # an empty archive begins with it
_DIRECTORY_END_BYTES = 22
_MOST_COMMENT_BYTES = 65_535
_MOST_DIRECTORY_BYTES = 4 * 2**20  # about 40,000 entries
_CHUNK_BYTES = 2**20
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Found:
    """An image to caption: its name in one printable line, in an archive with its folders; and what gives its bytes."""

    name: str
    read: Callable[[], bytes]


def find_uploads(uploads: Iterable[tuple[Path, str]]) -> Iterator[Found]:
    """Find the images in uploaded files, each with the visitor's name, archives among them, in their order.

    Files that cannot be used are included, with a ``read`` that says why. In archives only entries with the
    extension of an image count.

    Raises:
        CaptionerError: there are more than :data:`MOST_IMAGES` images.
    """
    names: set[str] = set()
    budget = _Budget(MOST_TOTAL_BYTES)
    for path, name in uploads:
        for found in _in_archive(path, name, budget) if _is_zip(path) else [Found(name, partial(_file, path, name))]:
            if len(names) == MOST_IMAGES:
                raise CaptionerError(f"more than {MOST_IMAGES} images", "give them in several parts")
            own = _unlike(found.name, names)
            names.add(own)
            yield replace(found, name=own)


def _unlike(name: str, names: Collection[str]) -> str:
    """A name that is not among others: of two that are called ``dog.jpg`` the second is ``dog (2).jpg``."""
    path, own, number = PurePosixPath(name), name, 1
    while own in names:
        number += 1
        own = str(path.with_name(f"{path.stem} ({number}){path.suffix}")) if path.name else f"{name} ({number})"
    return own


@dataclass
class _Budget:
    """Bytes that may still be unpacked for a visitor's images, over all archives."""

    left: int


def _file(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: is no longer there", "upload it again") from error


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in (_ZIP_MAGIC, _DIRECTORY_END)
    except OSError:  # reported when it is read
        return False


def _in_archive(path: Path, name: str, budget: _Budget) -> Iterator[Found]:
    try:
        archive = _open(path)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        yield Found(name, partial(_refuse, f"{name}: not a complete zip archive"))
        return
    if archive is None:
        yield Found(name, partial(_refuse, f"{name}: holds too many files; give it in several parts"))
        return
    entries = [entry for entry in archive.infolist() if _is_image(entry)]
    if not entries:
        yield Found(name, partial(_refuse, f"{name}: there are no images in the archive"))
    for entry in entries:
        shown = "/".join(map(shown_name, _parts(entry)))
        yield Found(shown, partial(_unpack, archive, entry, shown, budget))


def _refuse(message: str) -> bytes:
    raise ImageError(message)


def _open(path: Path) -> zipfile.ZipFile | None:
    """Open an archive, which closes when no image refers to it; None if its directory would take much memory."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _DIRECTORY_END_BYTES - _MOST_COMMENT_BYTES))
        tail = file.read()
    record = tail[tail.rfind(_DIRECTORY_END) :][:_DIRECTORY_END_BYTES]
    if len(record) < _DIRECTORY_END_BYTES or not record.startswith(_DIRECTORY_END):
        raise zipfile.BadZipFile
    if int.from_bytes(record[12:16], "little") > _MOST_DIRECTORY_BYTES:
        return None
    return zipfile.ZipFile(path)


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(entry.filename.replace("\\", "/")).parts


def _is_image(entry: zipfile.ZipInfo) -> bool:
    parts = _parts(entry)
    return not entry.is_dir() and bool(parts) and is_listed(parts[-1]) and not _CLUTTER.fits("/".join(parts))


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, budget: _Budget) -> bytes:
    parts = _parts(entry)
    if ".." in parts or parts[0] == "/" or parts[0].endswith(":"):
        raise ImageError(f"{name}: its name in the archive leads out of the archive")
    if entry.flag_bits & 1:
        raise ImageError(f"{name}: is locked with a password")
    limit = min(MOST_ENTRY_BYTES, budget.left)
    data = io.BytesIO()
    try:
        with archive.open(entry) as file:
            while data.tell() <= limit and (chunk := file.read(_CHUNK_BYTES)):
                data.write(chunk)
    except _UNREADABLE as error:
        raise ImageError(f"{name}: is damaged in the archive") from error
    finally:
        budget.left -= data.tell()
    if data.tell() > limit:
        raise ImageError(f"{name}: unpacks to too many bytes")
    return data.getvalue()
