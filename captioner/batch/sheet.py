"""A contact sheet: thumbnails with their captions as one HTML page, a card for each picture.

Nothing before or after the cards depends on them, so that the sheets of shards can be put together; even
their number is counted by the browser.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from captioner.batch.records import Entry
from captioner.images import printable
from captioner.images.thumbnails import data_uri
from captioner.pages import CLOSING, opening

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
<p class="filter"><label><input type="checkbox" id="failed"> only pictures that failed</label></p>
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
    """What the sheet shows of a picture.

    Args:
        entry: what became of it.
        folder: where the sheet lies, the link to the picture starts there; None for no link.
    """
    name = f"<small>{escape(printable(entry.image))}</small>"
    if entry.error is not None:
        reason = entry.error.removeprefix(f"{printable(entry.image)}: ")
        picture = _linked('<span class="absent">failed</span>', entry.image, folder)
        return f'<li class="failed"><div>{picture}<p>{escape(printable(reason))}</p>{name}</div></li>\n'
    best, *others = (escape(printable(line.text)) for line in entry.captions)
    more = "".join(f'<p class="other">{text}</p>' for text in others)
    picture = _linked(_image(entry.thumbnail, best), entry.image, folder)
    return f"<li><div>{picture}<p>{best}</p>{more}{name}</div></li>\n"


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
