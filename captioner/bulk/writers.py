"""Output formats: one small class each, which turns entries into text and knows no files.

A file is ``header``, the records with ``separator`` between them, and ``footer``.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from captioner.bulk import writers
from captioner.bulk.records import Entry, Line
from captioner.datasets.reading import read_json
from captioner.errors import DatasetError, OptionError
from captioner.html import CLOSING, opening
from captioner.images import display_name, printable
from captioner.images.draw import data_uri

_STYLE = """\
main { display: flex; flex-direction: column; counter-reset: captioned failed; }
h1, .total, .filter { order: -3; margin: 0 0 .5rem; }
.total { order: -2; }
.filter { order: -1; }
li { counter-increment: captioned; }
li.failed { counter-increment: failed; }
li > div { content-visibility: auto; contain-intrinsic-size: auto 18rem; }
.gallery img, .absent { display: block; }
a:focus-visible { outline: 3px solid; outline-offset: 2px; display: block; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
li p:first-of-type { font-weight: 500; }
.other { font-size: .9rem; }
small { color: var(--quiet); overflow-wrap: anywhere; }
.failed .absent { display: grid; border: 2px dashed var(--line); box-sizing: border-box; }
.total::after { content: counter(captioned) " captioned, " counter(failed) " failed"; }
.filter { display: none; }
main:has(.failed) > .filter { display: block; }
main:has(#failed:checked) li:not(.failed) { position: absolute; visibility: hidden; }
"""
HEADER = (
    opening("Captions", _STYLE)
    + """\
<main>
<h1>Captions</h1>
<p class="filter"><label><input type="checkbox" id="failed"> only images that failed</label></p>
<ol class="gallery">
"""
)
FOOTER = (
    """\
</ol>
<p class="total"></p>
</main>
"""
    + CLOSING
)


def card(entry: Entry, folder: Path | None) -> str:
    """What the sheet shows of an image.

    Args:
        entry: what became of it.
        folder: where the sheet lies, the link to the image starts there; None for no link.
    """
    name = f"<small>{escape(printable(entry.image))}</small>"
    if entry.error is not None:
        reason = entry.error.removeprefix(f"{printable(entry.image)}: ")
        image = _linked('<span class="absent">failed</span>', entry.image, folder)
        return f'<li class="failed"><div>{image}<p>{escape(printable(reason))}</p>{name}</div></li>\n'
    best, *others = (escape(printable(line.text)) for line in entry.captions)
    more = "".join(f'<p class="other">{text}</p>' for text in others)
    image = _linked(_image(entry.thumbnail, best), entry.image, folder)
    return f"<li><div>{image}<p>{best}</p>{more}{name}</div></li>\n"


def _linked(content: str, image: str, folder: Path | None) -> str:
    return content if folder is None else f'<a href="{escape(_address(image, folder))}">{content}</a>'


def _image(thumbnail: bytes | None, caption: str) -> str:
    if thumbnail is None:
        return '<span class="absent">no thumbnail</span>'
    return f'<img loading="lazy" decoding="async" alt="{caption}" src="{data_uri(thumbnail)}">'


def _address(image: str, folder: Path) -> str:
    try:
        path = Path(os.path.relpath(image, folder))
    except ValueError:  # on another drive, where there are drives
        return Path(image).absolute().as_uri()
    return quote(os.fsencode(path.as_posix()))


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
        """What the file says of an image, line end included; empty if it says nothing."""
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
    """One JSON object an image, with ``caption`` and ``log_prob``, or with ``error``.

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
    """A contact sheet; see :mod:`captioner.bulk.writers`.

    Args:
        folder: where the file lies, links start there; None for no links.
    """

    grows = False
    header = writers.HEADER
    footer = writers.FOOTER

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def record(self, entry: Entry) -> str:
        """See :class:`Writer`."""
        return writers.card(entry, self.folder)


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
        several: there may be several captions for each image.
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


_COCO_NAME = re.compile(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{12})")


class CocoNumbers:
    """Finds the id of an image in an annotations file, or else in its name (``000000000139.jpg``).

    Args:
        annotations: COCO file whose ``images`` have ``file_name`` and ``id``; None goes by names alone.

    Raises:
        DatasetError: the file is no such file.
    """

    def __init__(self, annotations: str | None) -> None:
        self._annotations = annotations
        self._ids = None if annotations is None else _read_ids(Path(annotations))

    def __call__(self, image: str) -> int:
        """The number of an image.

        Raises:
            OptionError: it has none.
        """
        path = Path(image)
        if self._ids is not None:
            if path.name in self._ids:
                return self._ids[path.name]
            raise OptionError(f"{display_name(path)}: is not among the images of {self._annotations}")
        if match := _COCO_NAME.fullmatch(path.stem):
            return int(match[1])
        raise OptionError(
            f"{display_name(path)}: has no number for the format coco", "give the ids with `annotations` FILE"
        )


def _read_ids(path: Path) -> dict[str, int]:
    contents = read_json(path)
    images = contents.get("images") if isinstance(contents, dict) else None
    if not isinstance(images, list) or not images:
        raise DatasetError(f"{path}: has no list 'images'", "a COCO annotations file is expected")
    ids: dict[str, int] = {}
    for position, image in enumerate(images):
        name, number = (image.get("file_name"), image.get("id")) if isinstance(image, dict) else (None, None)
        if not isinstance(name, str) or type(number) is not int:
            raise DatasetError(f"{path}: images[{position}] needs a 'file_name' and a whole number 'id'")
        if ids.setdefault(Path(name).name, number) != number:
            raise DatasetError(f"{path}: {Path(name).name} has two ids, {ids[Path(name).name]} and {number}")
    return ids
