"""What a cluster does with parts of the images, and the files in which parts end.

A part is some hundred consecutive images, and a block of a Ray dataset: tasks read its images, actors hold the model,
tasks write. If a worker or a machine dies, Ray gives its blocks to others. Each step takes and gives an Arrow table of
one part: ``IMAGES`` and what the steps before have added, a row an image. The last step writes the part as one whole
file, whose name depends on its place alone. So a part that is captioned twice, because a machine went down after the
first time, is there once; and nothing has to remember what is done: a part is done if its file is there.

Ray is not needed to import this, so that the steps can be tried without it, nor torch, which only the actors load.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from captioner import __version__, writers
from captioner.bulk import output, run
from captioner.bulk.options import FolderOptions
from captioner.caption import Caption
from captioner.errors import CaptionerError, CheckpointError, OptionError, OutputError, needing, os_errors_as
from captioner.files import write_atomically
from captioner.images import reading, tars
from captioner.records import Record
from captioner.runtime.model import processors

_NEEDING = "`engine` ray"
with needing(_NEEDING):
    import pyarrow as pa
    from pyarrow import parquet

Table: TypeAlias = Any
Part: TypeAlias = tuple[int, Sequence[tars.Item], Sequence[Record | None]]
"""Its number, its images, and what is known of them."""

_SETTINGS = "_captioner.json"  # programs that read whole folders take what begins so for no data
_PARTS_AT_ONCE = 2048  # of a dataset: their lists lie in the memory of this process
_STORE_BYTES = 1 << 30  # of a cluster that is started for this run alone
_WHOLE = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
_AHEAD = 8
IMAGES = pa.schema(
    {
        "part": pa.int64(),
        "rows": pa.int64(),  # of the part
        "item": pa.binary(),  # where the image lies
        "known": pa.binary(),  # what an earlier run has found; null if the image is due
    }
)


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """A connection to a cluster; one that this process has already stays as it is.

    Args:
        address: where it is; None for the one that RAY_ADDRESS names, or else one for this run alone.

    Raises:
        OptionError: there is none.
    """
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes back as exceptions
    if where == "local":
        own = {"num_cpus": processors(), "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Without it Ray would leave one in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray.init(where, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of many classes, and Ray's own are not all of one family
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        what = "no Ray cluster can be started here" if where == "local" else f"no Ray cluster at {where}"
        raise OptionError(f"{what} ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def captioned(
    parts: Iterable[Part], options: FolderOptions, model: run.Model, files: PartFiles
) -> Generator[Done, None, None]:
    """Caption parts, and write them.

    Args:
        parts: those that are due.
        options: of the run.
        model: a model, which is loaded where the work is done.
        files: where parts are written.

    Yields:
        What became of each, in the order in which they are ready.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray = _ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # a block stays whole, whatever its size
    preprocessing = model.load().preprocessing if model.preprocessing is None else model.preprocessing()
    folder = str(Path.cwd())
    reader = reading.ImageReader(preprocessing, options.pixel_limit)
    tables = (table_of(*part) for part in parts)
    # Unlike actors, the tasks have no processor of their own: where actors hold all, as when a machine has died, they
    # would wait for ever. That they differ also keeps Ray from making one step of two.
    processors, gpus = _there_for(model.device)
    tasks = {**_WHOLE, "num_cpus": 0, "concurrency": processors if gpus else max(1, processors // 4)}
    while some := list(islice(tables, _PARTS_AT_ONCE)):
        dataset = (
            ray.data.from_arrow(some)
            .map_batches(read, fn_args=(reader, folder), **tasks)
            .map_batches(
                Captions,
                fn_constructor_args=(model, options, __version__, folder),
                **_actors(options.ray_actors, model.device),
                **_WHOLE,
            )
            .map_batches(write, fn_args=(files,), **tasks)
        )
        for row in dataset.iter_rows():
            yield pickle.loads(row["done"])


def _actors(wanted: int | None, device: str) -> dict[str, Any]:
    """How many hold the model, and what each needs."""
    processors, gpus = _there_for(device)
    most = wanted or gpus or max(1, processors * 7 // 8)
    pool = _ray().data.ActorPoolStrategy(min_size=wanted or 1, max_size=most)
    return {"compute": pool, "num_cpus": 1, "num_gpus": 1 if gpus else 0}


def _there_for(device: str) -> tuple[int, int]:
    """Processors of the cluster, and GPUs that a model on this device may use."""
    there = _ray().cluster_resources()
    return max(1, int(there.get("CPU", 1))), 0 if device == "cpu" else int(there.get("GPU", 0))


def _ray() -> Any:
    with needing(_NEEDING):
        import ray.data
    return ray


def table_of(part: int, items: Sequence[tars.Item], known: Sequence[Record | None]) -> Table:
    """A part to begin with."""
    found = [None if record is None else pickle.dumps(record) for record in known]
    columns = [[part] * len(items), [len(items)] * len(items), list(map(pickle.dumps, items)), found]
    return pa.table(columns, schema=IMAGES)


def _enter(folder: str) -> None:
    """Make relative names mean what they mean where the run was begun."""
    with suppress(OSError):  # there is no such folder on this machine; absolute names need none
        os.chdir(folder)


def read(table: Table, reader: reading.ImageReader, folder: str) -> Table:
    """Add ``loaded``: the images, or why they cannot be read."""
    _enter(folder)
    due = table["known"].is_null().to_pylist()
    items = [item for item, is_due in zip(_column(table, "item"), due, strict=True) if is_due]
    # In a process of its own: a codec that crashes costs its image, and Ray would try the part for ever.
    with reading.Readers(reader, 1) as readers:
        loaded = (pickle.dumps(found) for _, found in readers.read(items, _AHEAD))
        column = [next(loaded) if is_due else None for is_due in due]
    return table.append_column("loaded", pa.array(column, pa.large_binary()))


class Captions:
    """Holds the model, and adds ``record``: what is to be written of each image.

    Args:
        model: a model, which is loaded here.
        options: of the run.
        version: of captioner, where the run was begun.
        folder: where it was begun.
    """

    def __init__(self, model: run.Model, options: FolderOptions, version: str, folder: str) -> None:
        self._model, self._options, self._version = model, options, version
        _enter(folder)
        self._captioner: Any = None

    def __call__(self, table: Table) -> Table:
        """Caption a part; ``stopped`` says why nothing can be captioned here, if so."""
        try:
            records: Sequence[bytes | None] = list(map(pickle.dumps, self._records(table)))
            stopped = None
        except CaptionerError as error:
            records, stopped = [None] * len(table), str(error)
        table = table.drop_columns(["item", "loaded"])
        table = table.append_column("record", pa.array(records, pa.binary()))
        return table.append_column("stopped", pa.array([stopped] * len(table), pa.string()))

    def _records(self, table: Table) -> Iterator[Record]:
        # Torch is loaded only here, where the work is done.
        from captioner.bulk.pipeline import caption_loaded

        if self._captioner is None:
            self._captioner = self._load()
        items = zip(_column(table, "item"), _column(table, "loaded"), strict=True)
        due = [(item, loaded) for item, loaded in items if loaded is not None]
        size, dress = self._options.batch_size, self._options.dress
        batches = caption_loaded(self._captioner, self._model.decoding, due, size, dress=dress)
        records = (record for batch in batches for record in batch)
        for known in _column(table, "known"):
            yield next(records) if known is None else known

    def _load(self) -> Any:
        if __version__ != self._version:
            raise CaptionerError(
                f"this is captioner {self._version}, but a machine of the cluster has {__version__}",
                "install the same one everywhere",
            )
        captioner = self._model.load()
        if captioner.digest != self._model.settings["weights"]:
            raise CheckpointError("a machine of the cluster has other weights in the place of `weights`")
        return captioner


class Done(NamedTuple):
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
        records: list[Record] = _column(table, "record")
        fresh = [record for record, known in zip(records, table["known"], strict=True) if not known.is_valid]
        try:
            files.write(table["part"][0].as_py(), records)
        except CaptionerError as error:
            done = Done(stopped=f"{error}; what is written is whole, and the same command goes on")
        else:
            errors = tuple(record.error for record in fresh if record.error is not None)
            done = Done(len(fresh) - len(errors), errors)
    return pa.table({"done": [pickle.dumps(done)]})


def _column(table: Table, name: str) -> list[Any]:
    return [None if value is None else pickle.loads(value) for value in table[name].to_pylist()]


class PartFiles:
    """The files of one run, and beside them what they were made with.

    Args:
        folder: where they lie.
        kind: ``jsonl`` or ``parquet``.
        several: there may be several captions for each image.
    """

    def __init__(self, folder: Path, kind: str, *, several: bool) -> None:
        self.folder, self.kind = folder, kind
        self._lines = writers.JsonLines(several=several)

    def open(self, settings: output.Settings, *, overwrite: bool) -> None:
        """Look at what is there, without changing it.

        Raises:
            OutputError: this run cannot write there, or would mix its captions with others.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"`output` {self.folder}: is a file, but many are to be written", "name a folder")
        if not self.folder.parent.is_dir():
            raise OutputError(f"`output` {self.folder}: there is no folder {self.folder.parent}")
        if overwrite or not self.folder.exists():
            return
        path = self.folder / _SETTINGS
        if path.exists():
            output.check_same(self.folder, _read_settings(path), settings)
        elif any(self.folder.iterdir()):
            raise OutputError(
                f"{self.folder}: is not empty, and no run has written there", "choose another `output`, or `overwrite`"
            )

    def begin(self, settings: output.Settings, *, overwrite: bool) -> None:
        """Make ready for writing.

        Raises:
            CaptionerError: that is not possible.
        """
        path = self.folder / _SETTINGS
        with os_errors_as(OutputError, f"cannot write {self.folder}: "):
            if overwrite and self.folder.exists():
                path.unlink(missing_ok=True)  # first: no run may go on with what is left of the parts
                for part in self.folder.glob("part-*.*"):
                    part.unlink()
            self.folder.mkdir(exist_ok=True)
        if not path.exists():
            write_atomically(path, json.dumps(settings, indent=1) + "\n")

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06}.{self.kind}"

    def write(self, number: int, records: Sequence[Record]) -> None:
        """Write a part, whole or not at all.

        Raises:
            CaptionerError: that is not possible.
        """
        if self.kind == "jsonl":
            content = b"".join(writers.encoded(self._lines.record(record)) for record in records)
        else:
            content = _parquet(map(self._lines.fields, records), several=self._lines.several)
        write_atomically(self.path(number), content)

    def read(self, number: int, images: Sequence[str]) -> list[Record] | None:
        """A part as it was written; None if it has not been, or is about other images."""
        path = self.path(number)
        if not path.exists():
            return None
        try:
            if self.kind == "jsonl":
                rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            else:
                rows = parquet.read_table(path).to_pylist()
            names = [writers.encoded(row["image"]) for row in rows]
            records = [_record(*pair) for pair in zip(images, rows, strict=False)]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise OutputError(f"{path}: is damaged", "delete it, and the same command writes it anew") from error
        return records if names == list(map(writers.encoded, images)) else None


def _read_settings(path: Path) -> dict[str, object]:
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: is damaged", "`overwrite` begins anew") from error
    return settings if isinstance(settings, dict) else {}


def _record(image: str, row: Mapping[str, Any]) -> Record:
    if row.get("error") is not None:
        return Record(image, error=row["error"])
    captions = row.get("captions") or [row]
    read = (Caption(each["caption"], each["log_prob"], confidence=each.get("confidence")) for each in captions)
    return Record(image, tuple(read))


def _parquet(rows: Iterable[Mapping[str, object]], *, several: bool) -> bytes:
    # Confidence has its column in every part, so that the parts of a folder are alike.
    caption = {"caption": pa.string(), "log_prob": pa.float64(), "confidence": pa.float64()}
    columns = {"image": pa.string(), **caption}
    if several:
        columns["captions"] = pa.list_(pa.struct(caption))
    columns["error"] = pa.string()
    table = [{**row, "image": writers.encoded(str(row["image"])).decode()} for row in rows]
    content = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(table, schema=pa.schema(columns)), content)
    return content.getvalue()
