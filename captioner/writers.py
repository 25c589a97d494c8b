"""Output formats: one small class each, which turns records into text and knows no files.

A file is ``header``, the records with ``separator`` between them, and ``footer``.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from captioner.errors import OptionError
from captioner.html import CLOSING, opening
from captioner.images import display_name, draw, printable
from captioner.records import Record

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
# Its words stay as they are: a sheet that is there is compared with what would be written.
_HEADER = f"""\
{opening("Captions", _STYLE)}<main>
<h1>Captions</h1>
<p class="filter"><label><input type="checkbox" id="failed"> only pictures that failed</label></p>
<ol class="gallery">
"""
_FOOTER = f"""\
</ol>
<p class="total"></p>
</main>
{CLOSING}"""


class Writer:
    """One output format.

    Attributes:
        grows: whether each record can be appended to the file as soon as it is known.
        keyed: whether :meth:`key` says something, so that it is asked before anything is captioned.
        names_by_number: whether records need ``image_id``.
    """

    grows: bool = True
    keyed: bool = False
    names_by_number: bool = False
    header: str = ""
    separator: str = ""
    footer: str = ""

    def key(self, image: str) -> None:
        """Look at the name of an image before any is captioned.

        Raises:
            OptionError: it has no place in the file.
        """

    def record(self, record: Record) -> str:
        """What the file says of an image, line end included; empty if it says nothing."""
        raise NotImplementedError

    def pieces(self, records: Iterable[Record]) -> Iterator[bytes]:
        """A whole file, piece by piece."""
        yield encoded(self.header)
        first = True
        for record in records:
            if text := self.record(record):
                yield encoded(text if first else self.separator + text)
                first = False
        yield encoded(self.footer)


class Text(Writer):
    """``path<TAB>caption``, one line a caption; control characters are escaped, failures left out."""

    def __init__(self, *, log_prob: bool = False) -> None:
        self.log_prob = log_prob

    def record(self, record: Record) -> str:
        """See :class:`Writer`."""
        name = printable(record.name)
        return "".join(
            f"{name}\t{printable(caption.text)}" + (f"\t{caption.log_prob:.2f}\n" if self.log_prob else "\n")
            for caption in record.captions
        )


class JsonLines(Writer):
    """One JSON object an image, with ``caption`` and ``log_prob``, or with ``error``.

    There is ``confidence`` too, if the checkpoint is calibrated.

    Args:
        several: add the list ``captions``.
    """

    def __init__(self, *, several: bool = False) -> None:
        self.several = several

    def record(self, record: Record) -> str:
        """See :class:`Writer`."""
        return json.dumps(self.fields(record), ensure_ascii=False) + "\n"

    def fields(self, record: Record) -> dict[str, object]:
        """A record as plain values."""
        if record.error is not None:
            return {"image": record.name, "error": record.error}
        captions: list[dict[str, object]] = [
            # Left out rather than null: files of checkpoints without confidence stay what they were.
            {"caption": each.text, "log_prob": each.log_prob}
            | ({} if each.confidence is None else {"confidence": each.confidence})
            for each in record.captions
        ]
        return {"image": record.name, **captions[0]} | ({"captions": captions} if self.several else {})


class ImageFolder(Writer):
    """Hugging Face's ``metadata.jsonl``: ``file_name``, a path below its folder, and ``text``; failures left out.

    Args:
        folder: where the file lies.
    """

    keyed = True

    def __init__(self, folder: Path = Path()) -> None:
        self.folder = folder

    def key(self, image: str) -> None:
        """See :class:`Writer`."""
        self._below(image)

    def _below(self, image: str) -> str:
        name = os.path.relpath(image, self.folder)
        if name.startswith(os.pardir + os.sep):
            what = f"{display_name(image)}: is not below {self.folder or '.'}"
            raise OptionError(what, "write metadata.jsonl into the folder of the images")
        return Path(name).as_posix()

    def record(self, record: Record) -> str:
        """See :class:`Writer`."""
        if not record.captions:
            return ""
        fields = {"file_name": self._below(record.name), "text": record.captions[0].text}
        return json.dumps(fields, ensure_ascii=False) + "\n"


class Csv(Writer):
    """RFC 4180 with the columns image, caption, log_prob and error; one row a caption or failure."""

    header = "image,caption,log_prob,error\r\n"

    def record(self, record: Record) -> str:
        """See :class:`Writer`."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\r\n")
        if record.error is not None:
            rows.writerow((record.name, "", "", record.error))
        rows.writerows((record.name, caption.text, caption.log_prob, "") for caption in record.captions)
        return text.getvalue()


class Coco(Writer):
    """A COCO results file: ``[{"image_id": 139, "caption": "..."}, ...]``, best captions, no failures."""

    grows = False
    keyed = names_by_number = True
    header = "[\n"
    separator = ",\n"
    footer = "\n]\n"

    def record(self, record: Record) -> str:
        """See :class:`Writer`."""
        if not record.captions:
            return ""
        fields = {"image_id": record.image_id, "caption": record.captions[0].text}
        return json.dumps(fields, ensure_ascii=False)


class Html(Writer):
    """A contact sheet: thumbnails with their captions, and links to the images.

    Args:
        folder: where the file lies, links start there; None for no links.
    """

    grows = False
    header = _HEADER
    footer = _FOOTER

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def record(self, record: Record) -> str:
        """See :class:`Writer`."""
        name = f"<small>{escape(printable(record.name))}</small>"
        if record.error is not None:
            reason = record.error.removeprefix(f"{printable(record.name)}: ")
            image = self._linked('<span class="absent">failed</span>', record.name)
            return f'<li class="failed"><div>{image}<p>{escape(printable(reason))}</p>{name}</div></li>\n'
        best, *others = (escape(printable(caption.text)) for caption in record.captions)
        more = "".join(f'<p class="other">{text}</p>' for text in others)
        image = '<span class="absent">no thumbnail</span>'
        if record.thumbnail is not None:
            image = f'<img loading="lazy" decoding="async" alt="{best}" src="{draw.data_uri(record.thumbnail)}">'
        return f"<li><div>{self._linked(image, record.name)}<p>{best}</p>{more}{name}</div></li>\n"

    def _linked(self, content: str, image: str) -> str:
        if self.folder is None:
            return content
        try:
            address = quote(os.fsencode(Path(os.path.relpath(image, self.folder)).as_posix()))
        except ValueError:  # on another drive, where there are drives
            address = Path(image).absolute().as_uri()
        return f'<a href="{escape(address)}">{content}</a>'


WRITERS: dict[str, type[Writer]] = {
    "text": Text,
    "jsonl": JsonLines,
    "csv": Csv,
    "coco": Coco,
    "html": Html,
    "imagefolder": ImageFolder,
}


def encoded(text: str) -> bytes:
    """UTF-8; halves of characters, which names of files may hold, become escapes (exact ones in JSON)."""
    return text.encode("utf-8", "backslashreplace")
