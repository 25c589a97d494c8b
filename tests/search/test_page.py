from __future__ import annotations

import base64
import io
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from PIL import Image

from captioner.errors import CaptionerError
from captioner.images import open_image
from captioner.search.search import Answer, Match, write_page

TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "p", "ol", "li", "img", "span", "a"}


class _Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _answer(paths: list[Path]) -> Answer:
    matches = [Match(path, -10.0 - place, 3.0 - place) for place, path in enumerate(paths)]
    return Answer(("a", "dog"), matches, -13.0)


def test_the_best_images_are_shown_in_order_and_embedded(tmp_path: Path, images: list[Path]) -> None:
    write_page(tmp_path / "found.html", "a dog", _answer(images), 3)
    page = _Reader((tmp_path / "found.html").read_text())
    paths = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(paths) == 3
    for address, image in zip(paths, images, strict=False):
        kind, data = address.split(",")
        assert kind == "data:image/jpeg;base64"
        large = open_image(image)  # upright, as its small copy has to be
        with Image.open(io.BytesIO(base64.b64decode(data))) as small:
            assert max(small.size) <= 320
            assert small.width / small.height == pytest.approx(large.width / large.height, rel=0.02)
    assert "+3.00" in page.text
    assert "log P -10.00" in page.text
    assert f"The 3 best of {len(images)} images" in page.text
    links = [attributes["href"] or "" for tag, attributes in page.tags if tag == "a"]
    assert [unquote(urlparse(link).path) for link in links] == [str(image.absolute()) for image in images[:3]]


def test_nothing_is_fetched_or_run(tmp_path: Path, images: list[Path]) -> None:
    write_page(tmp_path / "found.html", "a dog", _answer(images), 99)
    page = _Reader((tmp_path / "found.html").read_text())
    assert {tag for tag, _ in page.tags} <= TAGS
    assert not re.search(r"https?://|@import|url\(", (tmp_path / "found.html").read_text())


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.jpg", "\" onerror='x'.jpg", "a{b}%0A\n.jpg"])
def test_names_and_texts_that_look_like_html_are_escaped(tmp_path: Path, images: list[Path], name: str) -> None:
    path = tmp_path / name.replace("/", "_")
    shutil.copy(images[0], path)
    write_page(tmp_path / "found.html", f"{{x}} </title>{name}", _answer([path]), 5)
    page = _Reader((tmp_path / "found.html").read_text())
    assert {tag for tag, _ in page.tags} <= TAGS
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert str(path) in page.text
    (image,) = (attributes for tag, attributes in page.tags if tag == "img")
    assert image["alt"] == path.name


def test_odd_bytes_and_images_that_have_gone(tmp_path: Path) -> None:
    write_page(tmp_path / "found.html", "a dog", _answer([Path(os.fsdecode(b"\xff.jpg"))]), 5)
    text = (tmp_path / "found.html").read_text()
    assert "image not at hand" in text
    assert "%FF.jpg" in text


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, images: list[Path]) -> None:
    with pytest.raises(CaptionerError, match=r"cannot write .*absent"):
        write_page(tmp_path / "absent" / "found.html", "a dog", _answer(images), 1)
    assert list(tmp_path.iterdir()) == []
