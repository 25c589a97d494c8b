"""Captions in one file, which a run can be interrupted at and go on with."""

import enum
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from captioner import __version__
from captioner.bulk.options import FolderOptions
from captioner.bulk.reading import has_changed
from captioner.bulk.records import Entry, Line
from captioner.bulk.store import DamagedJournalError, Journal, Key, remove_journal
from captioner.bulk.tars import Item, TarReader
from captioner.bulk.writers import Writer, encoded
from captioner.errors import CaptionerError, OutputError, os_errors_as
from captioner.files import replacing

Settings = dict[str, object]


def output_settings(model: Mapping[str, object], options: FolderOptions, whole: Mapping[str, int]) -> Settings:
    """Everything that a caption, or what is written of it, depends on besides its image.

    Args:
        model: of the model and its decoding.
        options: of the run.
        whole: how much all shards have to do, if there are any: shards of lists that differ overlap.
    """
    settings = {
        "captioner": __version__,
        **model,
        "format": options.kind,
        "log_prob": options.log_prob,
        "prepend": options.prepend or "",
        "append": options.append or "",
    }
    if options.kind == "html" and options.link_folder is not None:  # links to images depend on it
        settings["folder"] = os.path.relpath(Path.cwd(), options.link_folder)
    return settings if options.shard is None else {**settings, "shard": options.shard, **whole}


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """In words, how settings differ; empty if they do not. The version is noted, but may differ."""
    return ", ".join(_differences(old, new))


