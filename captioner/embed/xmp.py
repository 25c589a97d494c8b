"""XMP, which is RDF in XML: read some texts, and set them while every other byte stays."""

import re
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML = "http://www.w3.org/XML/1998/namespace"


class Property(NamedTuple):
    """A text of XMP, which may be there in several languages; ``plain`` if it may not."""

    namespace: str
    prefix: str
    name: str
    plain: bool = False

    @property
    def key(self) -> str:
        """As the parser calls it."""
        return f"{self.namespace} {self.name}"


DESCRIPTION = Property("http://purl.org/dc/elements/1.1/", "dc", "description")
ALT_TEXT = Property("http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/", "Iptc4xmpCore", "AltTextAccessibility")
DESCRIPTIONS = (
    DESCRIPTION,
    Property("http://ns.adobe.com/tiff/1.0/", "tiff", "ImageDescription"),
    Property("http://ns.adobe.com/exif/1.0/", "exif", "UserComment"),
    Property("http://ns.acdsee.com/iptc/1.0/", "acdsee", "caption", plain=True),
    Property("http://ns.acdsee.com/iptc/1.0/", "acdsee", "notes", plain=True),
)
"""Where programs write a description; not a title, a headline or the alt text."""
_PROPERTIES = {each.key: each for each in (*DESCRIPTIONS, ALT_TEXT)}

