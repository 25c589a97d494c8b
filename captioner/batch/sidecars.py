"""Captions in files beside the pictures: ``photo.txt`` beside ``photo.jpg``, each with one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from captioner.batch.reading import digest_of
from captioner.batch.records import Entry, Identity
from captioner.batch.settings import Settings
from captioner.batch.targets import State
from captioner.batch.tars import Item
from captioner.errors import CaptionerError, ImageError, OutputError
from captioner.files import replacing
from captioner.images import display_name, printable, read_file

_ATTRIBUTE = "user.captioner"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Note:
    """What a sidecar was made with and of: digests, since an extended attribute has to be short.

    Attributes:
        model: of the weights.
        decoding: of decoding options and precision.
        texts: of the texts before and after the caption.
        size: bytes of the picture, as text.
        picture: of the picture's bytes.
        caption: of the sidecar's own content.
    """

    model: str
    decoding: str
    texts: str
    size: str = ""
    picture: str = ""
    caption: str = ""

    @classmethod
    def of_settings(cls, settings: Settings) -> Note:
        """What the sidecars of a run have in common."""
        groups = (
            ("weights", "encoder", "image_size", "resize"),
            ("decoding", "precision"),
            ("prepend", "append"),
        )
        parts = [{name: settings.get(name) for name in names} for names in groups]
        return cls(*(_short(json.dumps(part, sort_keys=True).encode()) for part in parts))

    def about(self, identity: Identity, content: bytes) -> Note:
        """The note of one sidecar."""
        picture = identity.digest[:8].hex()
        return replace(self, size=str(identity.size), picture=picture, caption=_short(content))

    def encode(self) -> bytes:
        """As it is stored."""
        return " ".join(vars(self).values()).encode()

    @classmethod
    def read(cls, sidecar: Path) -> Note | None:
        """The note of a sidecar; None if it has none, or one that this version does not know."""
        try:
            parts = os.getxattr(sidecar, _ATTRIBUTE).decode().split(" ")
            return cls(*parts) if len(parts) == len(cls.__match_args__) else None
        except (AttributeError, OSError, UnicodeDecodeError):  # no such thing on this system, or here
            return None

    def differences(self, other: Note) -> str:
        """In words, in which settings two notes differ; empty if in none."""
        names = {"model": "weights", "decoding": "decoding options", "texts": "--prepend or --append"}
        return " and ".join(name for key, name in names.items() if getattr(self, key) != getattr(other, key))


class Sidecars:
    """A file beside each picture; a target.

    A picture whose sidecar is there is done, whoever wrote it. What a sidecar was made of and with is noted
    in an extended attribute of the file, where the file system has these; it moves along with the file.
    Processes may write sidecars into one folder at the same time.

    Args:
        ending: of the sidecars' names, such as ``.txt``.
        max_pixels: of pictures, see :func:`captioner.images.read_file`.
    """

    def __init__(self, ending: str, *, max_pixels: int) -> None:
        self._ending, self._max_pixels = ending, max_pixels
        self._note = Note("", "", "")
        self._overwrite = False
        self._folder = ("", "")  # the last one, and what it really is

    def key(self, image: str) -> bytes:
        """The sidecar, by its real folder: two pictures must not share it."""
        sidecar = self._sidecar(image)
        folder = os.fspath(sidecar.parent)
        if self._folder[0] != folder:
            self._folder = (folder, os.path.realpath(folder))
        return os.fsencode(f"{self._folder[1]}/{sidecar.name}")

    def _sidecar(self, image: str) -> Path:
        path = Path(image)
        return path.with_name(path.stem + self._ending) if path.name else path

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """See :class:`captioner.batch.targets.Target`."""
        self._note, self._overwrite = Note.of_settings(settings), overwrite

    def state(self, item: Item) -> State:
        """See :class:`captioner.batch.targets.Target`."""
        image = str(item)
        sidecar = self._sidecar(image)
        try:
            written = sidecar.stat().st_mtime_ns
        except (OSError, ValueError):  # absent, or it cannot be: then writing it says why
            return State.DUE
        note = None if self._overwrite else Note.read(sidecar)
        if note is None:
            return State.DUE if self._overwrite else State.DONE
        if differing := self._note.differences(note):
            raise OutputError(
                f"{display_name(sidecar)}: was made with other {differing}; "
                "give the same to go on, or --overwrite to caption everything anew"
            )
        if not self._has_changed(Path(image), note, written):
            return State.DONE
        return State.CHANGED if _short(sidecar.read_bytes()) == note.caption else State.LEFT

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
        """See :class:`captioner.batch.targets.Target`; sidecars are not searched for equal pictures."""

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """See :class:`captioner.batch.targets.Target`."""
        return [self._write(entry) for entry in entries]

    def _write(self, entry: Entry) -> Entry:
        if not entry.captions or entry.identity is None:
            return entry
        content = f"{printable(entry.captions[0].text)}\n".encode()
        try:
            with replacing(self._sidecar(entry.image)) as file:
                file.write(content)
                with suppress(AttributeError, OSError):  # no such thing on this system, or here
                    note = self._note.about(entry.identity, content)
                    os.setxattr(file.fileno(), _ATTRIBUTE, note.encode())
        except CaptionerError as error:
            if getattr(error.__cause__, "errno", None) in _DISK_FULL:
                raise OutputError(
                    f"{error}; what is written is whole, and the same command goes on"
                ) from error
            return replace(entry, captions=(), error=str(error))
        return entry

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """See :class:`captioner.batch.targets.Target`."""

    def close(self) -> None:
        """See :class:`captioner.batch.targets.Target`."""


def _short(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=4).hexdigest()
