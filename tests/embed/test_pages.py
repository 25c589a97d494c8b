"""Alt texts inside web pages: which images get one, and that not one other byte changes."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner.caption import Caption
from captioner.embed import pages
from captioner.embed.pages import TO_WRITE, Page, describe_pages, insert_alts, read_page
from captioner.records import Record

TEXT = "A dog runs."
ALT = f' alt="{TEXT}"'
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
HERE = '<img src="a.png">'
IMG = f'<img{ALT} src="a.png">'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few images; tests write only their own page."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "img").mkdir()
    for name in ("a.png", "img/a.png", "img/b c.png", "img/ü.png", "img/100%.png"):
        Image.new("RGB", (9, 9), "red").save(folder / name)
    Image.new("RGB", (1, 40)).save(folder / "line.png")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return folder


def described(data: bytes, site: Path, name: str = "page.html") -> bytes:
    """A page with the same alt text for all images that need one."""
    path = site / name
    path.write_bytes(data)
    page = read_page(path, site)
    assert page.error is None
    return insert_alts(data, path, {image.place: TEXT for image in page.images if image.state == TO_WRITE})


def state(markup: str, site: Path) -> str:
    """What becomes of the only image."""
    (site / "state.html").write_text(markup, encoding="utf-8")
    (image,) = read_page(site / "state.html", site).images
    return image.state


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        (HERE, "to write"),
        ("<a href=b.html><img src=a.png></a>", "to write"),
        ("<button><img src=a.png></button>", "to write"),
        ("<noscript><img src=a.png></noscript>", "to write"),
        ("<svg><foreignObject><img src=a.png></foreignObject></svg>", "to write"),
        ("<picture><source srcset=x.webp><img src=a.png></picture>", "to write"),
        ("<picture><source srcset='a.png 2x'><img></picture>", "to write"),
        ("<picture><source srcset=a.png></picture><img src=b.png>", "no file"),
        ("<picture><source srcset=a.png><img src=b.png></picture>", "no file"),
        ("<img src=a.png :class=x data-src=a.png @load=f class='{{ x }}'>", "to write"),
        *(
            (f"<img src=a.png {filled}>", "in a template")
            for filled in (
                ":alt=x",
                ":src=x",
                "v-bind:alt=x",
                "[alt]=x",
                "[attr.alt]=x",
                "ng-attr-alt={{x}}",
                "th:alt=x",
                "<?= $alt ?>",
                "<?php if ($a > 1) echo 'alt=x'; ?>",
                "<%= alt %>",
                "{% if x %}alt='{{ x }}'{% endif %}",
                "{{#if x}}alt=x{{/if}}",
                "{...props}",
            )
        ),
        ("<img src=a.png alt='Max'>", "with alt text"),
        ("<IMG SRC=a.png ALT=Max>", "with alt text"),
        ("<img src=a.png alt=Max alt=''>", "with alt text"),
        ("<img src=a.png aria-hidden=true alt=Max>", "with alt text"),
        ('<img src=a.png alt="">', "decorative"),
        ("<img src=a.png alt>", "decorative"),
        ("<img src=a.png alt=' '>", "decorative"),
        ("<img src=a.png role=presentation>", "decorative"),
        ("<img src=a.png role=None>", "decorative"),
        ("<img src=a.png aria-hidden=true>", "decorative"),
        ("<div aria-hidden=TRUE><p><img src=a.png></div>", "decorative"),
        ("<div aria-hidden=true></div><img src=a.png aria-hidden=false role=img>", "to write"),
        ("<img src=a.png title='Max'>", "named otherwise"),
        ("<img src=a.png aria-label='Max'>", "named otherwise"),
        ("<img src=a.png aria-labelledby=b>", "named otherwise"),
        ("<img src=a.png title='' aria-label=' '>", "to write"),
        ("<template><p><img src=a.png></template>", "in a template"),
        ("<img src=a.png width=1 height=1>", "spacer"),
        ("<img src=https://example.org/count.gif width=1px>", "spacer"),
        ("<img src=a.png width=100% height=20>", "to write"),
        ("<img src=line.png>", "spacer"),
        ("<img>", "no source"),
        ("<img src>", "no source"),
        ("<img src=' '>", "no source"),
        ("<img src=b.png>", "no file"),
        ("<img src=img>", "no file"),
        ("<img src='#'>", "no file"),
        ("<img src=%00.png>", "no file"),
        (f"<img src={'x' * 5000}.png>", "no file"),
        ("<img src=https://example.org/a.png>", "remote"),
        ("<img src=//example.org/a.png>", "remote"),
        ("<img src='http://[a.png'>", "remote"),
        ("<base href=https://example.org/><img src=a.png>", "remote"),
        ("<base href=https://example.org/><img src=/a.png>", "remote"),
        ("<img src=file://server/a.png>", "remote"),
        (f"<img src={PIXEL}>", "data URI"),
        ("<img src=drawing.svg>", "SVG"),
    ],
)
def test_what_becomes_of_an_image(markup: str, expected: str, site: Path) -> None:
    assert state(markup, site) == expected


@pytest.mark.parametrize(
    ("markup", "file"),
    [
        ("<img src=img/a.png>", "img/a.png"),
        ("<img src='  img/a.png\n'>", "img/a.png"),
        ("<img src=./img/../img/a.png?v=3#top>", "img/a.png"),
        ("<img src=/img/a.png>", "img/a.png"),
        (r"<img src=img\a.png>", "img/a.png"),
        ("<img src='img/b%20c.png'>", "img/b c.png"),
        ("<img src='img/b c.png'>", "img/b c.png"),
        ("<img src=img/100%25.png>", "img/100%.png"),
        ("<img src=img/100%.png>", "img/100%.png"),
        ("<img src=img/%C3%BC.png>", "img/ü.png"),
        ("<img src=img/&uuml;.png>", "img/ü.png"),
        ("<img src=img/ü.png>", "img/ü.png"),
        ("<base href=img/><img src=a.png>", "img/a.png"),
        ("<base href=/img/><base href=nowhere/><img src=a.png>", "img/a.png"),
        ("<base target=_top><base href=img/><img src=a.png>", "img/a.png"),
        ("<base href=img/><img src=/a.png>", "a.png"),
        ("<base href='http://[x'><img src=a.png>", "a.png"),
        ("<template><base href=img/></template><img src=a.png>", "a.png"),
        ("<img srcset='b.png 1x, a.png 2x'>", "a.png"),
        ("<img srcset='\n a.png\n2x,\n b.png 1x'>", "a.png"),
        ("<img src=nowhere.png srcset=a.png>", "a.png"),
        (f"<img src={PIXEL} data-src=a.png>", "a.png"),
        ("<img src=line.png data-src=a.png class=lazy>", "a.png"),
        (f"<img src={PIXEL} data-srcset='a.png 2x'>", "a.png"),
    ],
)
def test_where_an_image_lies(markup: str, file: str, site: Path) -> None:
    (site / "place.html").write_text(markup, encoding="utf-8")
    (image,) = read_page(site / "place.html", site).images
    assert (image.state, image.file) == (TO_WRITE, Path(os.path.realpath(site / file)))


def test_a_page_lies_below_its_images(site: Path) -> None:
    (site / "img" / "page.html").write_text("<img src=../a.png><img src=/a.png><img src=a.png>")
    files = [image.file for image in read_page(site / "img" / "page.html", site).images]
    assert files == [Path(os.path.realpath(site / name)) for name in ("a.png", "a.png", "img/a.png")]


NO_IMAGES = [
    *("<!-- <img src=a.png> -->", "<!--[if IE]><img src=a.png><![endif]-->", "<!-- > <img src=a.png> --!><p>"),
    *(f"<{name}><img src=a.png></{name}>" for name in ("script", "style", "textarea", "title", "iframe", "xmp")),
    "<script><!-- <script> '<img src=a.png>' </script> <img src=a.png> --></script>",
    '<p title="<img src=a.png>">',
    "<p data-x='<img src=a.png>'>",
    "<imgx src=a.png><img-x src=a.png></img>",
    "<svg><image href=a.png /></svg>",
    "<![CDATA[<img src=a.png]]>",
    "&lt;img src=a.png>",
    *("<?php if ($a > 1) { echo '<img src=a.png>';\r\n} ?>", "<?= '<img src=a.png>' ?>", "<% '<img src=a.png>' %>"),
    "< img src=a.png>",
]


@pytest.mark.parametrize("markup", NO_IMAGES)
def test_what_only_looks_like_an_image_stays(markup: str, site: Path) -> None:
    data = f"<body>{markup}{HERE}{markup}".encode()
    assert described(data, site) == f"<body>{markup}{IMG}{markup}".encode()


def test_an_unfinished_tag_is_no_image(site: Path) -> None:
    assert described(b"<p><img src=a.png", site) == b"<p><img src=a.png"
    assert described(b"<plaintext><img src=a.png>", site) == b"<plaintext><img src=a.png>"


@pytest.mark.parametrize(
    "markup",  # with a mark where an alt text goes
    [
        "<ImG§\tsrc=a.png>",
        "<IMG§ SRC=a.png><IMG SRC=A.PNG>",
        "<img§\r\n  src='a.png'\r\n>",
        "<img§/src=a.png>",
        "<img§ src=a.png />",
        "<img§ src=a.png class=>",
        "<img§ class='>' src=a.png>",
        "<image§ src=a.png>",
        "<img§ src=a.png data-a='alt=b'>",
        "<![if !IE]><img§ src=a.png><![endif]>",
        "<table><img§ src=a.png><tr><td><img§ src=a.png>",
        "<b><p><img§ src=a.png></b>x</p>",
        "</html><img§ src=a.png></p></p>",
    ],
)
def test_the_attribute_goes_behind_the_name(markup: str, site: Path) -> None:
    assert described(markup.replace("§", "").encode(), site).decode() == markup.replace("§", ALT)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("encoding", "mark", "label"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8", b"", ""),
        ("utf-8", b"\xef\xbb\xbf", "latin1"),
        ("utf-8", b"", "utf-16"),
        ("utf-16-le", b"\xff\xfe", "utf-16"),
        ("utf-16-be", b"\xfe\xff", "utf-8"),
        ("cp1252", b"", "ISO-8859-1"),
        ("cp1252", b"", ""),
        ("iso-8859-15", b"", " iso-8859-15"),
        ("gb18030", b"", "gb18030"),
        ("iso2022_jp_2", b"", "iso2022_jp_2"),
    ],
)
def test_every_other_byte_stays_in_every_encoding(encoding: str, mark: bytes, label: str, end: str, site: Path) -> None:
    lines = [f"<!-- <meta charset=klingon> --><meta content='text/html; charset={label}'>" * bool(label), "<p>ü"]
    before = end.join([*lines, '<img src="img/ü.png"> ü', HERE, ""])
    after = end.join([*lines, f'<img{ALT} src="img/ü.png"> ü', IMG, ""])
    assert described(mark + before.encode(encoding), site) == mark + after.encode(encoding)


def test_bytes_that_are_wrong_in_the_encoding_stay(site: Path) -> None:
    for label in (b"utf-8", b"shift_jis", b"gbk", b"euc-kr", b"big5", b"windows-1252"):
        start = b"<meta charset=" + label + b">\xff\x81 \xe3\x81<p>\x8f"
        assert described(start + HERE.encode() + b"\xfe\x81", site) == start + IMG.encode() + b"\xfe\x81"


@pytest.mark.parametrize(
    "data",
    [
        b"<meta charset=klingon>" + HERE.encode(),
        b"<meta charset=base64>" + HERE.encode(),
        b"<meta charset=unicode_escape>\\x3cimg src=a.png>" + HERE.encode(),
        HERE.encode("utf-16-le"),
        b"\xff\xfe" + HERE.encode("utf-16-le") + b"\0",
        b"\xff\xfe\x00\xd8" + HERE.encode("utf-16-le"),
        b"\x89PNG\r\n\x1a\n\0\0",
    ],
)
def test_a_page_that_cannot_be_decoded_is_named(data: bytes, site: Path) -> None:
    path = site / "odd.html"
    path.write_bytes(data)
    page = read_page(path, site)
    assert page.images == ()
    assert str(page.error).startswith(f"{path}: is not a page in the encoding ")


@pytest.mark.parametrize("text", ["a \"b\" & 'c' <d>", "it's", '6" by 9"', "a&amp;b", "tab\tand\nline", "ü ☃ 🦄"])
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16"])
@pytest.mark.parametrize("name", ["text.html", "text.xhtml"])
def test_any_text_comes_back(text: str, encoding: str, name: str, site: Path) -> None:
    path = site / name
    data = f'<?xml version="1.0" encoding="{encoding}"?><html><img src="a.png"/></html>'.encode(encoding)
    path.write_bytes(data)
    (image,) = read_page(path, site).images
    after = insert_alts(data, path, {image.place: text})
    if name.endswith("xhtml"):
        element = ET.fromstring(after).find("img")
    else:
        element = html5lib.parse(after, namespaceHTMLElements=False, transport_encoding=encoding).find(".//img")
    assert element is not None
    assert element.get("alt") == text


XHTML = '<html xmlns="http://www.w3.org/1999/xhtml">'


@pytest.mark.parametrize(
    "markup",
    [
        f'{XHTML}<head><script src="x.js"/><title/></head>\r\n<img§ src="a.png"/></html>',
        f'{XHTML}&nbsp;ü<img§ src="a.png"/><img alt="" src="a.png"/></html>',
        f'{XHTML}<![CDATA[<img src="a.png"/>]]><IMG src="a.png"/><img§ src="a.png"></img></html>',
        '<h:html xmlns:h="http://www.w3.org/1999/xhtml"><h:img§ src="a.png"/></h:html>',
        f'{XHTML}<svg xmlns="http://www.w3.org/2000/svg"><img src="a.png"/></svg></html>',
        f'<!DOCTYPE html [<!ENTITY i "<img src=\'a.png\'/>">]>{XHTML}&i;<p/><img§ src="a.png"/></html>',
        f'{XHTML}<base href="img/"/><template><img src="a.png"/></template><img§ src="b%20c.png"/></html>',
    ],
)
def test_xhtml_is_read_as_xml(markup: str, site: Path) -> None:
    after = described(markup.replace("§", "").encode(), site, "page.xhtml")
    assert after.decode() == markup.replace("§", ALT)


def test_xhtml_that_is_not_well_formed_is_named(site: Path) -> None:
    path = site / "bad.xhtml"
    path.write_text(f"{XHTML}<img src='a.png'></html>")
    assert "not well-formed XHTML" in str(read_page(path, site).error)


_PIECES = st.sampled_from(
    [
        *(
            HERE,
            "<IMG SRC=a.png>",
            "<img src='a.png' alt=''>",
            "<img src=a.png alt=x>",
            "<img",
            " src=a.png",
            "<image ",
        ),
        *("<p>", "</p>", "<b>", "</b>", "<a href='", "'", '"', ">", "<", "/", "=", "&amp;", "&", "<!--", "-->", "<!"),
        *("<table>", "<tr>", "<td>", "</table>", "<svg>", "</svg>", "<script>", "</script>", "<style>", "</style>"),
        *("<textarea>", "</textarea>", "<title>", "</title>", "<noscript>", "</noscript>", "<?x", "]]>", "<![CDATA["),
        *("\r\n", "\n", " ", "ü", "🦄", "\x85", "\u00a0", "alt", "</body>", "<br/>", "<head>", "<body>"),
    ]
)


@given(st.lists(_PIECES | st.text(max_size=3), max_size=25), st.sampled_from(["utf-8", "cp1252", "utf-16"]))
def test_a_parser_sees_the_same_page_but_for_the_alt_texts(site: Path, pieces: list[str], encoding: str) -> None:
    text = "<!doctype html>" + "".join(pieces).replace("\0", "")
    data = text.encode(encoding, "xmlcharrefreplace" if encoding == "cp1252" else "replace")
    after = described(data, site, f"{encoding}.html")
    assert after.decode(encoding).replace(ALT, "") == data.decode(encoding)
    was, now = (html5lib.parse(one, namespaceHTMLElements=False, transport_encoding=encoding) for one in (data, after))
    for element, new in zip(was.iter(), now.iter(), strict=True):
        given_alt = element.tag == "img" and "alt" not in element.attrib and element.get("src") == "a.png"
        if given_alt and not all(map(str.isalpha, element.attrib)) and "alt" not in new.attrib:
            given_alt = False  # the tag may hold code
        assert new.attrib.get("alt") == (TEXT if given_alt else element.attrib.get("alt"))
        new.attrib.pop("alt", None), element.attrib.pop("alt", None)
    assert ET.tostring(now) == ET.tostring(was)
    assert described(after, site, f"{encoding}.html") == after


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that a model was asked for, which calls each by its name; what is broken has no caption."""
    names: list[str] = []

    def caption(model: object, items: Iterable[Path], options: object, *, batch_size: int) -> Iterator[Record]:
        for item in items:
            names.append(item.name)
            broken = "broken" in item.name
            yield Record(item, error="is broken") if broken else Record(item, (Caption(f"{item.stem}.", -1.0),))

    monkeypatch.setattr(pages, "caption_items", caption)
    return names


