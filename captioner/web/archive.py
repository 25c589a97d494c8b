"""Images from what a visitor uploaded: files as they are, zip archives entry by entry.

Nothing is ever unpacked to disk, so that a name in an archive cannot lead anywhere; and an entry is read
only as far as its limit, so that a small archive cannot fill the memory.
"""

import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from captioner.errors import CaptionerError, ImageError
from captioner.images.find import IMAGE_EXTENSIONS
from captioner.web.messages import shown_name

MOST_IMAGES = 500
MOST_ENTRY_BYTES = 64 * 2**20
MOST_TOTAL_BYTES = 512 * 2**20

_ZIP_MAGIC = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_DIRECTORY_END = b"PK\x05\x06"
_DIRECTORY_END_BYTES = 22
_MOST_COMMENT_BYTES = 65_535
_MOST_DIRECTORY_BYTES = 4 * 2**20  # about 40,000 entries
_CHUNK_BYTES = 2**20
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Found:
    """An image that waits for its caption.

    Attributes:
        name: its name in one printable line; in an archive with its folders.
        read: gives the bytes of the file; raises :class:`captioner.errors.CaptionerError` if it cannot be
            read.
    """

    name: str
    read: Callable[[], bytes]


def find_uploads(uploads: Iterable[tuple[Path, str]]) -> Iterator[Found]:
    """Images in uploaded files, archives among them, in their order.

    What cannot be used comes too, with a ``read`` that says why. In archives only entries with the extension
    of an image are looked at.

    Args:
        uploads: where each file lies, and the name that it had at the visitor's.

    Raises:
        CaptionerError: there are more than :data:`MOST_IMAGES` images.
    """
    count, budget = 0, _Budget(MOST_TOTAL_BYTES)
    for path, name in uploads:
        for found in _in_archive(path, name, budget) if _is_zip(path) else [Found(name, _reader(path, name))]:
            count += 1
            if count > MOST_IMAGES:
                raise CaptionerError(f"more than {MOST_IMAGES} images", "give them in several parts")
            yield found


class _Budget:
    """Bytes that may still be unpacked for a visitor's images, over all archives."""

    def __init__(self, left: int) -> None:
        self.left = left


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in (_ZIP_MAGIC, _EMPTY_ZIP)
    except OSError:  # told when it is read
        return False


def _reader(path: Path, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"{name}: is no longer there", "upload it again") from error

    return read


def _refusal(message: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise ImageError(message)

    return read


def _in_archive(path: Path, name: str, budget: _Budget) -> Iterator[Found]:
    try:
        archive = _opened(path)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        yield Found(name, _refusal(f"{name}: not a complete zip archive"))
        return
    if archive is None:
        yield Found(name, _refusal(f"{name}: holds too many files; give it in several parts"))
        return
    entries = [entry for entry in archive.infolist() if _is_image(entry)]
    if not entries:
        yield Found(name, _refusal(f"{name}: there are no images in the archive"))
    for entry in entries:
        shown = "/".join(map(shown_name, _parts(entry)))
        yield Found(shown, _entry_reader(archive, entry, shown, budget))


def _opened(path: Path) -> zipfile.ZipFile | None:
    """An archive, closed when no image refers to it; None if its directory would take much memory."""
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
    if entry.is_dir() or not parts or "__MACOSX" in parts or parts[-1].startswith("."):
        return False
    return PurePosixPath(parts[-1]).suffix.lower() in IMAGE_EXTENSIONS


def _entry_reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, budget: _Budget) -> Callable[[], bytes]:
    parts = _parts(entry)
    if ".." in parts or parts[0] == "/" or parts[0].endswith(":"):
        return _refusal(f"{name}: its name in the archive leads out of the archive")
    if entry.flag_bits & 1:
        return _refusal(f"{name}: is locked with a password")

    def read() -> bytes:
        limit = min(MOST_ENTRY_BYTES, budget.left)
        data = io.BytesIO()
        try:
            with archive.open(entry) as file:
                while data.tell() <= limit and (chunk := file.read(_CHUNK_BYTES)):
                    data.write(chunk)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, *_UNREADABLE) as error:
            raise ImageError(f"{name}: is damaged in the archive") from error
        finally:
            budget.left -= data.tell()
        if data.tell() > limit:
            raise ImageError(f"{name}: unpacks to too many bytes")
        return data.getvalue()

    return read
