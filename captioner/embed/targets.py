"""Captions as metadata: inside images, in copies of them or in the files themselves, or in XMP files beside them."""

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from captioner.bulk.options import FolderOptions
from captioner.bulk.output import Settings, State, Target
from captioner.bulk.store import Seen, Store
from captioner.embed.embedding import Texts, check_embeddable, embed, fingerprint, packet, packet_texts, read_texts
from captioner.embed.texts import FilePerImage, Note, changed, short_digest
from captioner.errors import CaptionerError, ImageError, NoDecoderError, OptionError, OutputError, os_errors_as
from captioner.files import replacing, resemble, set_mode, status_of_writable
from captioner.images import display_name, reading, tars


def metadata_target(paths: Sequence[str], options: FolderOptions) -> Target:
    """Where captions go that become metadata of what paths name."""
    if options.kind == "xmp":
        return _XmpFiles(options)
    return _InPlace(options) if options.output is None else _Copies(Path(options.output), paths, options)


class _Copies(FilePerImage):
    """A copy of each image in another folder, with its caption inside.

    What lies in a folder that was named gets the same place below the new one; a file that was named lies
    there by its name. What a list names keeps its whole path.
    """

    check = staticmethod(check_embeddable)

    def __init__(self, folder: Path, paths: Sequence[str], options: FolderOptions) -> None:
        super().__init__(options)
        self._folder_of_copies, self._top = folder, os.path.realpath(folder)
        named = [Path(path) for path in paths]
        self._folders = {path for path in named if path.is_dir()}
        self._files = {path for path in named if path not in self._folders}
        for path in self._folders if options.recursive else ():
            if _lies_in(self._top, os.path.realpath(path)):
                raise OptionError(
                    f"`output` {folder}: lies in {path}, whose images are captioned",
                    "choose another folder, or `in_place` for the images themselves",
                )

    def key(self, image: str) -> bytes:
        if _lies_in(self._real(Path(image).parent), self._top):
            raise OptionError(f"{display_name(image)}: lies in `output`, which is for copies alone")
        return super().key(image)

    def open(self, settings: Settings) -> Store:
        if self._folder_of_copies.exists() and not self._folder_of_copies.is_dir():
            raise OutputError(f"`output` {self._folder_of_copies}: is a file", "`embed` takes a folder for copies")
        return super().open(settings)

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        for folder in path.parents:
            if folder in self._folders:
                return self._folder_of_copies / path.relative_to(folder)
        if path in self._files:
            return self._folder_of_copies / path.name
        parts = [part for part in path.relative_to(path.anchor).parts if part != ".."]
        return self._folder_of_copies.joinpath(*parts)

    def _put(self, image: str, caption: str, identity: reading.Identity) -> None:
        original, copy = Path(image), self._file_of(image)
        data = self._read_same(original, identity)
        iptc = self._options.embed_iptc
        content = embed(data, caption, display_name(image), overwrite=self._overwrite, iptc=iptc)
        with os_errors_as(CaptionerError, f"cannot write {display_name(copy)}: "):
            copy.parent.mkdir(parents=True, exist_ok=True)
            before = original.stat()
        with replacing(copy) as file:
            file.write(content)
            # What others may not read, they may not read in a copy.
            set_mode(file, before.st_mode & os.fstat(file.fileno()).st_mode)
            self._note.about(identity, content).write(file)
            if self._options.keep_date:
                _set_date(file, before)


class _Merged(FilePerImage):
    """Files that hold more than a caption. One with an alt text is done, whatever wrote it.

    An image whose metadata alone have changed is the same image.
    """

    def _read(self, file: Path) -> Texts:
        """What a file says."""
        raise NotImplementedError

    def state(self, item: tars.Item, seen: Seen | None = None) -> State:
        image, file = Path(str(item)), self._file_of(str(item))
        if self._overwrite or not file.is_file():  # a pipe, for one, must not be opened
            return State.DUE
        try:
            texts = None if (note := Note.read(file)) and note.size == _stamp(image.stat()) else self._read(file)
        except (OSError, ValueError, ImageError):  # reading it as an image will say what is wrong
            return State.DUE
        if note is None:
            return State.DONE if texts and texts.alt_text else State.DUE
        self._check(note, file)
        if texts is None or not self._has_changed(image, note, 0):
            return State.DONE
        return State.CHANGED if short_digest(texts.alt_text.encode()) == note.caption else State.LEFT

    def _digest(self, data: bytes) -> str:
        return super()._digest(fingerprint(data))

    def _own(self, file: Path) -> str:
        """The caption that an earlier run has put into a file; empty if there is none, or it was edited."""
        if (note := Note.read(file)) is None:
            return ""
        alt_text = self._read(file).alt_text
        return alt_text if short_digest(alt_text.encode()) == note.caption else ""

    def _note_of(self, identity: reading.Identity, caption: str, data: bytes, status: os.stat_result) -> Note:
        """The note of an image, as it is now: content and status."""
        note = self._note.about(identity, caption.encode())
        return replace(note, size=_stamp(status), image=self._digest(data))


