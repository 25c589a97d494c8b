"""Output formats: one small class each, which turns entries into text and knows no files.

A file is ``header``, the records with ``separator`` between them, and ``footer``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import ClassVar

from captioner.batch.records import Entry
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
            f"{name}\t{printable(text)}" + (f"\t{log_prob:.2f}\n" if self.log_prob else "\n")
            for text, log_prob in entry.captions
        )


class JsonLines(Writer):
    """One JSON object a picture, with ``caption`` and ``log_prob``, or with ``error``.

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
            fields["caption"], fields["log_prob"] = entry.captions[0]
            if self.several:
                fields["captions"] = [
                    {"caption": text, "log_prob": number} for text, number in entry.captions
                ]
        return fields


class Csv(Writer):
    """RFC 4180 with the columns image, caption, log_prob and error; one row a caption or failure."""

    header = "image,caption,log_prob,error\r\n"

    def record(self, entry: Entry) -> str:
        """See :class:`Writer`."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\r\n")
        if entry.error is not None:
            rows.writerow((entry.image, "", "", entry.error))
        rows.writerows((entry.image, caption, log_prob, "") for caption, log_prob in entry.captions)
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


WRITERS: dict[str, type[Writer]] = {"text": Text, "jsonl": JsonLines, "csv": Csv, "coco": Coco}


def build_writer(kind: str, *, several: bool, log_prob: bool) -> Writer:
    """The writer of a format.

    Args:
        kind: its name.
        several: there may be several captions for each picture.
        log_prob: add log P to lines of text.
    """
    if kind == "text":
        return Text(log_prob=log_prob)
    if kind == "jsonl":
        return JsonLines(several=several)
    return WRITERS[kind]()


def encoded(text: str) -> bytes:
    """UTF-8; halves of characters, which names of files may hold, become escapes (exact ones in JSON)."""
    return text.encode("utf-8", "backslashreplace")
