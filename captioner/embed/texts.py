"""Captions in a file for each image, such as ``photo.txt`` beside ``photo.jpg`` with one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from captioner.bulk.options import FolderOptions, joined
from captioner.bulk.output import Settings, State, Target
from captioner.bulk.store import Seen, Store
from captioner.caption import Caption
from captioner.errors import CaptionerError, ImageError, OutputError, os_errors_as
from captioner.files import replacing, status_of_writable
from captioner.images import display_name, printable, read_file, reading, tars
from captioner.records import Captions, Record

_ATTRIBUTE = "user.captioner"
_LONGEST_BLANK = 1 << 12  # bytes
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Note:
    """What a caption's file was made with and of: digests, since an extended attribute has to be short.

    Attributes:
        model: of the weights.
        decoding: of decoding options and precision.
        texts: of the texts before and after the caption.
        size: bytes of the image, as text.
        image: of the image's bytes.
        caption: of the file's own content.
        pixels: of what the encoder saw of the image; earlier releases have not noted it.
    """

    model: str
    decoding: str
    texts: str
    size: str = ""
    image: str = ""
    caption: str = ""
    pixels: str = ""

    @classmethod
    def of_settings(cls, settings: Settings) -> Note:
        """What the files of a run have in common."""
        groups = (("weights", "encoder", "image_size", "resize"), ("decoding", "precision"), ("prepend", "append"))
        parts = [{name: settings.get(name) for name in names} for names in groups]
        return cls(*(short_digest(json.dumps(part, sort_keys=True).encode()) for part in parts))

    def about(self, identity: reading.Identity, content: bytes) -> Note:
        """The note of one file."""
        image, pixels = identity.digest[:8].hex(), identity.pixels[:8].hex()
        return replace(self, size=str(identity.size), image=image, caption=short_digest(content), pixels=pixels)

    def write(self, file: BinaryIO) -> None:
        """Attach it to a file that is being written, where the file system lets one."""
        with suppress(AttributeError, OSError):  # no such thing on this system, or here
            os.setxattr(file.fileno(), _ATTRIBUTE, " ".join(vars(self).values()).rstrip().encode())

    @classmethod
    def read(cls, path: Path) -> Note | None:
        """The note of a file; None if it has none, or one that this version does not know."""
        try:
            parts = os.getxattr(path, _ATTRIBUTE).decode().split(" ")
            return cls(*parts) if 0 <= len(cls.__match_args__) - len(parts) <= 1 else None
        except (AttributeError, OSError, UnicodeDecodeError):  # no such thing on this system, or here
            return None

    def differences(self, other: Note) -> str:
        """In words, in which settings two notes differ; empty if in none."""
        names = {"model": "weights", "decoding": "decoding options", "texts": "`prepend` or `append`"}
        return " and ".join(name for key, name in names.items() if getattr(self, key) != getattr(other, key))


def short_digest(data: bytes) -> str:
    """Enough of a digest to see a change by."""
    return reading.digest_of(data, 4).hex()


def changed(path: Path) -> ImageError:
    """What is wrong with an image that is another one than a moment ago."""
    return ImageError(f"{display_name(path)}: was changed during the run", "the same command captions it anew")


class FilePerImage(Target):
    """A file for each image.

    An image whose file is there is done, whatever wrote it. What a file was made of and with is noted in an
    extended attribute of it, where the file system has these; it moves along with the file. Processes may
    write into one folder at the same time.
    """

    keyed = True

    def __init__(self, options: FolderOptions) -> None:
        self._options = options
        self._overwrite = options.existing == "overwrite"
        self._note = Note("", "", "")
        self._folder = ("", "")  # the last one, and what it really is

    def _file_of(self, image: str) -> Path:
        """The file that an image's caption goes to."""
        raise NotImplementedError

    def _put(self, image: str, caption: str, identity: reading.Identity) -> None:
        """Write an image's file, with its note."""
        raise NotImplementedError

    def _read_same(self, path: Path, identity: reading.Identity) -> bytes:
        """The bytes of an image that must still be those that were captioned."""
        data = read_file(path, max_pixels=self._options.pixel_limit)
        if reading.digest_of(data) != identity.digest:
            raise changed(path)
        return data

    def key(self, image: str) -> bytes:
        """The file, by its real folder: two images must not share it."""
        file = self._file_of(image)
        return os.fsencode(f"{self._real(file.parent)}/{file.name}")

    def shared(self, image: str) -> tuple[str, str]:
        """See :class:`Target`."""
        return f"captioned in {display_name(self._file_of(image).name)}", super().shared(image)[1]

    def _real(self, folder: Path) -> str:
        name = os.fspath(folder)
        if self._folder[0] != name:
            self._folder = (name, os.path.realpath(name))
        return self._folder[1]

    def open(self, settings: Settings) -> Store:
        """See :class:`Target`."""
        self._note = Note.of_settings(settings)
        return super().open(settings)

    def state(self, item: tars.Item, seen: Seen | None = None) -> State:
        """See :class:`Target`."""
        image = str(item)
        file = self._file_of(image)
        try:
            written = file.stat().st_mtime_ns
        except (OSError, ValueError):  # absent, or it cannot be: then writing it says why
            return State.DUE
        if self._overwrite:
            return State.DUE
        if (note := Note.read(file)) is None:
            return State.DONE
        self._check(note, file)
        if not self._has_changed(Path(image), note, written):
            return State.DONE
        return State.CHANGED if short_digest(file.read_bytes()) == note.caption else State.LEFT

    def _check(self, note: Note, file: Path) -> None:
        """Refuse a file that was not made with the settings of this run."""
        if differing := self._note.differences(note):
            raise OutputError(
                f"{display_name(file)}: was made with other {differing}",
                "give the same to go on, or `overwrite` to caption everything anew",
            )

    def _has_changed(self, image: Path, note: Note, written: int) -> bool:
        try:
            status = image.stat()
            if status.st_mtime_ns <= written and str(status.st_size) == note.size:
                return False
            return self._digest(read_file(image, max_pixels=self._options.pixel_limit)) != note.image
        except (OSError, ImageError):
            return False  # it has gone, or cannot be read: what was seen of it stands

    def _digest(self, data: bytes) -> str:
        """As much of the digest of an image as there is room for."""
        return reading.digest_of(data)[:8].hex()

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
        """See :class:`Target`."""
        return [self._write(record) for record in records]

    def _write(self, record: Record) -> Record:
        if not record.captions or record.identity is None:
            return record
        try:
            self._put(record.name, printable(record.captions[0].text), record.identity)
        except CaptionerError as error:
            if getattr(error.__cause__, "errno", None) in _DISK_FULL:
                raise OutputError(str(error), "what is written is whole, and the same command goes on") from error
            return replace(record, captions=(), error=str(error))
        return record


