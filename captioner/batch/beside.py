"""Targets that write a file for each picture, which tells by itself whether the picture is done."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from captioner.batch.notes import Note, short_digest
from captioner.batch.reading import digest_of
from captioner.batch.records import Entry, Identity
from captioner.batch.settings import Settings
from captioner.batch.targets import State
from captioner.batch.tars import Item
from captioner.errors import CaptionerError, ImageError, OutputError
from captioner.images import display_name, printable, read_file

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FilePerPicture:
    """A file for each picture; a target.

    A picture whose file is there is done, whoever wrote it. What a file was made of and with is noted in an
    extended attribute of it, where the file system has these; it moves along with the file. Processes may
    write into one folder at the same time.

    Args:
        max_pixels: of pictures, see :func:`captioner.images.read_file`.
    """

    def __init__(self, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._note = Note("", "", "")
        self._overwrite = False
        self._folder = ("", "")  # the last one, and what it really is

    def _file_of(self, image: str) -> Path:
        """The file that a picture's caption goes to."""
        raise NotImplementedError

    def _put(self, image: str, caption: str, identity: Identity) -> None:
        """Write a picture's file, with its note.

        Raises:
            CaptionerError: that is not possible.
        """
        raise NotImplementedError

    def key(self, image: str) -> bytes:
        """The file, by its real folder: two pictures must not share it."""
        file = self._file_of(image)
        return os.fsencode(f"{self._real(file.parent)}/{file.name}")

    def _real(self, folder: Path) -> str:
        name = os.fspath(folder)
        if self._folder[0] != name:
            self._folder = (name, os.path.realpath(name))
        return self._folder[1]

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """See :class:`captioner.batch.targets.Target`."""
        self._note, self._overwrite = Note.of_settings(settings), overwrite

    def state(self, item: Item) -> State:
        """See :class:`captioner.batch.targets.Target`."""
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
        """See :class:`captioner.batch.targets.Target`."""

    def forget(self, images: Iterable[str]) -> None:
        """See :class:`captioner.batch.targets.Target`."""

    def captions_of(self, digest: bytes) -> None:
        """See :class:`captioner.batch.targets.Target`; files are not searched for equal pictures."""

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """See :class:`captioner.batch.targets.Target`."""
        return [self._write(entry) for entry in entries]

    def _write(self, entry: Entry) -> Entry:
        if not entry.captions or entry.identity is None:
            return entry
        try:
            self._put(entry.image, printable(entry.captions[0].text), entry.identity)
        except CaptionerError as error:
            if getattr(error.__cause__, "errno", None) in _DISK_FULL:
                raise OutputError(
                    str(error), "what is written is whole, and the same command goes on"
                ) from error
            return replace(entry, captions=(), error=str(error))
        return entry

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """See :class:`captioner.batch.targets.Target`."""

    def close(self) -> None:
        """See :class:`captioner.batch.targets.Target`."""
