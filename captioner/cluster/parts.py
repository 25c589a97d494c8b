"""Captions in a folder of many files, each of which holds the same number of consecutive images.

Whoever captions a part writes its whole file, and its name depends on its place alone. So a part that is
captioned twice, because a machine went down after the first time, is there once; and no one has to remember
what is done: a part is done if its file is there.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from captioner.bulk.output import Settings, check_same
from captioner.bulk.records import Entry, Line
from captioner.bulk.writers import JsonLines, encoded
from captioner.errors import OutputError, os_errors_as
from captioner.files import replacing, write_atomically

_SETTINGS = "_captioner.json"  # what begins so is no data for those who read whole folders


class PartFiles:
    """The files of one run, and beside them what they were made with.

    Args:
        folder: where they lie.
        kind: ``jsonl`` or ``parquet``.
        several: there may be several captions for each image.
    """

    def __init__(self, folder: Path, kind: str, *, several: bool) -> None:
        self.folder, self.kind = folder, kind
        self._lines = JsonLines(several=several)

    def open(self, settings: Settings, *, overwrite: bool) -> None:
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
            check_same(self.folder, _read_settings(path), settings)
        elif any(self.folder.iterdir()):
            raise OutputError(
                f"{self.folder}: is not empty, and nothing tells how to go on with it",
                "choose another `output`, or `overwrite`",
            )

    def begin(self, settings: Settings, *, overwrite: bool) -> None:
        """Make ready for writing.

        Raises:
            CaptionerError: that is not possible.
        """
        path = self.folder / _SETTINGS
        with os_errors_as(OutputError, f"cannot write {self.folder}: "):
            if overwrite and self.folder.exists():
                path.unlink(missing_ok=True)  # first: what is left of the parts must not be gone on with
                for part in self.folder.glob("part-*.*"):
                    part.unlink()
            self.folder.mkdir(exist_ok=True)
        if not path.exists():
            write_atomically(path, json.dumps(settings, indent=1) + "\n")

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06}.{self.kind}"

    def write(self, number: int, entries: Sequence[Entry]) -> None:
        """Write a part, whole or not at all.

        Raises:
            CaptionerError: that is not possible.
        """
        with replacing(self.path(number)) as file:
            file.write(self._content(entries))

    def _content(self, entries: Sequence[Entry]) -> bytes:
        if self.kind == "jsonl":
            return b"".join(encoded(self._lines.record(entry)) for entry in entries)
        return _parquet(map(self._lines.fields, entries), several=self._lines.several)

    def read(self, number: int, images: Sequence[str]) -> list[Entry] | None:
        """A part as it was written; None if it has not been, or is about other images."""
        path = self.path(number)
        if not path.exists():
            return None
        try:
            records = _records(path)
            names = [encoded(record["image"]) for record in records]
            entries = [_entry(*pair) for pair in zip(images, records, strict=False)]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise OutputError(f"{path}: is damaged", "delete it, and the same command writes it anew") from error
        return entries if names == list(map(encoded, images)) else None


def _read_settings(path: Path) -> dict[str, object]:
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: is damaged", "`overwrite` begins anew") from error
    return settings if isinstance(settings, dict) else {}


def _records(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    from pyarrow import parquet

    records: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return records


def _entry(image: str, record: Mapping[str, Any]) -> Entry:
    if record.get("error") is not None:
        return Entry(image, error=record["error"])
    captions = record.get("captions") or [record]
    lines = (Line(each["caption"], each["log_prob"], each.get("confidence")) for each in captions)
    return Entry(image, tuple(lines))


def _parquet(records: Iterable[Mapping[str, object]], *, several: bool) -> bytes:
    import pyarrow
    from pyarrow import parquet

    # Confidence has its column in every part, so that the parts of a folder are alike.
    numbers = {"log_prob": pyarrow.float64(), "confidence": pyarrow.float64()}
    caption = {"caption": pyarrow.string(), **numbers}
    columns = {"image": pyarrow.string(), **caption}
    if several:
        columns["captions"] = pyarrow.list_(pyarrow.struct(caption))
    columns["error"] = pyarrow.string()
    rows = [{**record, "image": encoded(str(record["image"])).decode()} for record in records]
    content = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(columns)), content)
    return content.getvalue()