class Sidecars(FilePerImage):
    """A text file beside each image: ``photo.txt`` or ``photo.jpg.txt``. One in which nothing stands is not done."""

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        name = path.name if self._options.sidecar_name == "full" else path.stem
        return path.with_name(name + self._options.sidecar_ending) if path.name else path

    def shared(self, image: str) -> tuple[str, str]:
        """See :class:`Target`."""
        what, advice = super().shared(image)
        if self._options.sidecar_name != "full":
            name = Path(display_name(image)).name
            advice = f"`sidecar_name` full takes {name}{self._options.sidecar_ending} for the first"
        return what, advice

    def state(self, item: tars.Item, seen: Seen | None = None) -> State:
        """See :class:`Target`."""
        file = self._file_of(str(item))
        if _is_blank(file):
            return State.DUE
        if self._options.existing in ("append", "prepend") and file.is_file():
            note = Note.read(file)  # of these settings only if the caption has been added
            if note is None or self._note.differences(note):
                return State.DUE
        return super().state(item, seen)

    def standing(self, record: Record) -> Captions | None:
        """See :class:`Target`."""
        file, seen = self._file_of(record.name), record.identity
        note = Note.read(file)
        if note is None or seen is None or not note.pixels or note.pixels != seen.pixels[:8].hex():
            return None
        text = file.read_bytes()
        return (Caption(text.decode().removesuffix("\n"), 0.0),) if short_digest(text) == note.caption else None

    def _put(self, image: str, caption: str, identity: reading.Identity) -> None:
        file = Path(os.path.realpath(self._file_of(image)))  # a link stays a link
        content = f"{caption}\n".encode()
        note = self._note.about(identity, content)
        with os_errors_as(CaptionerError, f"cannot write {display_name(file)}: "):
            before = status_of_writable(file, display_name(file)) if file.exists() else None
            if before is not None and not self._overwrite and not _is_blank(file):
                there, old = file.read_bytes(), Note.read(file)
                if old is None or old.caption != short_digest(there) or self._note.differences(old):
                    # What is noted differs from the content: that is not this program's alone, and never replaced.
                    note = self._note.about(identity, caption.encode())
                    content = self._added(there, caption, file)
            with replacing(file) as output:
                output.write(content)
                note.write(output)

    def _added(self, there: bytes, caption: str, file: Path) -> bytes:
        """A text with a caption added; as it was if the caption is in it, as where no notes can be kept."""
        if self._options.existing == "skip":
            raise CaptionerError(f"{display_name(file)}: was written during the run, and stays as it is")
        try:
            text = there.decode()
        except UnicodeDecodeError as error:
            what = f"{display_name(file)}: is not UTF-8 text, and stays as it is"
            raise CaptionerError(what, "save it as UTF-8") from error
        if caption in text:
            return there
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        text = text.removeprefix(mark).strip()
        both = joined(text, caption) if self._options.existing == "append" else joined(caption, text)
        return f"{mark}{both}\n".encode()


def _is_blank(file: Path) -> bool:
    """Whether a file holds nothing but blanks and marks of an encoding."""
    try:
        if not file.is_file() or file.stat().st_size > _LONGEST_BLANK:
            return False
        data = file.read_bytes().replace(b"\0", b"").strip(b"\xef\xbb\xbf\xff\xfe")
        return not data.decode(errors="replace").strip()
    except (OSError, ValueError):  # reading or writing it says why
        return False
