"""Captions in a file for each image: texts and XMP beside the images, copies of them, or the images themselves."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from captioner.bulk import run
from captioner.bulk.options import FolderOptions, joined
from captioner.bulk.output import Settings, State, Target
from captioner.bulk.store import Seen, Store
from captioner.caption import Caption
from captioner.embed.embedding import Texts, check_embeddable, embed, fingerprint, packet, packet_texts, read_texts
from captioner.errors import CaptionerError, ImageError, NoDecoderError, OptionError, OutputError, os_errors_as
from captioner.files import replacing, resemble, set_mode, status_of_writable
from captioner.images import display_name, printable, read_file, tars
from captioner.images.reading import Identity, digest_of
from captioner.progress import Progress, Summary
from captioner.records import Captions, Record

if TYPE_CHECKING:
    from captioner.captioner import Captioner

_ATTRIBUTE = "user.captioner"
_LONGEST_BLANK = 1 << 12  # bytes
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def caption_folder(
    paths: Sequence[str], options: FolderOptions, model: run.Model | Captioner, progress: Progress | None = None
) -> Summary:
    """Caption what paths name and what is not captioned yet; with ``watch`` until Ctrl-C.

    Args:
        paths: files and folders.
        options: what, where and how.
        model: a captioner, whose decoding options hold; or how one is loaded if there is something to caption.
        progress: shows failures and how far the run is; without it failures are shown only.

    Raises:
        CaptionerError: wrong use, nothing to caption, or an output that cannot be written.
    """
    target: Target | None = None
    if options.kind == "sidecar":
        target = _Sidecars(options)
    elif options.kind == "xmp":
        target = _XmpFiles(options)
    elif options.embed:
        target = _InPlace(options) if options.output is None else _Copies(Path(options.output), paths, options)
    return run.caption_folder(paths, options, model, progress, target)


caption_inside = caption_folder  # its name when it was for captions inside images alone


@dataclass(frozen=True)
class _Note:
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
    def of_settings(cls, settings: Settings) -> _Note:
        """What the files of a run have in common."""
        groups = (("weights", "encoder", "image_size", "resize"), ("decoding", "precision"), ("prepend", "append"))
        parts = [{name: settings.get(name) for name in names} for names in groups]
        return cls(*(_short_digest(json.dumps(part, sort_keys=True).encode()) for part in parts))

    def about(self, identity: Identity, content: bytes) -> _Note:
        """The note of one file."""
        image, pixels = identity.digest[:8].hex(), identity.pixels[:8].hex()
        return replace(self, size=str(identity.size), image=image, caption=_short_digest(content), pixels=pixels)

    def write(self, file: BinaryIO) -> None:
        """Attach it to a file that is being written, where the file system lets one."""
        with suppress(AttributeError, OSError):  # no such thing on this system, or here
            os.setxattr(file.fileno(), _ATTRIBUTE, " ".join(vars(self).values()).rstrip().encode())

    @classmethod
    def read(cls, path: Path) -> _Note | None:
        """The note of a file; None if it has none, or one that this version does not know."""
        try:
            parts = os.getxattr(path, _ATTRIBUTE).decode().split(" ")
            return cls(*parts) if 0 <= len(cls.__match_args__) - len(parts) <= 1 else None
        except (AttributeError, OSError, UnicodeDecodeError):  # no such thing on this system, or here
            return None

    def differences(self, other: _Note) -> str:
        """In words, in which settings two notes differ; empty if in none."""
        names = {"model": "weights", "decoding": "decoding options", "texts": "`prepend` or `append`"}
        return " and ".join(name for key, name in names.items() if getattr(self, key) != getattr(other, key))


def _short_digest(data: bytes) -> str:
    """Enough of a digest to see a change by."""
    return digest_of(data, 4).hex()


def _changed(path: Path) -> ImageError:
    """What is wrong with an image that is another one than a moment ago."""
    return ImageError(f"{display_name(path)}: was changed during the run", "the same command captions it anew")


class _FilePerImage(Target):
    """A file for each image.

    An image whose file is there is done, whatever wrote it. What a file was made of and with is noted in an
    extended attribute of it, where the file system has these; it moves along with the file. Processes may
    write into one folder at the same time.
    """

    keyed = True

    def __init__(self, options: FolderOptions) -> None:
        self._options = options
        self._overwrite = options.existing == "overwrite"
        self.check = check_embeddable if options.embed else None
        self._note = _Note("", "", "")
        self._folder = ("", "")  # the last one, and what it really is

    def _file_of(self, image: str) -> Path:
        """The file that an image's caption goes to."""
        raise NotImplementedError

    def _put(self, image: str, caption: str, identity: Identity) -> None:
        """Write an image's file, with its note."""
        raise NotImplementedError

    def _read_same(self, path: Path, identity: Identity) -> bytes:
        """The bytes of an image that must still be those that were captioned."""
        data = read_file(path, max_pixels=self._options.pixel_limit)
        if digest_of(data) != identity.digest:
            raise _changed(path)
        return data

    def key(self, image: str) -> bytes:
        """The file, by its real folder: two images must not share it."""
        file = self._file_of(image)
        return os.fsencode(f"{self._real(file.parent)}/{file.name}")

    def shared(self, image: str) -> tuple[str, str]:
        return f"captioned in {display_name(self._file_of(image).name)}", super().shared(image)[1]

    def _real(self, folder: Path) -> str:
        name = os.fspath(folder)
        if self._folder[0] != name:
            self._folder = (name, os.path.realpath(name))
        return self._folder[1]

    def open(self, settings: Settings) -> Store:
        self._note = _Note.of_settings(settings)
        return super().open(settings)

    def state(self, item: tars.Item, seen: Seen | None = None) -> State:
        image = str(item)
        file = self._file_of(image)
        try:
            written = file.stat().st_mtime_ns
        except (OSError, ValueError):  # absent, or it cannot be: then writing it says why
            return State.DUE
        if self._overwrite:
            return State.DUE
        if (note := _Note.read(file)) is None:
            return State.DONE
        self._check(note, file)
        if not self._has_changed(Path(image), note, written):
            return State.DONE
        return State.CHANGED if _short_digest(file.read_bytes()) == note.caption else State.LEFT

    def _check(self, note: _Note, file: Path) -> None:
        """Refuse a file that was not made with the settings of this run."""
        if differing := self._note.differences(note):
            raise OutputError(
                f"{display_name(file)}: was made with other {differing}",
                "give the same to go on, or `overwrite` to caption everything anew",
            )

    def _has_changed(self, image: Path, note: _Note, written: int) -> bool:
        try:
            status = image.stat()
            if status.st_mtime_ns <= written and str(status.st_size) == note.size:
                return False
            return self._digest(read_file(image, max_pixels=self._options.pixel_limit)) != note.image
        except (OSError, ImageError):
            return False  # it has gone, or cannot be read: what was seen of it stands

    def _digest(self, data: bytes) -> str:
        """As much of the digest of an image as there is room for."""
        return digest_of(data)[:8].hex()

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
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