def check_same(output: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Accept to go on with an output.

    Raises:
        OutputError: it was begun with other settings.
    """
    if differing := differences(old, new):
        raise OutputError(
            f"{output}: was begun with {differing}",
            "give the same options to go on, or `overwrite` to begin anew",
        )


def _differences(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now)
        elif before != now and name != "captioner":
            yield f"{name} {_shown(before)}, not {_shown(now)}"


def _shown(value: object) -> str:
    return "none" if value in (None, "") else str(value)


class State(enum.Enum):
    """What is to be done with an image."""

    DUE = "caption"
    DONE = "skip"
    CHANGED = "caption anew"
    LEFT = "leave"  # the image has changed, but its caption was edited by hand


class Target(Protocol):
    """Where captions go. The methods are called in this order."""

    def key(self, image: str) -> Key | None:
        """What only one image may have, such as the file that its caption goes to; None for nothing."""

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """Look at what is there, without changing it.

        Raises:
            OutputError: this run cannot write there, or would mix its captions with others.
        """

    def state(self, item: Item) -> State:
        """What is to be done with an image; asked for each in order, before anything is written.

        Raises:
            OutputError: as :meth:`open`.
        """

    def begin(self) -> None:
        """Make ready for writing."""

    def forget(self, images: Iterable[str]) -> None:
        """Drop what was written of failures that are no more, such as a tar that was missing."""

    def captions_of(self, digest: bytes) -> tuple[Line, ...] | None:
        """Captions of a file with this content, if there are any."""

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write a batch, so that it survives the process.

        Returns:
            The entries as they were written; some may have failed on the way.

        Raises:
            OutputError: the disk is full, or the like.
        """

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """Make the output whole.

        Args:
            images: all images of the run, in order.
            complete: all of them have been written.
        """

    def close(self) -> None:
        """Let others have it; also called after failures, and before :meth:`begin`."""


class StandardOutput:
    """Prints records as they come, and remembers nothing."""

    def __init__(self, writer: Writer, number: Callable[[str], int | None]) -> None:
        self._writer, self.key = writer, number
        self._separator = ""

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """See :class:`Target`."""

    def state(self, item: Item) -> State:
        """See :class:`Target`."""
        return State.DUE

    def begin(self) -> None:
        """See :class:`Target`."""
        self._print(self._writer.header)

    def forget(self, images: Iterable[str]) -> None:
        """See :class:`Target`."""

    def captions_of(self, digest: bytes) -> None:
        """See :class:`Target`."""

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """See :class:`Target`."""
        for entry in entries:
            if record := self._writer.record(entry):
                self._print(self._separator + record)
                self._separator = self._writer.separator
        sys.stdout.flush()
        return list(entries)

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """See :class:`Target`."""
        self._print(self._writer.footer)

    def close(self) -> None:
        """See :class:`Target`."""

    def _print(self, text: str) -> None:
        sys.stdout.write(text)


JOURNAL_ENDING = ".journal"
_BLOCK_BYTES = 1 << 20
_SAFE = "what is written is whole, and the same command without `overwrite` goes on"


class OutputFile:
    """One file, with a journal beside it (see :mod:`captioner.bulk.store`); a target.

    Formats that grow are appended to, batch by batch. Where that is not possible (a format that cannot grow,
    new images between old ones, a changed image) the file is replaced at the end, all at once.

    Args:
        path: the file.
        writer: its format.
        number: numbers of images, for formats that need them.
        max_pixels: of images, see :func:`captioner.bulk.reading.has_changed`.
    """

    def __init__(self, path: Path, writer: Writer, number: Callable[[str], int | None], *, max_pixels: int) -> None:
        # A link stays a link, and what it leads to is written.
        self.path = Path(os.path.realpath(path))
        self.key = number
        self._writer, self._max_pixels = writer, max_pixels
        self._tars = TarReader()
        self._journal: Journal | None = None
        self._file: GrowingFile | None = None
        self._settings: Settings = {}
        self._anew = False  # with an empty journal
        self._last_place, self._new_before = 0, False
        self._disorder = False  # the order of the journal is not that of the images
        self._at_end = False  # the file is replaced when everything is known

    def open(self, settings: Settings, *, overwrite: bool) -> None:
        """See :class:`captioner.bulk.output.Target`."""
        self._settings, self._anew = settings, overwrite
        with os_errors_as(OutputError, f"cannot write {self.path}: "):
            exists = self._is_there()
        self._journal = self._open_journal(overwrite=overwrite)
        if overwrite:
            return
        if self._journal is None or self._journal.settings is None:
            self._anew = True
            if exists:
                raise OutputError(
                    f"{self.path}: is there already, and no journal tells how to go on with it",
                    "choose another `output`, or `overwrite`",
                )
            return
        check_same(self.path, self._journal.settings, settings)
        if exists and not self._journal.stale and not self._follows(self._journal):
            raise OutputError(
                f"{self.path}: was changed by somebody else",
                "move it away, or `overwrite` to lose the change",
            )

    def _is_there(self) -> bool:
        if self.path.is_dir():
            raise OutputError(f"`output` {self.path}: is a folder", "give a file in it")
        if self.path.exists() and not self.path.is_file():
            raise OutputError(f"`output` {self.path}: is no regular file", "leave out `output` to print instead")
        if not self.path.parent.is_dir():
            raise OutputError(f"`output` {self.path}: there is no folder {self.path.parent}")
        journal_of(self.path).exists()  # its name may be too long
        return self.path.exists() and self.path.stat().st_size > 0

    def _open_journal(self, *, overwrite: bool) -> Journal | None:
        path = journal_of(self.path)
        if not path.exists():
            return None
        try:
            return Journal(path, new=False)
        except DamagedJournalError:
            if not overwrite:
                raise
            remove_journal(path)
            return None

    def _follows(self, journal: Journal) -> bool:
        """Whether the file is what was written; its end may be missing where it grows."""
        grows = self._writer.grows
        if not grows and journal.finished is None:
            return False
        entries = journal.entries(up_to=None if grows else journal.finished)
        with self.path.open("rb") as file:
            for piece in self._writer.pieces(entries):
                found = file.read(len(piece))
                if found != piece:
                    return grows and piece.startswith(found) and not file.read(1)
            return not file.read(1)

    def state(self, item: Item) -> State:
        """See :class:`captioner.bulk.output.Target`."""
        image = str(item)
        found = None if self._anew or self._journal is None else self._journal.find(image)
        if found is None:
            self._new_before = True
            return State.DUE
        entry, place = found
        if self._new_before or place < self._last_place:
            self._disorder = self._at_end = True
        self._last_place = place
        if entry.error is not None:
            return State.DUE
        if entry.image_id != self.key(image):
            return State.CHANGED
        changed = has_changed(item, entry.identity, self._tars, max_pixels=self._max_pixels)
        return State.CHANGED if changed else State.DONE

    def begin(self) -> None:
        """See :class:`captioner.bulk.output.Target`."""
        if self._journal is None:
            self._journal = Journal(journal_of(self.path), new=True)
        if self._anew:
            self._journal.begin(self._settings, stale=self.path.exists())
        if self._writer.grows and not self._journal.stale:
            self._file = GrowingFile(self.path)
            self._file.complete(self._writer.pieces(self._journal.entries()))

    def forget(self, images: Iterable[str]) -> None:
        """See :class:`captioner.bulk.output.Target`."""
        self._at_end |= self._begun.forget(images)

    def captions_of(self, digest: bytes) -> tuple[Line, ...] | None:
        """See :class:`captioner.bulk.output.Target`."""
        return self._begun.captions_of(digest)

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """See :class:`captioner.bulk.output.Target`."""
        known = [self._begun.find(entry.image) for entry in entries]
        pairs = list(zip(entries, known, strict=True))
        replaced = any(found is not None and found[0].outcome != entry.outcome for entry, found in pairs)
        self._begun.commit(entries, stale=replaced)
        self._at_end |= replaced
        if self._writer.grows and not self._at_end:
            if self._file is None:  # there is another file, which has waited for something to replace it
                self._replace()
                self._file = GrowingFile(self.path)
            else:
                new = (self._writer.record(entry) for entry, found in pairs if found is None)
                self._file.append(encoded("".join(new)))
        return list(entries)

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """See :class:`captioner.bulk.output.Target`."""
        journal = self._begun
        if self._disorder:
            journal.reorder(images)
        last = journal.last_place()
        if self._writer.grows:
            if journal.stale:
                self._replace()
        elif complete and (journal.stale or journal.finished != last or not self.path.exists()):
            journal.note(stale=True)
            self._replace(finished=last)
        if complete:
            journal.note(finished=last)

    def _replace(self, **state: object) -> None:
        try:
            with replacing(self.path) as file:
                for piece in self._writer.pieces(self._begun.entries()):
                    file.write(piece)
        except CaptionerError as error:
            raise OutputError(str(error), _SAFE) from error
        self._begun.note(stale=False, **state)

    @property
    def _begun(self) -> Journal:
        assert self._journal is not None, "begin() comes first"
        return self._journal

    def close(self) -> None:
        """See :class:`captioner.bulk.output.Target`."""
        self._tars.close()
        if self._journal is not None:
            self._journal.close()
        if self._file is not None:
            self._file.close()


class GrowingFile:
    """A file that whole records are appended to: all of them that are given together, or none.

    Args:
        path: the file; created if absent.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with os_errors_as(OutputError, f"cannot write {self._path}: ", advice=_SAFE):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._length = os.fstat(self._handle).st_size

    def complete(self, pieces: Iterable[bytes]) -> None:
        """Append what is missing; the beginning is there already, the last record perhaps torn."""
        passed, missing = 0, bytearray()
        for piece in pieces:
            passed += len(piece)
            beyond = passed - self._length - len(missing)
            if beyond > 0:
                missing += piece[-beyond:]
            if len(missing) >= _BLOCK_BYTES:
                self.append(bytes(missing))
                missing.clear()
        self.append(bytes(missing))

    def append(self, data: bytes) -> None:
        """Append to the file and to the disk.

        Raises:
            OutputError: that is not possible; the file is as it was.
        """
        if not data:
            return
        with os_errors_as(OutputError, f"cannot write {self._path}: ", advice=_SAFE):
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
                os.fsync(self._handle)
            except BaseException:
                os.ftruncate(self._handle, self._length)
                raise
        self._length += len(data)

    def close(self) -> None:
        """Close it."""
        os.close(self._handle)


def journal_of(path: Path) -> Path:
    """Where the journal of an output file lies."""
    return path.with_name(path.name + JOURNAL_ENDING)