def run(*paths: Path, **settings: Any) -> list[Page]:
    return list(describe_pages([str(path) for path in paths], None, None, **settings))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "broken.png").write_text("x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.html").write_text("<img src=a.png><img src=b.png><img src=./a.png>")
    (tmp_path / "sub" / "two.HTM").write_text("<img src=../b.png><img src=/a.png><img src=/broken.png>")
    (tmp_path / "empty.html").write_text("")
    (tmp_path / ".hidden.html").write_text("<img src=a.png>")
    (tmp_path / "notes.txt").write_text("<img src=a.png>")
    return tmp_path


def texts(page: Page) -> list[tuple[str, str | None]]:
    return [(image.state, image.text) for image in page.images]


def test_an_image_is_captioned_once_wherever_it_stands(folder: Path, asked: list[str]) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    empty, one, two = run(folder)
    assert asked == ["a.png", "b.png", "broken.png"]
    assert empty.images == ()
    assert texts(one) == [("to write", "a."), ("to write", "b."), ("to write", "a.")]
    assert texts(two) == [("to write", "b."), ("to write", "a."), ("failed", "is broken")]
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_pages_are_written_and_a_second_run_writes_nothing(folder: Path, asked: list[str]) -> None:
    _, one, two = run(folder, in_place=True)
    assert texts(one) == [("written", "a."), ("written", "b."), ("written", "a.")]
    assert one.path.read_text() == '<img alt="a." src=a.png><img alt="b." src=b.png><img alt="a." src=./a.png>'
    assert two.path.read_text() == '<img alt="b." src=../b.png><img alt="a." src=/a.png><img src=/broken.png>'
    written = {path: path.stat() for path in folder.rglob("*.*")}
    asked.clear()
    run(folder, in_place=True)
    assert asked == ["broken.png"]
    assert {path: path.stat() for path in folder.rglob("*.*") if path.exists()} == written


