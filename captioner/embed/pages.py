"""Alt texts inside web pages: images without one get their caption, and no other byte of a page changes.

HTML is read as browsers read it, by justhtml, which knows where each tag begins; XHTML by expat. The text of the page
is never written anew: attributes are inserted behind the names of tags.
"""

from __future__ import annotations

import os
import re
import stat
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from justhtml import Element, JustHTML

from captioner.bulk.pipeline import caption_items
from captioner.errors import CaptionerError, ImageError, os_errors_as
from captioner.files import replacing, resemble, status_of_writable
from captioner.images import display_name, find, open_image
from captioner.images.reading import digest_of

if TYPE_CHECKING:
    from captioner.captioner import Captioner
    from captioner.decoding.options import DecodingOptions

PAGE_EXTENSIONS = frozenset({".html", ".htm", ".xhtml", ".xht"})
TO_WRITE, WRITTEN, FAILED = "to write", "written", "failed"
DESCRIBED, DECORATIVE, NAMED, TEMPLATE = "with alt text", "decorative", "named otherwise", "in a template"
LEFT_ALONE = (DESCRIBED, DECORATIVE, NAMED, TEMPLATE)

_Attributes = Mapping[str, str | None]
_MOST_BYTES = 32 << 20
_HEAD_BYTES = 4096
_MARKS = {BOM_UTF8: "utf-8", BOM_UTF16_LE: "utf-16-le", BOM_UTF16_BE: "utf-16-be"}
_DECLARED = re.compile(rb"""<(?:\?xml\s[^>]*?encoding|meta\s[^>]*?charset)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_LATIN = ("iso-8859-1", "latin1", "ascii", "us-ascii")
_TAG_NAME = re.compile(r"<(?:[^\s:/>]+:)?(?:img|image)(?=[\s/>])", re.IGNORECASE)
# Code of a server between the tags, which may hold tags of its own.
_CODE = re.compile(r"<\?(?:php\b|[=\s]).*?(?:\?>|\Z)|<%.*?%>", re.DOTALL | re.IGNORECASE)
# Code in a tag, or an attribute that a script fills in: `:alt`, `[attr.alt]`, `th:src` and the like.
_FILLED = re.compile(r".*[{}<>%?$].*|(?!data-).*[^a-z](?:alt|src)\W*", re.DOTALL)
_XHTML = "http://www.w3.org/1999/xhtml "
_SPACE = " \t\n\f\r"
# Scripts that load images late keep the addresses of what readers will see in data attributes.
_SOURCES, _SOURCE_SETS = ("data-src", "data-original", "data-lazy-src", "src"), ("data-srcset", "srcset")
_NAMES = ("aria-label", "aria-labelledby", "title")
_SPACER_SIDE = re.compile(r"\s*[0-2](?:px)?\s*")
_SPACER_PIXELS, _SPACER_BYTES = 2, 2048


@dataclass(frozen=True)
class PageImage:
    """An image of a page.

    Attributes:
        line: where its tag begins, counted from 1.
        place: where an attribute can be inserted, in characters of the page.
        source: its address as the page has it, the first 200 characters.
        state: ``to write``, ``written``, ``failed``, or in a word or two why it gets no alt text.
        file: the image, if it is to be captioned.
        text: its new alt text, or why it failed.
    """

    line: int
    place: int
    source: str
    state: str
    file: Path | None = None
    text: str | None = None


@dataclass(frozen=True)
class Page:
    """A page with its images in order; ``error`` says in one line why it cannot be read or written."""

    path: Path
    images: tuple[PageImage, ...] = ()
    digest: bytes = b""
    error: str | None = None


def describe_pages(
    paths: Sequence[str],
    model: Captioner,
    options: DecodingOptions,
    *,
    root: Path | None = None,
    in_place: bool = False,
    batch_size: int = 16,
) -> Iterator[Page]:
    """Caption the images of pages that have no alt text, each image once, wherever it stands.

    Args:
        paths: pages, and folders of pages.
        model: what writes the captions.
        options: decoding options; the first caption of an image counts.
        root: where addresses that begin with a slash start; by default the folder in ``paths`` that the page lies in,
            or else the page's own folder.
        in_place: write each page as soon as its last image has a caption.
        batch_size: images that go through the network together.
    """
    waiting: deque[Page] = deque()
    made: dict[Path, dict[str, Any]] = {}  # what is known of images that have been captioned

    def images() -> Iterator[Path]:
        asked: set[Path] = set()
        for path in find.find_images(paths, extensions=PAGE_EXTENSIONS):
            sites = (Path(folder) for folder in paths if Path(folder) in path.parents)
            waiting.append(read_page(path, root or next(sites, path.parent)))
            for image in waiting[-1].images:
                if image.file is not None and image.file not in asked:
                    asked.add(image.file)
                    yield image.file

    def finished(page: Page) -> Page:
        images = (image if image.file is None else replace(image, **made[image.file]) for image in page.images)
        page = replace(page, images=tuple(images))
        return _written(page) if in_place else page

    for record in caption_items(model, images(), options, batch_size=batch_size):
        text = record.captions[0].text if record.captions else record.error
        made[Path(record.name)] = {"state": TO_WRITE if record.captions else FAILED, "text": text}
        while waiting and all(image.file is None or image.file in made for image in waiting[0].images):
            yield finished(waiting.popleft())
    yield from map(finished, waiting)


def read_page(path: Path, root: Path) -> Page:
    """Find the images of a page; its ending says whether it is XHTML, ``root`` is as in :func:`describe_pages`."""
    try:
        data = _read(path)
        finder = _Finder(_decode(data, path)[2], path, root)
        finder.read()
    except CaptionerError as error:
        return Page(path, error=str(error))
    return Page(path, tuple(finder.images), digest_of(data))


def insert_alts(data: bytes, path: Path, alts: Mapping[int, str]) -> bytes:
    """Insert alt attributes into a page, texts by the ``place`` of their images.

    Raises:
        CaptionerError: the page cannot be decoded.
    """
    mark, encoding, text = _decode(data, path)
    parts, last = [], 0
    for place, alt in sorted(alts.items()):
        value = quoteattr(alt).encode(encoding, "xmlcharrefreplace").decode(encoding)
        parts += [text[last:place], f" alt={value}"]
        last = place
    return mark + "".join([*parts, text[last:]]).encode(encoding, "surrogateescape")


def _written(page: Page) -> Page:
    """Put a page with its alt texts in its own place; a link stays a link."""
    alts = {image.place: image.text or "" for image in page.images if image.state == TO_WRITE}
    path, name = Path(os.path.realpath(page.path)), display_name(page.path)
    if not alts:
        return page
    try:
        data = _read(path)
        if digest_of(data) != page.digest:
            raise CaptionerError(f"{name}: has changed meanwhile, and stays as it is", "give the same command again")
        with os_errors_as(CaptionerError, f"cannot write {name}: "):
            before = status_of_writable(path, name)
            with replacing(path) as file:
                file.write(insert_alts(data, page.path, alts))
                resemble(file, path, before)
    except CaptionerError as error:
        return replace(page, error=str(error))
    done = (replace(image, state=WRITTEN) if image.place in alts else image for image in page.images)
    return replace(page, images=tuple(done))


def _read(path: Path) -> bytes:
    name = display_name(path)
    with os_errors_as(CaptionerError, f"{name}: cannot be read (", ")"):
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for its writer
            raise CaptionerError(f"{name}: is not a regular file")
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise CaptionerError(f"{name}: is longer than {_MOST_BYTES >> 20} MiB")
    return data


def _decode(data: bytes, path: Path) -> tuple[bytes, str, str]:
    """Byte-order mark, encoding and text of a page, which give the same bytes again.

    Bytes that are wrong in the encoding become surrogates, and stay.
    """
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    body = data.removeprefix(mark)
    encoding = _MARKS[mark] if mark else _declared(body)
    try:
        text = body.decode(encoding, "surrogateescape")
        if "\0" not in text and text.encode(encoding, "surrogateescape") == body:
            return mark, encoding, text
    except (LookupError, ValueError):  # no such encoding, or other bytes than it has
        pass
    name = display_name(path)
    raise CaptionerError(f"{name}: is not a page in the encoding {encoding}, and stays as it is", "save it as UTF-8")


def _declared(data: bytes) -> str:
    """The encoding that a page without a byte-order mark declares, or else UTF-8 or windows-1252."""
    found = _DECLARED.search(_COMMENT.sub(b"", data[:_HEAD_BYTES]))
    label = found[1].decode().lower() if found else ""
    if label.startswith(("utf-16", "utf-32")):  # it could not be read as ASCII then
        return "utf-8"
    if label:
        return "cp1252" if label in _LATIN else label  # as browsers have it
    try:
        data.decode()
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


class _Finder:
    """Finds the images of a page.

    Attributes:
        images: those that have been found, in order.
    """

    def __init__(self, text: str, path: Path, root: Path) -> None:
        self.images: list[PageImage] = []
        self._text, self._path, self._root = text, path, root.absolute()
        self._page = self._base = path.absolute().as_uri()
        self._open: list[str | None] = []  # what each open element makes of the images inside
        self._choices: list[str] = []  # what a <picture> offers beside its image

    def read(self) -> None:
        """Find them.

        Raises:
            CaptionerError: it is XHTML that is not well-formed.
        """
        if self._path.suffix.lower() in (".xhtml", ".xht"):
            self._read_xml(self._text.encode("utf-8", "surrogateescape"))
            return
        # Without scripts, what is in <noscript> is part of the page.
        text = _CODE.sub(lambda code: re.sub(r"[^\r\n]", "{", code[0]), self._text)
        root = JustHTML(text, sanitize=False, track_node_locations=True, scripting_enabled=False).root
        nodes: list[Any] = [*reversed(root.children or ())]
        while nodes:
            node = nodes.pop()
            if node is None:
                self._open.pop()
            elif isinstance(node, Element):
                self._start(node.name, node.attrs, node.origin_offset or 0, node.origin_line or 0)
                inside = getattr(node, "template_content", None) or node
                nodes += [None, *reversed(inside.children or ())]

    def _read_xml(self, data: bytes) -> None:
        parser = expat.ParserCreate("utf-8", " ")
        parser.UseForeignDTD(True)  # which may know &nbsp; and the like

        def start(name: str, attributes: dict[str, str]) -> None:
            name, index = name.removeprefix(_XHTML), parser.CurrentByteIndex
            offset = len(data[:index].decode()) if name == "img" else 0
            self._start(name, attributes, offset, parser.CurrentLineNumber)

        parser.StartElementHandler, parser.EndElementHandler = start, lambda name: self._open.pop()
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            name = display_name(self._path)
            raise CaptionerError(f"{name}: is not well-formed XHTML ({error}), and stays as it is") from error

    def _start(self, name: str, attributes: _Attributes, offset: int, line: int) -> None:
        """Take a start tag, which begins at a character of the page and in a line of it."""
        inside = self._open[-1] if self._open else None
        if name == "template":
            inside = TEMPLATE
        elif inside is None and (attributes.get("aria-hidden") or "").lower() == "true":
            inside = DECORATIVE
        self._open.append(inside)
        if name == "base" and inside != TEMPLATE and self._base == self._page:
            with suppress(ValueError):  # an address that is none, which browsers ignore too
                self._base = self._join(attributes.get("href") or "")
        elif name in ("picture", "source"):
            self._choices = [*self._choices, attributes.get("srcset") or ""] if name == "source" else []
        elif name == "img" and (tag := _TAG_NAME.match(self._text, offset)):  # one in an entity of XML has no tag here
            source = (attributes.get("src") or "")[:200]
            self.images.append(PageImage(line, tag.end(), source, *self._judge(attributes, inside)))
            self._choices = []

    def _judge(self, attributes: _Attributes, inside: str | None) -> tuple[str, Path | None]:
        """State of an image, and its file if it is to be captioned."""
        if inside == TEMPLATE or any(map(_FILLED.fullmatch, attributes)):
            return TEMPLATE, None
        if "alt" in attributes:
            return (DESCRIBED if (attributes["alt"] or "").strip() else DECORATIVE), None
        if inside or (attributes.get("role") or "").lower().split()[:1] in (["presentation"], ["none"]):
            return DECORATIVE, None
        if any((attributes.get(name) or "").strip() for name in _NAMES):
            return NAMED, None
        sources = [attributes.get(name) or "" for name in _SOURCES]
        choices = [attributes.get(name) or "" for name in _SOURCE_SETS]
        for choice in choices if any(sources + choices) else self._choices:
            parts = re.split(r",\s", choice)
            sources += [word.rstrip(",") for part in parts for word in part.split()[:1]]
        places = [self._locate(source) for source in sources if source.strip(_SPACE)]
        file = next((place for place in places if isinstance(place, Path)), None)
        if _is_spacer(attributes, file):
            return "spacer", None
        if file is None:
            return (str(places[0]) if places else "no source"), None
        return TO_WRITE, Path(os.path.realpath(file))

    def _join(self, address: str) -> str:
        """A whole address; ``file:`` for what lies here."""
        address = address.strip(_SPACE).replace("\\", "/")  # as browsers do
        if self._base.startswith("file:") and address.startswith("/") and not address.startswith("//"):
            return self._root.as_uri() + address
        return urljoin(self._base, address)

    def _locate(self, source: str) -> Path | str:
        """The file of an address, or in a word or two why there is none."""
        if source.strip(_SPACE)[:5].lower() == "data:":
            return "data URI"
        try:
            url = urlsplit(self._join(source))
        except ValueError:  # such as half an IPv6 address
            return "remote"
        if url.scheme != "file" or url.netloc:
            return "remote"
        file = Path(os.fsdecode(unquote_to_bytes(url.path.encode("utf-8", "surrogateescape"))))
        if not os.path.isfile(file) or file == self._path.absolute():  # noqa: PTH113 (a name may be too long)
            return "no file"
        return "SVG" if file.suffix.lower() in (".svg", ".svgz") else file


def _is_spacer(attributes: _Attributes, file: Path | None) -> bool:
    """Whether an image is shown, or is, at most two pixels wide or high; long files are not looked into."""
    if any(_SPACER_SIDE.fullmatch(attributes.get(side) or "") for side in ("width", "height")):
        return True
    with suppress(OSError, ImageError):  # captioning it will say what is wrong
        if file is not None and file.stat().st_size <= _SPACER_BYTES:
            return min(open_image(file).size) <= _SPACER_PIXELS
    return False
