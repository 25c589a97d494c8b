"""What is done to a part of the images on a cluster, step by step; each takes and gives an Arrow table.

A table is one part: ``IMAGES`` and what the steps before have added, a row an image. Ray is not needed to
import this, so that the steps can be tried without it, nor torch, which only those who hold the model load.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from captioner import __version__
from captioner.bulk.options import FolderOptions
from captioner.bulk.reading import ImageReader, Loaded, Readers
from captioner.bulk.records import Entry
from captioner.bulk.tars import Item
from captioner.cluster.parts import PartFiles
from captioner.errors import CaptionerError, CheckpointError

if TYPE_CHECKING:
    from captioner.bulk.pipeline import Engine, Result

Table: TypeAlias = Any

_AHEAD = 8
IMAGES = pa.schema(
    {
        "part": pa.int64(),
        "rows": pa.int64(),  # of the part
        "item": pa.binary(),  # where the image lies
        "known": pa.binary(),  # what an earlier run has found; null if the image is due
    }
)


def table_of(part: int, items: Sequence[Item], known: Sequence[Entry | None]) -> Table:
    """A part to begin with."""
    found = [None if entry is None else pickle.dumps(entry) for entry in known]
    columns = [[part] * len(items), [len(items)] * len(items), list(map(pickle.dumps, items)), found]
    return pa.table(columns, schema=IMAGES)


def enter(folder: str) -> None:
    """Make relative names mean what they mean where the run was begun."""
    with suppress(OSError):  # there is no such folder on this machine; absolute names need none
        os.chdir(folder)


def read(table: Table, reader: ImageReader, folder: str) -> Table:
    """Add ``loaded``: the images, or why they cannot be read."""
    enter(folder)
    due = table["known"].is_null().to_pylist()
    items = [item for item, is_due in zip(_column(table, "item"), due, strict=True) if is_due]
    # In a process of its own: a codec that crashes costs its image, and Ray would try the part for ever.
    with Readers(reader, 1) as readers:
        loaded = (pickle.dumps(found) for _, found in readers.read(items, _AHEAD))
        column = [next(loaded) if is_due else None for is_due in due]
    return table.append_column("loaded", pa.array(column, pa.large_binary()))


class Captions:
    """Holds the model, and adds ``entry``: what is to be written of each image.

    Args:
        model: a :class:`captioner.bulk.run.Model`.
        options: of the run.
        version: of captioner, where the run was begun.
        folder: where it was begun.
    """

    def __init__(self, model: Any, options: FolderOptions, version: str, folder: str) -> None:
        self._model, self._options, self._version = model, options, version
        enter(folder)
        self._engine: Engine | None = None

    def __call__(self, table: Table) -> Table:
        """Caption a part; ``stopped`` tells why nothing can be captioned here, if so."""
        try:
            entries: Sequence[bytes | None] = list(map(pickle.dumps, self._entries(table)))
            stopped = None
        except CaptionerError as error:
            entries, stopped = [None] * len(table), str(error)
        table = table.drop_columns(["item", "loaded"])
        table = table.append_column("entry", pa.array(entries, pa.binary()))
        return table.append_column("stopped", pa.array([stopped] * len(table), pa.string()))

    def _entries(self, table: Table) -> Iterator[Entry]:
        from captioner.bulk.pipeline import caption_loaded

        loaded: list[Loaded | None] = _column(table, "loaded")
        items: list[Item] = _column(table, "item")
        due = [(item, found) for item, found in zip(items, loaded, strict=True) if found is not None]
        batches = caption_loaded(self._ready(), due, self._options.batch_size)
        results = (result for batch in batches for result in batch)
        for known in _column(table, "known"):
            yield self._entry(next(results)) if known is None else known

    def _entry(self, result: Result) -> Entry:
        return Entry(str(result.image), self._options.lines(result.captions), result.error)

    def _ready(self) -> Engine:
        from captioner.bulk.pipeline import Engine

        if self._engine is None:
            if __version__ != self._version:
                raise CaptionerError(
                    f"this is captioner {self._version}, but a machine of the cluster has {__version__}",
                    "install the same one everywhere",
                )
            captioner = self._model.load()
            if captioner.digest != self._model.settings["weights"]:
                raise CheckpointError("a machine of the cluster has other weights in the place of `weights`")
            self._engine = Engine(captioner, self._model.decoding)
        return self._engine


@dataclass(frozen=True)
class Done:
    """What became of a part.

    Attributes:
        captioned: images that have got a caption.
        errors: one an image that has failed.
        stopped: why the run cannot go on.
    """

    captioned: int = 0
    errors: tuple[str, ...] = ()
    stopped: str | None = None


def write(table: Table, files: PartFiles) -> Table:
    """Write the part; the answer is one row, a pickled :class:`Done`."""
    done = Done(stopped=table["stopped"][0].as_py())
    if done.stopped is None:
        assert len(table) == table["rows"][0].as_py(), "Ray has cut a part into pieces"
        entries: list[Entry] = _column(table, "entry")
        fresh = [entry for entry, known in zip(entries, table["known"], strict=True) if not known.is_valid]
        try:
            files.write(table["part"][0].as_py(), entries)
        except CaptionerError as error:
            done = Done(stopped=f"{error}; what is written is whole, and the same command goes on")
        else:
            errors = tuple(entry.error for entry in fresh if entry.error is not None)
            done = Done(len(fresh) - len(errors), errors)
    return pa.table({"done": [pickle.dumps(done)]})


def _column(table: Table, name: str) -> list[Any]:
    return [None if value is None else pickle.loads(value) for value in table[name].to_pylist()]