class _InPlace(_Merged):
    """The images themselves, with their captions inside."""

    check = staticmethod(check_embeddable)

    def _file_of(self, image: str) -> Path:
        """The image; a link stays a link, and what it leads to is written."""
        return Path(os.path.realpath(image))

    def _read(self, file: Path) -> Texts:
        with file.open("rb") as image:
            return read_texts(image, display_name(file))

    def _put(self, image: str, caption: str, identity: reading.Identity) -> None:
        path, iptc = self._file_of(image), self._options.embed_iptc
        data = self._read_same(path, identity)
        with os_errors_as(CaptionerError, f"cannot write {display_name(path)}: "):
            own = self._own(path)
            content = embed(data, caption, display_name(image), own=own, overwrite=self._overwrite, iptc=iptc)
            before = status_of_writable(path, display_name(path))
            with replacing(path) as file:
                file.write(content)
                file.flush()
                resemble(file, path, before)
                if self._options.keep_date:
                    _set_date(file, before)
                self._note_of(identity, caption, content, os.fstat(file.fileno())).write(file)
                if _stamp(path.stat()) != _stamp(before):
                    raise changed(path)


class _XmpFiles(_Merged):
    """An XMP file beside each image, which photo managers read in its place; one that is there is added to."""

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        name = path.stem if self._options.sidecar_name == "stem" else path.name
        return Path(os.path.realpath(path.with_name(f"{name}.xmp") if name else path))

    def _read(self, file: Path) -> Texts:
        return packet_texts(file.read_bytes())

    def _put(self, image: str, caption: str, identity: reading.Identity) -> None:
        path, file = Path(image), self._file_of(image)
        data, described = self._read_same(path, identity), self._is_described_beside(path, file)
        try:
            described |= bool(read_texts(io.BytesIO(data), display_name(image)).description)
        except ImageError as error:  # metadata that are damaged keep no program from reading the file beside them
            if isinstance(error, NoDecoderError):
                raise
        with os_errors_as(CaptionerError, f"cannot write {display_name(file)}: "):
            before = file.read_bytes() if file.exists() and status_of_writable(file, display_name(file)) else None
            try:
                own = self._own(file) if before else ""
                content = packet(before or None, caption, described=described, own=own, overwrite=self._overwrite)
            except ValueError as error:
                raise ImageError(f"{display_name(file)}: stays as it is ({error})", "move it away") from error
            with replacing(file) as new:
                new.write(content)
                if before is not None:
                    new.flush()
                    resemble(new, file, file.stat())
                self._note_of(identity, caption, data, path.stat()).write(new)
                if before is not None and file.read_bytes() != before:
                    raise changed(file)

    def _is_described_beside(self, image: Path, file: Path) -> bool:
        """Whether a person has described an image in the XMP file of the other name, which programs read less."""
        for name in {image.name, image.stem}:
            other = Path(os.path.realpath(image.with_name(f"{name}.xmp")))
            if other != file and other.is_file():
                with suppress(OSError, ValueError):  # it is damaged, and shown by nothing
                    description = self._read(other).description
                    if description and description != self._own(other):
                        return True
        return False


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}@{status.st_mtime_ns}"


def _set_date(file: BinaryIO, before: os.stat_result) -> None:
    """Give a file the date of the one that it replaces or copies."""
    file.flush()
    with suppress(TypeError, NotImplementedError, OSError):  # no such thing on this system, or here
        os.utime(file.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
