"""Captions in files beside the images: ``image.txt`` beside ``photo.jpg``, each with one line."""

import errno
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from captioner.bulk.output import Settings, State, Target
from captioner.bulk.reading import digest_of
from captioner.bulk.records import Identity, Item, Record
from captioner.errors import CaptionerError, ImageError, OutputError
from captioner.files import replacing
from captioner.images import display_name, printable, read_file

_ATTRIBUTE = "user.captioner"
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
    """

    model: str
    decoding: str
    texts: str
    size: str = ""
    image: str = ""
    caption: str = ""

    @classmethod
    def of_settings(cls, settings: Settings) -> "Note":
        """What the files of a run have in common."""
        groups = (("weights", "encoder", "image_size", "resize"), ("decoding", "precision"), ("prepend", "append"))
        parts = [{name: settings.get(name) for name in names} for names in groups]
        return cls(*(short_digest(json.dumps(part, sort_keys=True).encode()) for part in parts))

    def about(self, identity: Identity, content: bytes) -> "Note":
        """The note of one file."""
        image = identity.digest[:8].hex()
        return replace(self, size=str(identity.size), image=image, caption=short_digest(content))

    def write(self, file: BinaryIO) -> None:
        """Attach it to a file that is being written, where the file system lets one."""
        with suppress(AttributeError, OSError):  # no such thing on this system, or here
            os.setxattr(file.fileno(), _ATTRIBUTE, " ".join(vars(self).values()).encode())

    @classmethod
    def read(cls, path: Path) -> "Note | None":
        """The note of a file; None if it has none, or one that this version does not know."""
        try:
            parts = os.getxattr(path, _ATTRIBUTE).decode().split(" ")
            return cls(*parts) if len(parts) == len(cls.__match_args__) else None
        except (AttributeError, OSError, UnicodeDecodeError):  # no such thing on this system, or here
            return None

    def differences(self, other: "Note") -> str:
        """In words, in which settings two notes differ; empty if in none."""
        names = {"model": "weights", "decoding": "decoding options", "texts": "`prepend` or `append`"}
        return " and ".join(name for key, name in names.items() if getattr(self, key) != getattr(other, key))


def short_digest(data: bytes) -> str:
    """Enough of a digest to see a change by."""
    return digest_of(data, 4).hex()


def image_digest(data: bytes) -> str:
    """As much of the digest of an image as there is room for."""
    return digest_of(data)[:8].hex()


def changed(path: Path) -> ImageError:
    """What is wrong with an image that is another one than a moment ago."""
    return ImageError(f"{display_name(path)}: was changed during the run", "the same command captions it anew")


class FilePerImage(Target):
    """A file for each image.

    An image whose file is there is done, whatever wrote it. What a file was made of and with is noted in an
    extended attribute of it, where the file system has these; it moves along with the file. Processes may
    write into one folder at the same time.

    Args:
        max_pixels: of images, see :func:`captioner.images.read_file`.
    """

    def __init__(self, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._note = Note("", "", "")
        self._overwrite = False
        self._folder = ("", "")  # the last one, and what it really is

    def _file_of(self, image: str) -> Path:
        """The file that an image's caption goes to."""
        raise NotImplementedError

    def _put(self, image: str, caption: str, identity: Identity) -> None:
        """Write an image's file, with its note."""
        raise NotImplementedError

    def _read_same(self, path: Path, identity: Identity) -> bytes:
        """The bytes of an image that must still be those that were captioned."""
        data = read_file(path, max_pixels=self._max_pixels)
        if digest_of(data) != identity.digest:
            raise changed(path)
        return data

    def key(self, image: str) -> bytes:
        """The file, by its real folder: two images must not share it."""
        file = self._file_of(image)
        return os.fsencode(f"{self._real(file.parent)}/{file.name}")

    def _real(self, folder: Path) -> str:
        name = os.fspath(folder)
        if self._folder[0] != name:
            self._folder = (name, os.path.realpath(name))
        return self._folder[1]

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """See :class:`Target`."""
        self._note, self._overwrite = Note.of_settings(settings), overwrite

    def state(self, item: Item) -> State:
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
            return image_digest(read_file(image, max_pixels=self._max_pixels)) != note.image
        except (OSError, ImageError):
            return False  # it has gone, or cannot be read: what was seen of it stands

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
    """A text file beside each image, whose name has an ``ending`` such as ``.txt``."""

    def __init__(self, ending: str, *, max_pixels: int) -> None:
        super().__init__(max_pixels=max_pixels)
        self._ending = ending

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        return path.with_name(path.stem + self._ending) if path.name else path

    def _put(self, image: str, caption: str, identity: Identity) -> None:
        content = f"{caption}\n".encode()
        with replacing(self._file_of(image)) as file:
            file.write(content)
            self._note.about(identity, content).write(file)