class _Sidecars(_FilePerImage):
    """A text file beside each image: ``photo.txt`` or ``photo.jpg.txt``. One in which nothing stands is not done."""

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        name = path.name if self._options.sidecar_name == "full" else path.stem
        return path.with_name(name + self._options.sidecar_ending) if path.name else path

    def shared(self, image: str) -> tuple[str, str]:
        what, advice = super().shared(image)
        if self._options.sidecar_name != "full":
            name = Path(display_name(image)).name
            advice = f"`sidecar_name` full takes {name}{self._options.sidecar_ending} for the first"
        return what, advice

    def state(self, item: tars.Item, seen: Seen | None = None) -> State:
        file = self._file_of(str(item))
        if _is_blank(file):
            return State.DUE
        if self._options.existing in ("append", "prepend") and file.is_file():
            note = _Note.read(file)  # of these settings only if the caption has been added
            if note is None or self._note.differences(note):
                return State.DUE
        return super().state(item, seen)

    def standing(self, record: Record) -> Captions | None:
        file, seen = self._file_of(record.name), record.identity
        note = _Note.read(file)
        if note is None or seen is None or not note.pixels or note.pixels != seen.pixels[:8].hex():
            return None
        text = file.read_bytes()
        return (Caption(text.decode().removesuffix("\n"), 0.0),) if _short_digest(text) == note.caption else None

    def _put(self, image: str, caption: str, identity: Identity) -> None:
        file = Path(os.path.realpath(self._file_of(image)))  # a link stays a link
        content = f"{caption}\n".encode()
        note = self._note.about(identity, content)
        with os_errors_as(CaptionerError, f"cannot write {display_name(file)}: "):
            before = status_of_writable(file, display_name(file)) if file.exists() else None
            is_kept = before is not None and not self._overwrite and not _is_blank(file)
            if is_kept:
                there, old = file.read_bytes(), _Note.read(file)
                if old is None or old.caption != _short_digest(there) or self._note.differences(old):
                    # What is noted differs from the content: that is not this program's alone, and never replaced.
                    note = self._note.about(identity, caption.encode())
                    content = self._added(there, caption, file)
            with replacing(file) as output:
                output.write(content)
                if before is not None and is_kept:
                    set_mode(output, before.st_mode)
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