def test_a_page_alone_has_its_own_folder_as_root(folder: Path, asked: list[str]) -> None:
    assert [image.state for image in run(folder / "sub" / "two.HTM")[0].images] == ["to write", "no file", "no file"]
    (page,) = run(folder / "sub" / "two.HTM", root=folder)
    assert [image.state for image in page.images] == ["to write", "to write", "failed"]


def test_permissions_stay_and_a_link_stays_a_link(folder: Path, asked: list[str]) -> None:
    (folder / "one.html").chmod(0o640)
    (folder / "sub" / "link.html").symlink_to(folder / "one.html")
    Image.new("RGB", (9, 9)).save(folder / "sub" / "a.png")
    (page,) = run(folder / "sub" / "link.html", in_place=True)
    assert [image.state for image in page.images] == ["written", "no file", "written"]
    assert (folder / "sub" / "link.html").is_symlink()
    assert (folder / "one.html").read_text() == '<img alt="a." src=a.png><img src=b.png><img alt="a." src=./a.png>'
    assert (folder / "one.html").stat().st_mode & 0o777 == 0o640


def test_a_page_that_cannot_be_written_stays_and_the_others_go_on(
    folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "one.html").chmod(0o444)
    os.mkfifo(folder / "pipe.html")
    before = (folder / "one.html").read_bytes()
    found = {page.path.name: page for page in run(folder, in_place=True)}
    assert found["one.html"].error == f"{folder / 'one.html'}: is write-protected, and stays as it is"
    assert found["pipe.html"].error == f"{folder / 'pipe.html'}: is not a regular file"
    assert found["two.HTM"].images[0].state == "written"
    (folder / "one.html").chmod(0o644)

    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages, "replacing", full)
    (page,) = run(folder / "one.html", in_place=True)
    assert page.error == f"cannot write {folder / 'one.html'}: No space left on device"
    assert (page.images[0].state, page.path.read_bytes()) == ("to write", before)


def test_a_page_that_changes_meanwhile_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = folder / "one.html"

    def caption(model: object, items: Iterable[Path], options: object, **settings: object) -> Iterator[Record]:
        items = list(items)
        one.write_text("<p>edited")
        yield from (Record(item, (Caption("A dog.", -1.0),)) for item in items)

    monkeypatch.setattr(pages, "caption_items", caption)
    (page,) = run(one, in_place=True)
    assert page.error == f"{one}: has changed meanwhile, and stays as it is; give the same command again"
    assert one.read_text() == "<p>edited"


def test_a_page_that_is_too_long_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MOST_BYTES", 10)
    assert "is longer than" in str(read_page(folder / "one.html", folder).error)


def test_deep_pages_are_read(site: Path) -> None:
    (site / "deep.html").write_text("<div>" * 3000 + HERE)
    assert len(read_page(site / "deep.html", site).images) == 1
    (site / "deep.xhtml").write_text("<div>" * 3000 + '<img src="a.png"/>' + "</div>" * 3000)
    assert len(read_page(site / "deep.xhtml", site).images) == 1
