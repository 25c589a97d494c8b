"""Output formats: one small class each, which turns entries into text and knows no files.

A file is ``header``, the records with ``separator`` between them, and ``footer``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from captioner.batch import sheet
from captioner.batch.records import Entry, Line
from captioner.images import printable


class Writer:
    """One output format.

    Attributes:
        grows: whether each record can be appended to the file as soon as it is known.
        names_by_number: whether records need ``image_id``.
    """

    grows: ClassVar[bool] = True
    names_by_number: ClassVar[bool] = False
    header: ClassVar[str] = ""
    separator: ClassVar[str] = ""
    footer: ClassVar[str] = ""

    def record(self, entry: Entry) -> str:
        """What the file says of a picture, line end included; empty if it says nothing."""
        raise NotImplementedError

    def pieces(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        """A whole file, piece by piece."""
        yield encoded(self.header)
        first = True
        for entry in entries:
            if record := self.record(entry):
                yield encoded(record if first else self.separator + record)
                first = False
        yield encoded(self.footer)


class Text(Writer):
    """``path<TAB>caption``, one line a caption; control characters are escaped, failures left out."""

    def __init__(self, *, log_prob: bool = False) -> None:
        self.log_prob = log_prob

    def record(self, entry: Entry) -> str:
        """See :class:`Writer`."""
        name = printable(entry.image)
        return "".join(
            f"{name}\t{printable(line.text)}" + (f"\t{line.log_prob:.2f}\n" if self.log_prob else "\n")
            for line in entry.captions
        )


class JsonLines(Writer):
    """One JSON object a picture, with ``caption`` and ``log_prob``, or with ``error``.

    There is ``confidence`` too, if the checkpoint is calibrated.

    Args:
        several: add the list ``captions``.
    """

    def __init__(self, *, several: bool = False) -> None:
        self.several = several

    def record(self, entry: Entry) -> str:
        """See :class:`Writer`."""
        return json.dumps(self.fields(entry), ensure_ascii=False) + "\n"

    def fields(self, entry: Entry) -> dict[str, object]:
        """A record as plain values."""
        fields: dict[str, object] = {"image": entry.image}
        if entry.error is not None:
            fields["error"] = entry.error
        else:
            fields |= _described(entry.captions[0])
            if self.several:
                fields["captions"] = [_described(line) for line in entry.captions]
        return fields


def _described(line: Line) -> dict[str, object]:
    record: dict[str, object] = {"caption": line.text, "log_prob": line.log_prob}
    # Left out rather than null: files of checkpoints without it stay what they were.
    return record if line.confidence is None else record | {"confidence": line.confidence}


class Csv(Writer):
    """RFC 4180 with the columns image, caption, log_prob and error; one row a caption or failure."""

    header = "image,caption,log_prob,error\r\n"

    def record(self, entry: Entry) -> str:
        """See :class:`Writer`."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\r\n")
        if entry.error is not None:
            rows.writerow((entry.image, "", "", entry.error))
        rows.writerows((entry.image, line.text, line.log_prob, "") for line in entry.captions)
        return text.getvalue()


class Coco(Writer):
    """A COCO results file: ``[{"image_id": 139, "caption": "..."}, ...]``, best captions, no failures."""

    grows = False
    names_by_number = True
    header = "[\n"
    separator = ",\n"
    footer = "\n]\n"

    def record(self, entry: Entry) -> str:
        """See :class:`Writer`."""
        if not entry.captions:
            return ""
        fields = {"image_id": entry.image_id, "caption": entry.captions[0].text}
        return json.dumps(fields, ensure_ascii=False)


class Html(Writer):
    """A contact sheet; see :mod:`captioner.batch.sheet`.

    Args:
        folder: where the file lies, links start there; None for no links.
    """

    grows = False
    header = sheet.HEADER
    footer = sheet.FOOTER

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def record(self, entry: Entry) -> str:
        """See :class:`Writer`."""
        return sheet.card(entry, self.folder)


WRITERS: dict[str, type[Writer]] = {
    "text": Text,
    "jsonl": JsonLines,
    "csv": Csv,
    "coco": Coco,
    "html": Html,
}


def build_writer(kind: str, *, several: bool, log_prob: bool, folder: Path | None) -> Writer:
    """The writer of a format.

    Args:
        kind: its name.
        several: there may be several captions for each picture.
        log_prob: add log P to lines of text.
        folder: where the file lies, for formats with links; None for no links.
    """
    if kind == "text":
        return Text(log_prob=log_prob)
    if kind == "jsonl":
        return JsonLines(several=several)
    if kind == "html":
        return Html(folder)
    return WRITERS[kind]()


def encoded(text: str) -> bytes:
    """UTF-8; halves of characters, which names of files may hold, become escapes (exact ones in JSON)."""
    return text.encode("utf-8", "backslashreplace")
