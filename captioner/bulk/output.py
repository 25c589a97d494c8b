"""Where captions go: the terminal, or one file that follows from a store, so that an interrupted run can go on."""

import enum
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from captioner import __version__, writers
from captioner.bulk.options import FolderOptions
from captioner.bulk.store import DamagedStoreError, Key, Seen, Store, remove_store, store_of
from captioner.datasets.coco import CocoIds
from captioner.errors import CaptionerError, OutputError, os_errors_as
from captioner.files import replacing
from captioner.images import reading, tars
from captioner.records import Captions, Record

Settings = dict[str, object]

OF_SHARDS = ("pictures", "tars")
"""Settings that shards alone have: how much all of them have to do."""
BLOCK_BYTES = 1 << 20
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
    """In words, how settings differ; empty if they do not. The version may differ, and what was not yet may be off."""
    found = []
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found.append(differences(before, now))
        elif before != now and name != "captioner" and not (before is None and now is False):
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
    """Where captions go. The methods are called in this order; a target overrides those that mean something to it.

    Attributes:
        keyed: images have keys, so that all must be listed before anything is written.
        check: see :class:`captioner.images.reading.ImageReader`.
    """

    keyed: bool = False
    check: Callable[[bytes, str], None] | None = None
    _store: Store | None = None

    def key(self, image: str) -> Key | None:
        """What only one image may have, such as the file that its caption goes to; None for nothing."""
        return None

    def shared(self, image: str) -> tuple[str, str]:
        """In words, what an image shares with another that has its key, and what to do."""
        return f"image_id {self.key(image)!r}", "leave one of them out with `exclude`"

    def open(self, settings: Settings) -> Store:
        """Look at what is there, without changing it, and give the store of the run.

        Raises:
            OutputError: this run cannot write there, or would mix its captions with others.
        """
        self._store = Store()
        return self._store

    def state(self, item: tars.Item, seen: Seen | None) -> State:
        """What is to be done with an image, of which something may be stored.

        Raises:
            OutputError: as :meth:`open`.
        """
        return State.DUE

    def begin(self) -> None:
        """Get ready for writing."""

    def captions_of(self, pixels: bytes) -> Captions | None:
        """Captions of an image that looks the same, if there are any."""
        return None

    def standing(self, record: Record) -> Captions | None:
        """What was written of an image whose file has changed, if it still looks the same."""
        return None

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
        """Write a batch, so that it survives the process.

        Returns:
            The records as they were written; some may have failed on the way.

        Raises:
            OutputError: the disk is full, or the like.
        """
        raise NotImplementedError

    def finish(self, *, listed: bool, complete: bool) -> None:
        """Make the output whole.

        Args:
            listed: all images have been listed.
            complete: all of them have been written, too.
        """

    def close(self) -> None:
        """Let others have it; also called after failures, and before :meth:`begin`."""
        if self._store is not None:
            self._store.close()


def file_or_terminal(options: FolderOptions, *, several: bool) -> Target:
    """One file, or standard output, for captions.

    Args:
        options: which format, and where.
        several: there may be several captions for each image.

    Raises:
        DatasetError: the annotations that have the numbers of images cannot be read.
    """
    settings: dict[str, dict[str, Any]] = {
        "text": {"log_prob": options.log_prob},
        "jsonl": {"several": several},
        "html": {"folder": options.link_folder},
        "imagefolder": {"folder": Path(options.output or "").parent},
    }
    writer = writers.WRITERS[options.kind](**settings.get(options.kind, {}))
    number = CocoIds(options.annotations) if writer.names_by_number else writer.key
    if options.output is None:
        return _StandardOutput(writer, number)
    return _OutputFile(Path(options.output), options, writer, number)


class _Written(Target):
    """What a writer makes of records."""

    def __init__(self, writer: writers.Writer, number: Callable[[str], int | None]) -> None:
        self._writer, self._number = writer, number
        self.keyed = writer.keyed

    def key(self, image: str) -> int | None:
        return self._number(image)


