"""Captions in files beside the images: ``image.txt`` beside ``photo.jpg``, each with one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from captioner.bulk.output import Settings, State
from captioner.bulk.reading import digest_of
from captioner.bulk.records import Entry, Identity
from captioner.bulk.tars import Item
from captioner.errors import CaptionerError, ImageError, OutputError
from captioner.files import replacing
from captioner.images import display_name, printable, read_file

_ATTRIBUTE = "user.captioner"


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
    picture: str = ""
    caption: str = ""

    @classmethod
    def of_settings(cls, settings: Settings) -> Note:
        """What the files of a run have in common."""
        groups = (
            ("weights", "encoder", "image_size", "resize"),
            ("decoding", "precision"),
            ("prepend", "append"),
        )
        parts = [{name: settings.get(name) for name in names} for names in groups]
        return cls(*(short_digest(json.dumps(part, sort_keys=True).encode()) for part in parts))

    def about(self, identity: Identity, content: bytes) -> Note:
        """The note of one file."""
        picture = identity.digest[:8].hex()
        return replace(self, size=str(identity.size), picture=picture, caption=short_digest(content))

    def encode(self) -> bytes:
        """As it is stored."""
        return " ".join(vars(self).values()).encode()

    def write(self, file: BinaryIO) -> None:
        """Attach it to a file that is being written, where the file system lets one."""
        with suppress(AttributeError, OSError):  # no such thing on this system, or here
            os.setxattr(file.fileno(), _ATTRIBUTE, self.encode())

    @classmethod
    def read(cls, path: Path) -> Note | None:
        """The note of a file; None if it has none, or one that this version does not know."""
        try:
            parts = os.getxattr(path, _ATTRIBUTE).decode().split(" ")
            return cls(*parts) if len(parts) == len(cls.__match_args__) else None
        except (AttributeError, OSError, UnicodeDecodeError):  # no such thing on this system, or here
            return None

    def differences(self, other: Note) -> str:
        """In words, in which settings two notes differ; empty if in none."""
        names = {"model": "weights", "decoding": "decoding options", "texts": "`prepend` or `append`"}
        return " and ".join(name for key, name in names.items() if getattr(self, key) != getattr(other, key))


def short_digest(data: bytes) -> str:
    """Enough of a digest to see a change by."""
    return hashlib.blake2b(data, digest_size=4).hexdigest()


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FilePerImage:
    """A file for each image; a target.

    An image whose file is there is done, whoever wrote it. What a file was made of and with is noted in an
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
        """Write an image's file, with its note.

        Raises:
            CaptionerError: that is not possible.
        """
        raise NotImplementedError

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
        """See :class:`captioner.bulk.output.Target`."""
        self._note, self._overwrite = Note.of_settings(settings), overwrite

    def state(self, item: Item) -> State:
        """See :class:`captioner.bulk.output.Target`."""
        image = str(item)
        file = self._file_of(image)
        try:
            written = file.stat().st_mtime_ns
        except (OSError, ValueError):  # absent, or it cannot be: then writing it says why
            return State.DUE
        note = None if self._overwrite else Note.read(file)
        if note is None:
            return State.DUE if self._overwrite else State.DONE
        self._check(note, file)
        if not self._has_changed(Path(image), note, written):
            return State.DONE
        return State.CHANGED if short_digest(file.read_bytes()) == note.caption else State.LEFT

    def _check(self, note: Note, file: Path) -> None:
        """See that a file was made with the settings of this run.

        Raises:
            OutputError: it was not.
        """
        if differing := self._note.differences(note):
            raise OutputError(
                f"{display_name(file)}: was made with other {differing}",
                "give the same to go on, or `overwrite` to caption everything anew",
            )

    def _has_changed(self, picture: Path, note: Note, written: int) -> bool:
        try:
            status = picture.stat()
            if status.st_mtime_ns <= written and str(status.st_size) == note.size:
                return False
            return digest_of(read_file(picture, max_pixels=self._max_pixels))[:8].hex() != note.picture
        except (OSError, ImageError):
            return False  # it has gone, or cannot be read: what was seen of it stands

    def begin(self) -> None:
        """See :class:`captioner.bulk.output.Target`."""

    def forget(self, images: Iterable[str]) -> None:
        """See :class:`captioner.bulk.output.Target`."""

    def captions_of(self, digest: bytes) -> None:
        """See :class:`captioner.bulk.output.Target`; files are not searched for equal images."""

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """See :class:`captioner.bulk.output.Target`."""
        return [self._write(entry) for entry in entries]

    def _write(self, entry: Entry) -> Entry:
        if not entry.captions or entry.identity is None:
            return entry
        try:
            self._put(entry.image, printable(entry.captions[0].text), entry.identity)
        except CaptionerError as error:
            if getattr(error.__cause__, "errno", None) in _DISK_FULL:
                raise OutputError(str(error), "what is written is whole, and the same command goes on") from error
            return replace(entry, captions=(), error=str(error))
        return entry

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """See :class:`captioner.bulk.output.Target`."""

    def close(self) -> None:
        """See :class:`captioner.bulk.output.Target`."""


class Sidecars(FilePerImage):
    """A text file beside each image; a target.

    Args:
        ending: of the sidecars' names, such as ``.txt``.
        max_pixels: see :class:`FilePerImage`.
    """

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
