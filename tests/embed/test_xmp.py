from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from captioner.embed.xmp import ALT_TEXT, DESCRIPTION, read_packet, write_packet
from tests.embed.pictures import CAPTION

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
BOTH = {DESCRIPTION: CAPTION, ALT_TEXT: "x"}
SET = {key: (text,) for key, text in BOTH.items()}


def packet(inner: str, *, end: str = "</r:RDF>") -> bytes:
    namespaces = f'xmlns:r="{RDF}" xmlns:d="{DESCRIPTION.namespace}" xmlns:a="http://a/"'
    return f"<r:RDF {namespaces}>{inner}{end}".encode()


@pytest.mark.parametrize(
    ("inner", "found"),
    [
        ("", None),
        ("<r:Description/>", None),
        ("<r:Description d:description='one &gt; two' a:description='other'/>", "one > two"),
        ("<r:Description><d:description>one</d:description></r:Description>", "one"),
        ("<r:Description><d:description/></r:Description>", None),
        ("<r:Description><d:description></d:description></r:Description>", None),
        ("<r:Description><a:b><d:description>not here</d:description></a:b></r:Description>", None),
        (
            "<r:Description><d:description><r:Alt><r:li>one</r:li></r:Alt></d:description></r:Description>",
            "one",
        ),
        (
            "<r:Description><d:description><r:Alt><r:li xml:lang='de'>eins</r:li><r:li xml:lang='x-default'>"
            "o<![CDATA[<n>]]>e</r:li></r:Alt></d:description></r:Description>",
            "o<n>e",
        ),
        ("<r:Description a:x='>' a:y=\"/>'\" d:description='one'>text</r:Description>", "one"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_texts_are_found_and_replaced_wherever_they_may_be(inner: str, found: str | None, mark: bytes) -> None:
    before = mark + packet(inner)
    assert next(iter(read_packet(before).get(DESCRIPTION, ())), None) == found
    after = write_packet(before, BOTH)
    assert read_packet(after) == SET
    tree = ElementTree.fromstring(after)
    assert len(tree.findall(f".//{{{RDF}}}Description/{{{DESCRIPTION.namespace}}}description")) == 1
    assert not any(f"{{{DESCRIPTION.namespace}}}description" in each.attrib for each in tree.iter())
    assert after.count(b"not here") == before.count(b"not here")
    assert after.count(b"a:description='other'") == before.count(b"a:description='other'")
    assert write_packet(after, BOTH) == after


def test_an_empty_element_is_opened() -> None:
    before = packet("", end="").replace(b">", b"/>")
    assert read_packet(write_packet(before, BOTH)) == SET


def test_one_text_can_be_set_alone() -> None:
    after = write_packet(packet("<r:Description d:description='one'/>"), {ALT_TEXT: "two"})
    assert read_packet(after) == {DESCRIPTION: ("one",), ALT_TEXT: ("two",)}
    assert read_packet(None) == {}


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"nonsense",
        b"<a/>",
        packet("", end=""),
        packet("").decode().encode("utf-16"),
        packet("<r:Description d:description='\xe9'/>").replace(b"\xc3\xa9", b"\xe9"),
        b'<!DOCTYPE r [<!ENTITY a "aaaa">]>' + packet("<r:Description d:description='&a;'/>"),
    ],
)
def test_what_is_no_xmp_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"its XMP is (damaged|in UTF-16)"):
        write_packet(damaged, BOTH)