class _StandardOutput(_Written):
    """Prints records as they come, and remembers nothing."""

    _separator = ""

    def begin(self) -> None:
        sys.stdout.write(self._writer.header)

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
        for record in records:
            if text := self._writer.record(record):
                sys.stdout.write(self._separator + text)
                self._separator = self._writer.separator
        sys.stdout.flush()
        return records

    def finish(self, *, listed: bool, complete: bool) -> None:
        sys.stdout.write(self._writer.footer)


class _OutputFile(_Written):
    """One file that follows from the store beside it.

    Formats that grow are appended to, batch by batch. Where that is not possible (a format that cannot grow,
    new images between old ones, a changed image) the file is exported at the end, all at once. What the store notes of
    the file, its length and a checksum, is that of the last batch: a file that is shorter lacks its end, which is
    exported again; one that differs otherwise is not ours any more.
    """

    def __init__(
        self, path: Path, options: FolderOptions, writer: writers.Writer, number: Callable[[str], int | None]
    ) -> None:
        super().__init__(writer, number)
        # A link stays a link, and what it leads to is written.
        self.path = Path(os.path.realpath(path))
        self._options = options
        self._tars = tars.TarReader()
        self._handle: int | None = None
        self._lost = False  # the file lacks its end, or is not there
        self._at_end = False  # it is exported when everything is known

    def open(self, settings: Settings) -> Store:
        overwrite = self._options.overwrite
        with os_errors_as(OutputError, f"cannot write {self.path}: "):
            exists = self._is_there()
            found = store_of(self.path).exists()  # its name may be too long
        self._store = self._open_store(found=found)
        if overwrite or "settings" not in self._store.state:
            if exists and not overwrite:
                what = f"{self.path}: is there already, and no journal of a run lies beside it"
                raise OutputError(what, "choose another `output`, or `overwrite`")
            self._store.anew(settings, **noted_of(self.path), stale=exists)
            return self._store
        check_same(self.path, self._store.state["settings"], settings)
        self._lost = self._is_torn(self._store) if exists else self._store.state.get("length") != 0
        return self._store

    def _is_there(self) -> bool:
        if self.path.is_dir():
            raise OutputError(f"`output` {self.path}: is a folder", "give a file in it")
        given = Path(self._options.output or "")  # a pipe has no real path
        if given.exists() and not given.is_file():
            raise OutputError(f"`output` {given}: is no regular file", "leave out `output` to print instead")
        if not self.path.parent.is_dir():
            raise OutputError(f"`output` {self.path}: there is no folder {self.path.parent}")
        return self.path.exists() and self.path.stat().st_size > 0

    def _open_store(self, *, found: bool) -> Store:
        path, dry_run = store_of(self.path), self._options.dry_run
        if not found:
            return Store() if dry_run else Store(path, new=True)
        try:
            return Store(path)
        except DamagedStoreError:
            if not self._options.overwrite or dry_run:
                raise
            remove_store(path)
            return Store(path, new=True)

    def _is_torn(self, kept: Store) -> bool:
        """Whether the file that is there lacks its end.

        Raises:
            OutputError: it is not what was written.
        """
        state = kept.state
        if is_as_noted(self.path, state):
            return False
        stale, older = state.get("stale"), state.get("older")
        shorter = older or self.path.stat().st_size < state.get("length", 0)
        if older and (stale or not (self._writer.grows or state["finished"])):
            return True  # an earlier release was about to replace it
        if shorter and not stale and self._is_beginning(kept, whole=not self._writer.grows):
            return True
        raise OutputError(
            f"{self.path}: was changed by another program", "move it away, or `overwrite` to lose the change"
        )

    def _is_beginning(self, kept: Store, *, whole: bool) -> bool:
        """Whether the file is what would be exported, up to some place or as a whole."""
        with self.path.open("rb") as file:
            for piece in self._writer.pieces(kept.records()):
                found = file.read(len(piece))
                if found != piece:
                    return not whole and piece.startswith(found) and not file.read(1)
            return not file.read(1)

    def state(self, item: tars.Item, seen: Seen | None) -> State:
        if seen is None or seen.error is not None:
            return State.DUE
        if seen.image_id != self.key(str(item)):
            return State.CHANGED
        changed = reading.has_changed(item, seen[:3], self._tars, max_pixels=self._options.pixel_limit)
        return State.CHANGED if changed else State.DONE

    def begin(self) -> None:
        if self._lost:
            self.store.note(**noted_of(self.path), stale=True, older=False)
        if self._writer.grows and not self.store.state.get("length") and not self.store.state["stale"]:
            header = writers.encoded(self._writer.header)
            self._note_growth(header)
            self._append(header)

    def captions_of(self, pixels: bytes) -> Captions | None:
        return self.store.captions_of(pixels)

    def standing(self, record: Record) -> Captions | None:
        before = self.store.find(record.name)
        if before is None or before.identity is None or record.identity is None:
            return None
        same = before.identity.pixels == record.identity.pixels and before.thumbnail == record.thumbnail
        return before.captions if same and record.identity.pixels else None

    def write(self, records: Sequence[Record]) -> Sequence[Record]:
        kept, data = self.store, b""
        with kept.transaction():
            new, grows = kept.put(records)
            self._at_end |= not grows or kept.disordered
            if new or not grows:
                kept.note(finished=False, stale=kept.state["stale"] or self._at_end or not self._writer.grows)
            if not kept.state["stale"]:
                data = writers.encoded("".join(map(self._writer.record, new)))
                self._note_growth(data)
        self._append(data)
        if self._writer.grows and kept.state["stale"] and not self._at_end:
            self._export()  # there was another file, which has waited for something to replace it
        return records

    def _note_growth(self, data: bytes) -> None:
        if data:
            state = self.store.state
            self.store.note(length=state["length"] + len(data), crc=zlib.crc32(data, state["crc"]), modified=None)

    def _append(self, data: bytes) -> None:
        """Append to the file and to the disk; where that is not possible, the file is as it was."""
        if not data:
            return
        with os_errors_as(OutputError, f"cannot write {self.path}: ", advice=_SAFE):
            if self._handle is None:
                self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            length = os.fstat(self._handle).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
                os.fsync(self._handle)
            except BaseException:
                os.ftruncate(self._handle, length)
                raise

    def finish(self, *, listed: bool, complete: bool) -> None:
        kept = self.store
        if kept.disordered and listed:
            kept.reorder()
        if (kept.state["stale"] or not self.path.exists()) and (self._writer.grows or complete):
            self._export()
        elif self._handle is not None:
            kept.note(modified=os.fstat(self._handle).st_mtime_ns)
        kept.note(finished=complete)

    def _export(self) -> None:
        """Write the whole file from the store, in the place of the one that is there."""
        self._close_file()
        try:
            with replacing(self.path) as file:
                noted = copied(self._writer.pieces(self.store.records()), file.write)
                self.store.note(next=noted)  # a kill may come before the new file has its name, and after
        except CaptionerError as error:
            raise OutputError(str(error), _SAFE) from error
        modified = self.path.stat().st_mtime_ns
        self.store.note(**noted, modified=modified, next=None, stale=False, older=False)

    @property
    def store(self) -> Store:
        """The store of the run."""
        assert self._store is not None, "open() comes first"
        return self._store

    def _close_file(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def close(self) -> None:
        self._tars.close()
        self._close_file()
        super().close()


def copied(pieces: Iterable[bytes], write: Callable[[bytes], object]) -> dict[str, int]:
    """Write a whole file; what is noted of it: length and checksum."""
    length = crc = 0
    for piece in pieces:
        write(piece)
        length, crc = length + len(piece), zlib.crc32(piece, crc)
    return {"length": length, "crc": crc}


def noted_of(path: Path) -> dict[str, int]:
    """What is noted of a file as it is now; of none, as of an empty one."""
    if not path.exists() or path.stat().st_size == 0:
        return {"length": 0, "crc": 0}
    with path.open("rb") as file:
        modified = os.fstat(file.fileno()).st_mtime_ns
        return {**copied(iter(lambda: file.read(BLOCK_BYTES), b""), lambda block: None), "modified": modified}


def is_as_noted(path: Path, state: Mapping[str, Any]) -> bool:
    """Whether a file is what was written; it is read only where its size fits and its time does not."""
    status = path.stat()
    notes = [note for note in (state, state.get("next")) if note and note.get("length") == status.st_size]
    if any(note.get("modified") == status.st_mtime_ns for note in notes):
        return True
    return bool(notes) and noted_of(path)["crc"] in [note["crc"] for note in notes]