class _Copies(_FilePerImage):
    """A copy of each image in another folder, with its caption inside.

    What lies in a folder that was named gets the same place below the new one; a file that was named lies
    there by its name. What a list names keeps its whole path.
    """

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

    def _put(self, image: str, caption: str, identity: Identity) -> None:
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


class _Merged(_FilePerImage):
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
            texts = None if (note := _Note.read(file)) and note.size == _stamp(image.stat()) else self._read(file)
        except (OSError, ValueError, ImageError):  # reading it as an image will say what is wrong
            return State.DUE
        if note is None:
            return State.DONE if texts and texts.alt_text else State.DUE
        self._check(note, file)
        if texts is None or not self._has_changed(image, note, 0):
            return State.DONE
        return State.CHANGED if _short_digest(texts.alt_text.encode()) == note.caption else State.LEFT

    def _digest(self, data: bytes) -> str:
        return super()._digest(fingerprint(data))

    def _own(self, file: Path) -> str:
        """The caption that an earlier run has put into a file; empty if there is none, or it was edited."""
        if (note := _Note.read(file)) is None:
            return ""
        alt_text = self._read(file).alt_text
        return alt_text if _short_digest(alt_text.encode()) == note.caption else ""

    def _note_of(self, identity: Identity, caption: str, data: bytes, status: os.stat_result) -> _Note:
        """The note of an image, as it is now: content and status."""
        note = self._note.about(identity, caption.encode())
        return replace(note, size=_stamp(status), image=self._digest(data))


class _InPlace(_Merged):
    """The images themselves, with their captions inside."""

    def _file_of(self, image: str) -> Path:
        """The image; a link stays a link, and what it leads to is written."""
        return Path(os.path.realpath(image))

    def _read(self, file: Path) -> Texts:
        with file.open("rb") as image:
            return read_texts(image, display_name(file))

    def _put(self, image: str, caption: str, identity: Identity) -> None:
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
                    raise _changed(path)


class _XmpFiles(_Merged):
    """An XMP file beside each image, which photo managers read in its place; one that is there is added to."""

    def _file_of(self, image: str) -> Path:
        path = Path(image)
        name = path.stem if self._options.sidecar_name == "stem" else path.name
        return Path(os.path.realpath(path.with_name(f"{name}.xmp") if name else path))

    def _read(self, file: Path) -> Texts:
        return packet_texts(file.read_bytes())

    def _put(self, image: str, caption: str, identity: Identity) -> None:
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
                    raise _changed(file)

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


def _is_blank(file: Path) -> bool:
    """Whether a file holds nothing but blanks and marks of an encoding."""
    try:
        if not file.is_file() or file.stat().st_size > _LONGEST_BLANK:
            return False
        data = file.read_bytes().replace(b"\0", b"").strip(b"\xef\xbb\xbf\xff\xfe")
        return not data.decode(errors="replace").strip()
    except (OSError, ValueError):  # reading or writing it says why
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
