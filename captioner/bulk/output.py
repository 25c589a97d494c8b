"""Where captions go: the terminal, or one file with a journal, so that an interrupted run can go on."""

import enum
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from captioner import __version__
from captioner.bulk import reading, sources, store, tars, writers
from captioner.bulk.options import FolderOptions
from captioner.bulk.records import Captions, Item, Record
from captioner.errors import CaptionerError, OutputError, os_errors_as
from captioner.files import replacing

Settings = dict[str, object]

_BLOCK_BYTES = 1 << 20
_SAFE = "what is written is whole, and the same command without `overwrite` goes on"


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
    """In words, how settings differ; empty if they do not. The version is recorded, but may differ."""
    found = []
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found.append(differences(before, now))
        elif before != now and name != "captioner":
            # What is recorded keeps its old noun, so that runs that were begun with it go on.
            found.append(f"{name.replace('pictures', 'images')} {_shown(before)}, not {_shown(now)}")
    return ", ".join(filter(None, found))


def check_same(output: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Check that this run can go on with an output.

    Raises:
        OutputError: it was begun with other settings.
    """
    if differing := differences(old, new):
        raise OutputError(
            f"{output}: was begun with {differing}", "give the same options to go on, or `overwrite` to begin anew"
        )


def _shown(value: object) -> str:
    return "none" if value in (None, "") else str(value)


class State(enum.Enum):
    """What is to be done with an image."""

    DUE = "caption"
    DONE = "skip"
    CHANGED = "caption anew"
    LEFT = "leave"  # the image has changed, but its caption was edited by hand


class Target:
    """Where captions go. The methods are called in this order; a target overrides those that mean something to it."""

    def key(self, image: str) -> sources.Key | None:
        """What only one image may have, such as the file that its caption goes to; None for nothing."""
        raise NotImplementedError

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
        return State.DUE

    def begin(self) -> None:
        """Get ready for writing."""

    def forget(self, images: Iterable[str]) -> None:
        """Drop what was written of failures that no longer exist, such as a tar that was missing."""

    def captions_of(self, digest: bytes) -> Captions | None:
        """Captions of a file with this content, if there are any."""
        return None

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
        """Write a batch, so that it survives the process.

        Returns:
            The records as they were written; some may have failed on the way.

        Raises:
            OutputError: the disk is full, or the like.
        """
        raise NotImplementedError

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        """Make the output whole.

        Args:
            images: all images of the run, in order.
            complete: all of them have been written.
        """

    def close(self) -> None:
        """Let others have it; also called after failures, and before :meth:`begin`."""


def file_or_terminal(options: FolderOptions, *, several: bool) -> Target:
    """One file, or standard output, for captions.

    Args:
        options: which format, and where.
        several: there may be several captions for each image.

    Raises:
        DatasetError: the annotations that have the numbers of images cannot be read.
    """
    writer: writers.Writer
    if options.kind == "text":
        writer = writers.Text(log_prob=options.log_prob)
    elif options.kind == "jsonl":
        writer = writers.JsonLines(several=several)
    elif options.kind == "html":
        writer = writers.Html(options.link_folder)
    elif options.kind == "imagefolder":
        writer = writers.ImageFolder(Path(options.output or "").parent)
    else:
        writer = writers.WRITERS[options.kind]()
    number = writers.CocoIds(options.annotations) if writer.names_by_number else writer.key
    if options.output is None:
        return _StandardOutput(writer, number)
    return _OutputFile(Path(options.output), writer, number, max_pixels=options.pixel_limit)


class _StandardOutput(Target):
    """Prints records as they come, and remembers nothing."""

    def __init__(self, writer: writers.Writer, number: Callable[[str], int | None]) -> None:
        self._writer, self._number = writer, number
        self._separator = ""

    def key(self, image: str) -> int | None:
        return self._number(image)

    def begin(self) -> None:
        sys.stdout.write(self._writer.header)

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
        for record in records:
            if text := self._writer.record(record):
                sys.stdout.write(self._separator + text)
                self._separator = self._writer.separator
        sys.stdout.flush()
        return records

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
        sys.stdout.write(self._writer.footer)


class _OutputFile(Target):
    """One file, with a journal beside it (see :mod:`captioner.bulk.store`); a target.

    Formats that grow are appended to, batch by batch. Where that is not possible (a format that cannot grow,
    new images between old ones, a changed image) the file is replaced at the end, all at once.
    """

    def __init__(
        self, path: Path, writer: writers.Writer, number: Callable[[str], int | None], *, max_pixels: int
    ) -> None:
        # A link stays a link, and what it leads to is written.
        self.path = Path(os.path.realpath(path))
        self._writer, self._number, self._max_pixels = writer, number, max_pixels
        self._tars = tars.TarReader()
        self._journal: store.Journal | None = None
        self._file: _GrowingFile | None = None
        self._settings: Settings = {}
        self._anew = False  # with an empty journal
        self._last_place, self._new_before = 0, False
        self._disorder = False  # the order of the journal is not that of the images
        self._at_end = False  # the file is replaced when everything is known

    def key(self, image: str) -> int | None:
        return self._number(image)

    def open(self, settings: Settings, *, overwrite: bool) -> None:
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
                    f"{self.path}: is there already, and no journal of a run lies beside it",
                    "choose another `output`, or `overwrite`",
                )
            return
        check_same(self.path, self._journal.settings, settings)
        if exists and not self._journal.stale and not self._follows(self._journal):
            raise OutputError(
                f"{self.path}: was changed by another program", "move it away, or `overwrite` to lose the change"
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

    def _open_journal(self, *, overwrite: bool) -> store.Journal | None:
        path = journal_of(self.path)
        if not path.exists():
            return None
        try:
            return store.Journal(path, new=False)
        except store.DamagedJournalError:
            if not overwrite:
                raise
            store.remove_journal(path)
            return None

    def _follows(self, journal: store.Journal) -> bool:
        """Whether the file is what was written; its end may be missing where it grows."""
        grows = self._writer.grows
        if not grows and journal.finished is None:
            return False
        records = journal.records(up_to=None if grows else journal.finished)
        with self.path.open("rb") as file:
            for piece in self._writer.pieces(records):
                found = file.read(len(piece))
                if found != piece:
                    return grows and piece.startswith(found) and not file.read(1)
            return not file.read(1)

    def state(self, item: Item) -> State:
        image = str(item)
        found = None if self._anew or self._journal is None else self._journal.find(image)
        if found is None:
            self._new_before = True
            return State.DUE
        record, place = found
        if self._new_before or place < self._last_place:
            self._disorder = self._at_end = True
        self._last_place = place
        if record.error is not None:
            return State.DUE
        if record.image_id != self.key(image):
            return State.CHANGED
        changed = reading.has_changed(item, record.identity, self._tars, max_pixels=self._max_pixels)
        return State.CHANGED if changed else State.DONE

    def begin(self) -> None:
        if self._journal is None:
            self._journal = store.Journal(journal_of(self.path), new=True)
        if self._anew:
            self._journal.begin(self._settings, stale=self.path.exists())
        if self._writer.grows and not self._journal.stale:
            self._file = _GrowingFile(self.path)
            self._file.complete(self._writer.pieces(self._journal.records()))

    def forget(self, images: Iterable[str]) -> None:
        self._at_end |= self._begun.forget(images)

    def captions_of(self, digest: bytes) -> Captions | None:
        return self._begun.captions_of(digest)

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
        new, replaced = self._begun.commit(records)
        self._at_end |= replaced
        if self._writer.grows and not self._at_end:
            if self._file is None:  # there is another file, which has waited for something to replace it
                self._replace()
                self._file = _GrowingFile(self.path)
            else:
                self._file.append(writers.encoded("".join(map(self._writer.record, new))))
        return records

    def finish(self, images: Iterable[str], *, complete: bool) -> None:
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
                for piece in self._writer.pieces(self._begun.records()):
                    file.write(piece)
        except CaptionerError as error:
            raise OutputError(str(error), _SAFE) from error
        self._begun.note(stale=False, **state)

    @property
    def _begun(self) -> store.Journal:
        assert self._journal is not None, "begin() comes first"
        return self._journal

    def close(self) -> None:
        self._tars.close()
        if self._journal is not None:
            self._journal.close()
        if self._file is not None:
            self._file.close()


class _GrowingFile:
    """A file that whole records are appended to: all of them that are given together, or none."""

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
        """Append to the file and to the disk; where that is not possible, the file is as it was."""
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
        os.close(self._handle)


def journal_of(path: Path) -> Path:
    """Where the journal of an output file lies."""
    return path.with_name(path.name + ".journal")
