"""``captioner caption --embed``: captions inside images, in copies of them or in the files themselves."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from captioner.bulk import output, records
from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Model, Progress, Summary, caption_folder
from captioner.bulk.sidecars import FilePerImage, Note, changed, image_digest, short_digest
from captioner.embed.embedding import Texts, check_embeddable, embed, read_texts
from captioner.errors import CaptionerError, ImageError, OptionError, OutputError, os_errors_as
from captioner.files import replacing
from captioner.images import display_name

if TYPE_CHECKING:
    from captioner.captioner import Captioner


def caption_inside(
    paths: Sequence[str], options: FolderOptions, model: Model | Captioner, progress: Progress | None = None
) -> Summary:
    """Caption what paths name, and write the captions into the images; see :func:`caption_folder`.

    Raises:
        CaptionerError: as :func:`caption_folder`, or copies would lie among the images.
    """
    target: FilePerImage
    if options.output is None:
        target = _InPlace(max_pixels=options.pixel_limit)
    else:
        target = _Copies(Path(options.output), paths, options)
    return caption_folder(paths, options, model, progress, target=target, check=check_embeddable)


class _Copies(FilePerImage):
    """A copy of each image in another folder, with its caption inside.

    What lies in a folder that was named gets the same place below the new one; a file that was named lies
    there by its name. What a list names keeps its whole path.
    """

    def __init__(self, folder: Path, paths: Sequence[str], options: FolderOptions) -> None:
        super().__init__(max_pixels=options.pixel_limit)
        self._folder_of_copies = folder
        self._top = os.path.realpath(folder)
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

    def open(self, settings: output.Settings, *, overwrite: bool) -> None:
        if self._folder_of_copies.exists() and not self._folder_of_copies.is_dir():
            raise OutputError(f"`output` {self._folder_of_copies}: is a file", "`embed` takes a folder for copies")
        super().open(settings, overwrite=overwrite)

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        for folder in path.parents:
            if folder in self._folders:
                return self._folder_of_copies / path.relative_to(folder)
        if path in self._files:
            return self._folder_of_copies / path.name
        parts = [part for part in path.relative_to(path.anchor).parts if part != ".."]
        return self._folder_of_copies.joinpath(*parts)

    def _put(self, image: str, caption: str, identity: records.Identity) -> None:
        original, copy = Path(image), self._file_of(image)
        data = self._read_same(original, identity)
        content = embed(data, caption, display_name(image), overwrite=self._overwrite)
        with os_errors_as(CaptionerError, f"cannot write {display_name(copy)}: "):
            copy.parent.mkdir(parents=True, exist_ok=True)
            mode = original.stat().st_mode
        with replacing(copy) as file:
            file.write(content)
            # What others may not read, they may not read in a copy.
            _set_mode(file, mode & os.fstat(file.fileno()).st_mode)
            self._note.about(identity, content).write(file)


class _InPlace(FilePerImage):
    """The images themselves, with their captions inside. An image that has an alt text is done, whatever wrote it."""

    def _file_of(self, image: str) -> Path:
        """The image; a link stays a link, and what it leads to is written."""
        return Path(os.path.realpath(image))

    def state(self, item: records.Item) -> output.State:
        file = self._file_of(str(item))
        if self._overwrite or not file.is_file():  # a pipe, for one, must not be opened
            return output.State.DUE
        try:
            texts = None if (note := Note.read(file)) and note.size == _stamp(file.stat()) else _texts(file)
        except (OSError, ValueError, ImageError):  # reading it as an image will say what is wrong
            return output.State.DUE
        if note is None:
            return output.State.DONE if texts and texts.alt_text else output.State.DUE
        self._check(note, file)
        if texts is None or not self._has_changed(file, note, 0):
            return output.State.DONE
        return output.State.CHANGED if short_digest(texts.alt_text.encode()) == note.caption else output.State.LEFT

    def _put(self, image: str, caption: str, identity: records.Identity) -> None:
        path = self._file_of(image)
        data = self._read_same(path, identity)
        with os_errors_as(CaptionerError, f"cannot write {display_name(path)}: "):
            content = embed(data, caption, display_name(image), own=_own(path), overwrite=self._overwrite)
            before = path.stat()
            if not before.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
                raise ImageError(f"{display_name(image)}: is write-protected, and stays as it is")
            with replacing(path) as file:
                file.write(content)
                file.flush()
                _resemble(file, path, before)
                stamp = _stamp(os.fstat(file.fileno()))
                note = self._note.about(identity, caption.encode())
                replace(note, size=stamp, image=image_digest(content)).write(file)
                if _stamp(path.stat()) != _stamp(before):
                    raise changed(path)


def _texts(file: Path) -> Texts:
    with file.open("rb") as image:
        return read_texts(image, display_name(file))


def _own(path: Path) -> str:
    """The caption that an earlier run has put into an image; empty if there is none, or it was edited."""
    note = Note.read(path)
    if note is None:
        return ""
    alt_text = _texts(path).alt_text
    return alt_text if short_digest(alt_text.encode()) == note.caption else ""


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}@{status.st_mtime_ns}"


def _resemble(file: BinaryIO, path: Path, before: os.stat_result) -> None:
    """Give a file the owner, permissions and extended attributes of the one that it replaces."""
    with suppress(AttributeError, OSError):  # only an administrator may give files away
        os.fchown(file.fileno(), before.st_uid, before.st_gid)
    _set_mode(file, before.st_mode)
    with suppress(AttributeError, OSError):  # no such thing on this system, or here
        for name in os.listxattr(path):
            with suppress(OSError):  # some are the system's own
                os.setxattr(file.fileno(), name, os.getxattr(path, name))


def _set_mode(file: BinaryIO, mode: int) -> None:
    with suppress(AttributeError, OSError):  # no such thing on this system, or here
        os.fchmod(file.fileno(), stat.S_IMODE(mode))


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