_NEW = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    b"</rdf:RDF>\n</x:xmpmeta>\n"
    b'<?xpacket end="w"?>'
)
_TAG = re.compile(rb"""<[^\s/>]+(?:[^"'>]|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_PADDING = re.compile(rb"\s{3,}(?=<\?xpacket end)")


def read_packet(packet: bytes | None) -> dict[Property, tuple[str, ...]]:
    """The texts in a packet that are not empty, in all languages and wherever they stand: the default language first.

    Raises:
        ValueError: it is no XMP in UTF-8.
    """
    return {} if packet is None else _Scan(packet).sorted_texts()


def write_packet(packet: bytes | None, texts: dict[Property, str], *, limit: int | None = None) -> bytes:
    """A packet with texts set.

    Args:
        packet: what is there; None for nothing.
        texts: by property.
        limit: bytes; room kept for later changes is given up where it would be exceeded.

    Raises:
        ValueError: ``packet`` is no XMP in UTF-8, or the limit is exceeded nevertheless.
    """
    packet = _NEW if packet is None else packet.rstrip(b"\0")
    scan = _Scan(packet)
    edits = [edit for key in texts for edit in scan.edits(key, _element(key, texts[key]))]
    missing = b"".join(_element(key, text) for key, text in texts.items() if key not in scan.elements)
    if missing:
        edits.append(scan.addition(missing))
    for start, end, new in sorted(edits, reverse=True):
        packet = packet[:start] + new + packet[end:]
    if limit is not None and len(packet) > limit:
        packet = _PADDING.sub(b"\n", packet)
        if len(packet) > limit:
            raise ValueError("its XMP has no room for a caption")
    return packet


def _element(key: Property, text: str) -> bytes:
    name, content = f"{key.prefix}:{key.name}", escape(text)
    if not key.plain:
        content = f'<rdf:Alt xmlns:rdf="{_RDF}"><rdf:li xml:lang="x-default">{content}</rdf:li></rdf:Alt>'
    return f'<{name} xmlns:{key.prefix}="{key.namespace}">{content}</{name}>'.encode()


class _Scan:
    """Where in a packet what is.

    Attributes:
        elements: where the properties' elements lie; there should be one of each at most.
    """

    def __init__(self, packet: bytes) -> None:
        self.elements: dict[Property, list[tuple[int, int]]] = {}
        self._packet = packet
        self._attributes: list[tuple[Property, int, int]] = []
        self._prefixes: set[tuple[str, bytes]] = set()
        self._about = ""
        self._rdf: tuple[int, int] | None = None  # where its end tag begins, and its start tag
        self._open: list[tuple[str, int]] = []
        self._texts: list[tuple[Property, str, str]] = []  # with their languages
        self._language, self._text = "", ""
        self._parser = expat.ParserCreate("utf-8", " ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartNamespaceDeclHandler = self._declare
        self._parser.StartDoctypeDeclHandler = self._refuse
        if packet.startswith((b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0")):
            raise ValueError("its XMP is in UTF-16 or UTF-32, where only UTF-8 is read")
        try:
            self._parser.Parse(packet.rstrip(b"\0"), True)
        except (expat.ExpatError, UnicodeError) as error:
            raise ValueError(f"its XMP is damaged ({error})") from error
        if self._rdf is None:
            raise ValueError("its XMP is damaged (no rdf:RDF)")

    def sorted_texts(self) -> dict[Property, tuple[str, ...]]:
        """All texts of each property; see :func:`read_packet`."""
        found: dict[Property, tuple[str, ...]] = {}
        for key, language, text in self._texts:
            known = found.get(key, ())
            found[key] = (text, *known) if language == "x-default" else (*known, text)
        return found

    def edits(self, key: Property, new: bytes) -> list[tuple[int, int, bytes]]:
        """Start, end and replacement of what is there of a property."""
        spans = self.elements.get(key, [])
        edits = [(start, end, b"" if number else new) for number, (start, end) in enumerate(spans)]
        return edits + [(start, end, b"") for each, start, end in self._attributes if each == key]

    def addition(self, elements: bytes) -> tuple[int, int, bytes]:
        """The edit that adds elements, in a description of their own."""
        about = quoteattr(self._about).encode()
        new = b'<rdf:Description xmlns:rdf="%b" rdf:about=%b>%b</rdf:Description>\n'
        new %= (_RDF.encode(), about, elements)
        assert self._rdf is not None, "a scan without rdf:RDF is refused"
        start, tag = self._rdf
        if start != tag:
            return start, start, new
        whole = self._tag_at(tag)  # <rdf:RDF/>
        name = whole[1:].split()[0].rstrip(b"/>")
        return start, start + len(whole), whole[:-2] + b">\n" + new + b"</" + name + b">"

    def _declare(self, prefix: str | None, namespace: str) -> None:
        self._prefixes.add((namespace, (prefix or "").encode()))

    def _refuse(self, *declaration: object) -> None:
        raise ValueError("its XMP is damaged (it declares a document type)")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        start = self._parser.CurrentByteIndex
        self._open.append((name, start))
        path = [each for each, _ in self._open]
        if path[-2:] == [f"{_RDF} RDF", f"{_RDF} Description"]:
            self._about = attributes.get(f"{_RDF} about", self._about)
            for key in _PROPERTIES.keys() & attributes.keys():
                self._note(_PROPERTIES[key], "", attributes[key])
                self._attributes.append((_PROPERTIES[key], *self._attribute(start, _PROPERTIES[key])))
        elif (inside := self._property()) is not None:
            self._language, self._text = attributes.get(f"{_XML} lang", ""), ""
            self._note(inside, self._language, attributes.get(f"{_RDF} value", ""))

    def _note(self, key: Property, language: str, text: str) -> None:
        if text.strip():
            self._texts.append((key, language, text))

    def _characters(self, text: str) -> None:
        self._text += text

    def _end(self, name: str) -> None:
        key, depth = self._property(), len(self._open)
        _, start = self._open.pop()
        tag = self._tag_at(start)
        end_tag = self._parser.CurrentByteIndex
        if tag.endswith(b"/>"):
            end_tag = start
        if name == f"{_RDF} RDF" and self._rdf is None:
            self._rdf = end_tag, start
        if key is None:
            return
        self._note(key, self._language, self._text)
        self._text = ""
        if depth == self._property_depth():
            end = start + len(tag) if end_tag == start else self._packet.index(b">", end_tag) + 1
            self.elements.setdefault(key, []).append((start, end))

    def _property(self) -> Property | None:
        """The property that the parser is in."""
        depth = self._property_depth()
        if depth is None or len(self._open) < depth:
            return None
        return _PROPERTIES.get(self._open[depth - 1][0])

    def _property_depth(self) -> int | None:
        """How many elements are open in a property's own: two more than to rdf:RDF."""
        names = [name for name, _ in self._open]
        return names.index(f"{_RDF} RDF") + 3 if f"{_RDF} RDF" in names else None

    def _tag_at(self, start: int) -> bytes:
        match = _TAG.match(self._packet, start)
        if match is None:
            raise ValueError("its XMP is damaged (a tag has no end)")
        return match.group()

    def _attribute(self, start: int, key: Property) -> tuple[int, int]:
        for match in _ATTRIBUTE.finditer(self._tag_at(start)):
            prefix, _, name = match[1].rpartition(b":")
            if name == key.name.encode() and (key.namespace, prefix) in self._prefixes:
                return start + match.start(), start + match.end()
        raise ValueError("its XMP is damaged (an attribute is not where it should be)")
